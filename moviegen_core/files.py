"""Files that are written whole or not at all, and names that every file system takes."""

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _open(temporary) as file:
                yield file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        raise OSError(error.errno, _explain(error, path)) from error


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all; see `whole_file`."""
    with whole_file(path) as file:
        file.write(content)


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
