"""Files and folders that are written whole or not at all, and names that every file system takes."""

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import shutil
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_ADVICE = {
    errno.ENOSPC: "free some space or give a folder on another disk",
    errno.EDQUOT: "free some of your quota or give a folder on another disk",
    errno.EFBIG: "this file system takes no file so large; give a folder on another one",
    errno.EACCES: "give a folder you may write to",
    errno.EPERM: "give a folder you may write to",
    errno.ENOENT: "give a folder that can be made",
    errno.EISDIR: "a folder has this name; give the name of a file",
    errno.EEXIST: "a file is where the folder should be; give another folder",
    errno.ENOTDIR: "a file is where the folder should be; give another folder",
    errno.EROFS: "give a folder on a disk that is mounted for writing",
}
_PARTIAL, _PREVIOUS = ".partial", ".previous"


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; it takes the name only when the block ends well, and is on the disk then.

    The temporary name is told by `path`, so that writing the same file again takes away what a killed writer left.

    Raises:
        OSError: the disk is full, or the folder may not be written to; neither `path` nor the temporary file is touched.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file, temporary = _own(path)
        with file:  # closed last, since others may have its name from then on
            try:
                yield file
                file.flush()
                _sync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        flush(path.parent)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all; see `whole_file`."""
    with whole_file(path) as file:
        file.write(content)


# -- checkpoints: files or folders that replace one of their own name ------------------------------------------------------------------

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def partial_path(path: Path) -> Path:
    """Where a file or folder is written until it is whole: a hidden neighbour, so that one rename makes it visible."""
    return path.parent / f".{path.name}{_PARTIAL}"


def is_partial(path: Path) -> bool:
    """True for a path under which something unfinished may lie."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write a file or folder under; it becomes `path` when the block ends well, and `path` stays as it was otherwise.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    temporary = partial_path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path.parent, path.suffix or path.name)
        try:
            yield temporary
            publish(temporary, path)
        except BaseException:
            remove(temporary)
            raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say of a failed writing of `path` what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        raise OSError(error.errno, _explain(error, path)) from error


def publish(temporary: Path, path: Path) -> None:
    """Flush a whole file or folder and give it its name in one step; what had the name is valid until then, and removed after.

    File systems that cannot exchange two names get two renames; `recover` sets right what a crash between them leaves.
    """
    for file in temporary.iterdir() if temporary.is_dir() else ():
        flush(file)
    flush(temporary)
    if temporary.is_file() and not path.is_dir():
        os.replace(temporary, path)
    elif not path.exists():
        os.rename(temporary, path)
    elif _exchange(temporary, path):
        remove(temporary)
    else:
        previous = path.parent / f".{path.name}{_PREVIOUS}"
        remove(previous)
        os.rename(path, previous)
        os.rename(temporary, path)
        remove(previous)
    flush(path.parent)


def recover(folder: Path, suffix: str) -> None:
    """Give what a crash left under another name its own one back, and remove what was never finished.

    Args:
        folder: where to look; one run writes into it at a time.
        suffix: only names that end so are touched, e.g. `.ckpt`.
    """
    if not folder.is_dir():
        return
    for previous in folder.glob(f".*{suffix}{_PREVIOUS}"):
        path = folder / previous.name[1 : -len(_PREVIOUS)]
        if path.exists():
            remove(previous)
        else:
            os.rename(previous, path)
    for partial in folder.glob(f".*{suffix}{_PARTIAL}"):
        remove(partial)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths swap what they name, at once; false where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def flush(path: Path) -> None:
    """Write what the system still holds back of a file, or of a folder's list of names."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder to drop files into; its names reach the disk a little later
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have nothing to flush
            raise


# -- names ------------------------------------------------------------------------------------------------------------------------------


def safe_name(text: str, *, max_bytes: int = 120) -> str:
    """Turn any text (a key, a prompt) into a file name without folders, spaces or control characters.

    Letters of every script stay. A name that had to be changed or cut ends in eight digits of the text's hash, so that two texts never
    share one.
    """
    name = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", text)).strip("-.")
    if name == text and len(name.encode()) <= max_bytes:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    short = name.encode(errors="ignore")[: max_bytes - 9].decode(errors="ignore").rstrip("-.")
    return f"{short}-{digest}" if short else digest


def _own(path: Path) -> tuple[BinaryIO, Path]:
    """A temporary file for `path` that no other writer has, empty, and its name."""
    # Not of the file's own name, which may be as long as the file system allows.
    temporary = path.parent / f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{_PARTIAL}"
    with suppress(PermissionError):  # another user's killed writer has left it
        file = _open(temporary)
        if _lock(file) and _is_at(file, temporary):
            file.truncate(0)
            return file, temporary
        file.close()  # another writer of the same file is at work
    temporary = path.parent / f".{uuid.uuid4().hex}{_PARTIAL}"
    return _open(temporary), temporary


def _open(path: Path) -> BinaryIO:
    return open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))


def _lock(file: BinaryIO) -> bool:
    """Take a file for this writer until it is closed; false where another has it, or the file system cannot tell."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """True where a file still has the name that it was opened by."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _explain(error: OSError, path: Path) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free / 2**20
    return f"could not write {path}: {os.strerror(error.errno)}; {free:,.0f} MiB are free in {folder}; {_ADVICE[error.errno or 0]}"
