"""What tells that a file behind a path is another one now, without reading it."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path


def fingerprint_of(*paths: str | Path | None) -> str:
    """A text that changes with the names, sizes and times of files, and of all files in folders but hidden ones.

    Times, and not contents, as for the media: weights have gigabytes. So a copy of a file counts as another file.

    Args:
        paths: files and folders; None is left out. What is not there has a fingerprint too.
    """
    return _digest(line for path in paths if path is not None for line in _told(Path(path).expanduser()))


def fingerprint_beside(media: Iterable[Path], suffix: str) -> str:
    """The same of the files beside media that are called like them.

    Args:
        media: paths of the media.
        suffix: ending of the files' names, e.g. `.txt`.
    """
    return _digest(line for path in media for line in _told(path.with_suffix(suffix)))


def _told(path: Path) -> Iterator[str]:
    if not path.is_dir():
        yield _line(path.name, path)
        return
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):  # hidden ones are a download's own records
            yield _line(name.as_posix(), file)


def _line(name: str, path: Path) -> str:
    try:
        told = path.stat()
    except OSError:
        return f"{name} is absent"
    return f"{name} {told.st_size} {told.st_mtime_ns}"


def _digest(lines: Iterable[str]) -> str:
    total = hashlib.sha256()
    for line in lines:
        total.update(f"{line}\n".encode())
    return total.hexdigest()[:16]
