"""Captions of a folder of media: a csv, a json, or a text file beside each medium."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moviegen_core.errors import UsageError, nearest
from moviegen_data.media_files import read_if_there
from moviegen_data.tables import read_table

_FILES = ("file", "filename", "file_name", "path", "video", "image")
_CAPTIONS = ("caption", "text", "prompt")


@dataclass
class Captions:
    """What is said about media.

    Args:
        records: by the medium's absolute path; each has `caption` and whatever else the file says.
        absent: names in the caption file that no file answers to.
        elsewhere: names of files that exist outside the folder.
    """

    records: dict[Path, dict[str, Any]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


def read_captions(source: str, folder: Path, media: list[Path], *, column: str | None = None, setting: str = "column") -> Captions:
    """Read captions for the media of a folder.

    Args:
        source: `sidecar` for `NAME.txt` beside each medium, or a csv (with a header), json (a mapping from file to caption or record, or a
            list of records) or jsonl file. File names are relative to the folder, or to the caption file's own folder.
        folder: the folder of media.
        media: the media in it.
        column: the column that holds the caption, where it is not called caption, text or prompt.
        setting: what the user calls `column`, for the errors.

    Raises:
        UsageError: the file is absent, of an unknown kind, or without the columns.
        SourceError: the system cannot read a medium's `NAME.txt`.
    """
    if source == "sidecar":
        return Captions({medium.resolve(): {"caption": text} for medium in media if (text := (caption_beside(medium) or "").strip())})
    path = Path(source).expanduser()
    if not path.is_file():
        raise UsageError(
            f"the captions {source!r} were given",
            "there is no such file",
            "give a csv, json or jsonl file, or `sidecar` for NAME.txt beside each medium",
        )
    captions, inside = Captions(), {medium.resolve() for medium in media}
    for name, record in caption_records(path, column=column, setting=setting):
        places = [Path(os.path.realpath(place / name)) for place in (folder, path.parent)] if _can_be(name) else []
        found = next((place for place in places if place in inside), None)
        if found is not None:
            if record["caption"]:
                captions.records[found] = record
        elif any(os.path.isfile(place) for place in places):  # pathlib's own refuses what is too long for a name
            captions.elsewhere.append(name)
        else:
            captions.absent.append(name)
    return captions


def caption_beside(medium: Path) -> str | None:
    """What `NAME.txt` beside a medium says; None where there is no such file.

    Raises:
        SourceError: the system cannot read it.
    """
    content = read_if_there(medium.with_suffix(".txt"))
    return None if content is None else io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", errors="replace").read()


def _can_be(name: str) -> bool:
    """Whether a file can have a name."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half a sign
        return False


def caption_records(
    path: Path, *, column: str | None = None, setting: str = "column", further: Sequence[str] = ()
) -> list[tuple[str, dict[str, Any]]]:
    """The file names of a caption file, each with its record, which has `caption` and whatever else the file says.

    Args:
        path: a csv, json or jsonl file.
        column: the column that holds the caption, where it is not called caption, text or prompt.
        setting: what the user calls `column`, for the errors.
        further: columns wanted as annotations, of which each must be in some record, filled in or not.

    Raises:
        UsageError: the file is of an unknown kind, cannot be read, or is without the columns.
    """
    if path.suffix.lower() not in (".csv", ".json", ".jsonl"):
        raise UsageError(f"the captions {path} were given", "captions come in csv, json and jsonl files", "write them as one of these")
    rows = read_table(path, what="captions")
    if isinstance(rows, Mapping):
        rows = [{"file": name, **(value if isinstance(value, Mapping) else {"caption": value})} for name, value in rows.items()]
    records, others = [], {}
    for row in rows:
        file, caption = _places(row, path, column, setting)
        others.update(dict.fromkeys(name for name in row if name not in (file, caption)))
        records.append(_record(row, file, caption))
    if rows:
        _require_columns(further, list(others), path)
    return records


def _places(row: Any, path: Path, column: str | None, setting: str) -> tuple[str, str]:
    """The columns of a record that hold the file and the caption."""
    names = list(row) if isinstance(row, Mapping) else []
    file = next((name for name in _FILES if name in names), None)
    caption = next((name for name in ((column,) if column else _CAPTIONS) if name in names), None)
    if file is None or caption is None:
        raise UsageError(
            f"a record of {path} was read for a file and its {column or 'caption'}",
            f"its columns are {', '.join(map(str, names)) or type(row).__name__}",
            f"call them {_FILES[0]} and {_CAPTIONS[0]}, or name the caption's with `{setting}`",
        )
    return file, caption


def _require_columns(names: Sequence[str], others: list[str], path: Path) -> None:
    for name in names:
        if name not in others:
            close = nearest(name, others)
            near = f"; the nearest is {close[0]!r}" if close else ""
            exists = f"beside files and captions {path} has {', '.join(map(str, others)) or 'no columns'}{near}"
            raise UsageError(f"the column {name!r} was asked for as an annotation", exists, "name a column that is there, or leave it out")


def _record(row: Mapping[str, Any], file: str, caption: str) -> tuple[str, dict[str, Any]]:
    rest = {name: value for name, value in row.items() if name not in (file, caption) and value not in (None, "")}
    return str(row[file]), {**rest, "caption": str(row[caption] or "").strip()}
