"""Shards on this machine's file systems."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from moviegen_data.faults import SampleError, SourceError


class LocalFile:
    """A shard's file, open as long as anything refers to it; reads name their place, so processes may share it.

    Args:
        path: its path.

    Raises:
        SampleError: it is not there any more, or may not be read.
        SourceError: the file system fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with told(path):
            self.descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of a range; fewer where the file ends before."""
        parts = []
        with told(self._path):
            while size and (part := os.pread(self.descriptor, size, offset)):  # the system gives at most 2 GiB at a time
                parts.append(part)
                offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, target: np.ndarray) -> int:
        """Fill an array of bytes from some byte of the file on; return how many there were."""
        count = 0
        with told(self._path):
            while count < len(target):
                part = os.preadv(self.descriptor, [target[count:]], offset + count)
                if not part:
                    break
                count += part
        return count

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def open_local(path: Path) -> BinaryIO:
    """A file for reading its headers.

    Raises:
        SampleError: it is not there any more, or may not be read.
        SourceError: the file system fails.
    """
    with told(path):
        return open(path, "rb")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Say of a failed reading whether the run can go on without the shard."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise SampleError("the shard cannot be opened", f"{path}: {error.strerror}") from error
    except OSError as error:
        raise SourceError(
            f"{path} was being read; the file system failed ({error.strerror}); see to it, then run the same command again: "
            "training goes on from its last checkpoint"
        ) from error
