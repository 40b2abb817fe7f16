"""Files and folders that are written whole or not at all, and names that every file system takes."""

import ctypes
import errno
import hashlib
import os
import re
import shutil
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; it takes the name only when the block ends well.

    Raises:
        OSError: the disk is full, or the folder may not be written to; neither `path` nor the temporary file is touched.
    """
    path = Path(path)
    # A name of its own, because `path.name` may already be as long as the file system allows.
    temporary = path.parent / f".{uuid.uuid4().hex}.partial"
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _open(temporary) as file:
                yield file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all; see `whole_file`."""
    with whole_file(path) as file:
        file.write(content)


# -- checkpoints: files or folders that replace one of their own name ------------------------------------------------------------------

_PARTIAL, _PREVIOUS = ".partial", ".previous"
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
        _flush(file)
    _flush(temporary)
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
    _flush(path.parent)


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


def _flush(path: Path) -> None:
    """Write what the system still holds back of a file, or of a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have nothing to flush for a folder
            raise
    finally:
        os.close(descriptor)


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


def _open(path: Path) -> BinaryIO:
    return open(path, "xb")


def _explain(error: OSError, path: Path) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free / 2**20
    return f"could not write {path}: {os.strerror(error.errno)}; {free:,.0f} MiB are free in {folder}; {_ADVICE[error.errno or 0]}"
