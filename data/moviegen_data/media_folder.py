"""The media of a folder, their names in shards, and what else lies in it."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from moviegen_core.errors import UsageError
from moviegen_data.audio import EXTENSIONS as SOUNDS
from moviegen_data.decoding import VIDEOS
from moviegen_data.faults import Skip, SkipReport
from moviegen_data.image import EXTENSIONS as IMAGES
from moviegen_data.media_files import mode_of
from moviegen_data.wording import counted

_KINDS = (*VIDEOS, *IMAGES, *SOUNDS)


def keyed_media(root: Path) -> tuple[list[tuple[str, Path]], SkipReport]:
    """The media of a folder by key, in the keys' order, and what else is in it.

    Raises:
        UsageError: it holds none.
        OSError: a folder in it cannot be listed.
    """
    skipped = SkipReport()
    return sorted(keyed(media_in(root, skipped, captions="sidecar"), root)), skipped


def media_in(root: Path, skipped: SkipReport, *, captions: str | None = None) -> list[Path]:
    """The media of a folder, in any depth; what is hidden is left out.

    Args:
        root: the folder.
        skipped: where what cannot be used is counted.
        captions: the caption file, or `sidecar` for a text beside each medium; neither is one that cannot be used.

    Raises:
        UsageError: it holds none.
        OSError: a folder in it cannot be listed, so that nobody knows what it holds.
    """
    texts = {".txt"} if captions == "sidecar" else set()
    caption_file, real_root = Path(captions or "").expanduser().resolve(), root.resolve()
    media = []
    for path in sorted(_visible(root, skipped)):
        name = str(path.relative_to(root))
        try:
            mode = mode_of(path)
        except PermissionError:  # its folder may be listed and no more
            skipped.add(Skip(str(root), name, "may not be read"))
            continue
        if stat.S_ISDIR(mode):
            skipped.add(Skip(str(root), name, "a link to a folder"))
        elif not stat.S_ISREG(mode):
            skipped.add(Skip(str(root), name, "not a file", "a link to nothing, or a device"))
        elif name != name.encode(errors="replace").decode():
            skipped.add(Skip(str(root), repr(name), "a name that is no UTF-8"))
        elif not (real := path.resolve()).is_relative_to(real_root):
            skipped.add(Skip(str(root), name, "a link that leaves the folder"))
        elif path.suffix.lower()[1:] not in _KINDS:
            if path.suffix.lower() not in texts and real != caption_file:
                skipped.add(Skip(str(root), name, "not a kind of media that shards hold"))
        elif not os.access(path, os.R_OK):
            skipped.add(Skip(str(root), name, "may not be read"))
        else:
            media.append(path)
    if not media:
        given, exists = f"the folder {root} was given", f"it holds no media ({', '.join(_KINDS)})"
        raise UsageError(given, exists, f"put some in; {counted(len(skipped), 'other file was', 'other files were')} seen")
    return media


def keyed(media: list[Path], root: Path) -> list[tuple[str, Path]]:
    """Media and their keys: their paths, of letters that every tar takes, and numbers where these are the same."""
    keys: dict[str, Path] = {}
    last: dict[str, int] = {}  # the number that was given last, so that a thousand names without letters are not counted from 1 each
    for path in media:
        base = re.sub(r"[^A-Za-z0-9_/-]+", "_", path.relative_to(root).with_suffix("").as_posix())[-80:].strip("_/") or "sample"
        key = base
        while key in keys:
            last[base] = last.get(base, 1) + 1
            key = f"{base}_{last[base]}"
        keys[key] = path
    return list(keys.items())


def _visible(root: Path, skipped: SkipReport) -> Iterator[Path]:
    """All files, and links to folders, which are not followed; a folder that may not be read is counted."""

    def told(error: OSError) -> None:
        if not isinstance(error, PermissionError):
            raise error
        skipped.add(Skip(str(root), os.path.relpath(error.filename, root), "may not be read", "a folder"))

    for place, folders, files in os.walk(root, onerror=told):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        yield from (Path(place, name) for name in (*links, *files) if not name.startswith("."))
