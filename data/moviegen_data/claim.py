"""One writer at a time: a hidden folder that a process has taken for itself."""

import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from moviegen_core.errors import UsageError
from moviegen_core.files import remove

_LOCK = "lock"
_ATTEMPTS = 1000


class Claim:
    """A folder for what is unfinished, made and held until it is released; a killed process lets go of it.

    Args:
        folder: the folder; what lies in it stays.
        what: what is written by way of it, for the errors.

    Raises:
        UsageError: another process has it, or it cannot be made.
    """

    def __init__(self, folder: Path, *, what: str) -> None:
        self.folder = folder
        given = f"{what} were to be written"
        for _ in range(_ATTEMPTS):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                file = self._held()
            except BlockingIOError as error:
                raise UsageError(given, "another process is writing them", "wait for it, or give another folder or prefix") from error
            except FileNotFoundError:
                continue  # another process has just ended and removed the folder
            except OSError as error:
                exists = f"the folder cannot be made or written to ({error.strerror})"
                raise UsageError(given, exists, "give a folder of your own") from error
            if file is not None:
                self._file = file
                return
        raise UsageError(given, f"{folder} is gone as soon as it is made", "see whether the folder that you are in is still there")

    def clear(self, *, keep: Collection[str] = ()) -> None:
        """Remove what lies in the folder, but for some names."""
        for path in self.folder.iterdir():
            if path.name not in (_LOCK, *keep):
                remove(path)

    def release(self) -> None:
        """Let go of the folder, and remove it if it is empty."""
        (self.folder / _LOCK).unlink(missing_ok=True)
        self._file.close()
        try:
            self.folder.rmdir()
        except OSError:  # it holds something, or another process has taken it already
            pass

    def _held(self) -> BinaryIO | None:
        """The locked file; None where it was removed in between."""
        path = self.folder / _LOCK
        file = open(path, "ab")
        try:
            # Of the ways to lock the one that forked workers do not inherit: they outlive a killed process by seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise BlockingIOError from error
        except OSError:  # a file system without locks
            return file
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file
        file.close()
        return None
