"""Files of media, read whole or opened by libav. Where the machine fails and not the file, no sample is lost for it: the run ends.

libav tells by one error that a file is damaged and that a disk is, or that no memory is left and that a damaged header asks for too much.
So a file that it cannot use is read once more by plain means, and what the system says then is believed. A process reads a file so once for
all that libav says of it in the same words, as of each clip of a damaged film; after that it only opens it and reads its beginning. Other
words, and another size or time of the file, have it read to the end again.
"""

import errno
import io
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import av

from moviegen_data.faults import SampleError, SourceError

_AT_ONCE = 4 << 20
_BEGINNING = 64 << 10
_ENOUGH = 256 << 20  # bytes of memory; a healthy file asks for less at a time
_NO_FILES_LEFT = (errno.EMFILE, errno.ENFILE)  # which nothing in a file makes libav say
_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_ADVICE = {
    errno.EMFILE: "allow more open files at a time, e.g. `ulimit -n 65536`",
    errno.ENFILE: "allow more open files at a time on this machine",
    errno.EACCES: "see to it that you may read it",
    errno.EPERM: "see to it that you may read it",
}


def opened(source: bytes | str | Path) -> Any:
    """The container of a file, or of its bytes.

    Raises:
        SampleError: it is none.
        SourceError: the system cannot read it.
    """
    try:
        return av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source))
    except FileNotFoundError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        raise fault(source, "cannot be opened", error) from error


def read_file(path: str | Path) -> bytes:
    """All bytes of a file.

    Raises:
        SourceError: the system cannot read it.
    """
    with _told(path):
        return Path(path).read_bytes()


def read_if_there(path: Path) -> bytes | None:
    """All bytes of a file; None where no file has this name, but perhaps a folder.

    Raises:
        SourceError: the system cannot read it.
    """
    with _told(path):
        try:
            return path.read_bytes() if stat.S_ISREG(mode_of(path)) else None
        except FileNotFoundError:  # it has just gone away
            return None


def mode_of(path: Path) -> int:
    """What kind of file it is, of a link what it leads to; 0 where that is nothing."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise
        return 0


def fault(source: Any, cause: str, error: Exception, *, where: str = "") -> SampleError:
    """The error that says what is wrong with a medium that cannot be used.

    Args:
        source: the file, its bytes, or its container.
        cause: short class of failures.
        error: what libav or Pillow said.
        where: where in the medium, e.g. `after 3 frames`.

    Raises:
        SourceError: the machine is to blame: the system cannot read the file either, or has no memory left.
    """
    path = _path_of(source)
    number = getattr(error, "errno", None)
    if number in _NO_FILES_LEFT:
        raise _failed(path or "a medium", OSError(number, os.strerror(number))) from error
    if isinstance(error, MemoryError):
        _require_memory(path or "a medium")
    said = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
    if path is not None:
        _require_readable(path, said)
    return SampleError(cause, f"{said} {where}".rstrip())


def _path_of(source: Any) -> str | None:
    if isinstance(source, (str, Path)):
        return str(source)
    return source.name if getattr(source, "file", source) is None else None  # a container, of a file that is no object of Python's


def _require_readable(path: str, said: str) -> None:
    with _told(path):
        with open(path, "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            file.read(_BEGINNING)
        _read_through(path, found.st_ino, found.st_size, found.st_mtime_ns, said)


@lru_cache(maxsize=256)
def _read_through(path: str, *told: int | str) -> None:
    """Read a file to its end, once for each state of it and each thing that was said; what fails is tried again."""
    with open(path, "rb", buffering=0) as file:
        while file.read(_AT_ONCE):
            pass


def _require_memory(path: str) -> None:
    with _told(path):
        mmap.mmap(-1, _ENOUGH, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _failed(path, error) from error


def _failed(path: str | Path, error: OSError) -> SourceError:
    advice = _ADVICE.get(error.errno or 0, "see to the machine")
    return SourceError(f"{path} was to be read; the system says: {error.strerror}; {advice}, then run the same command again")
