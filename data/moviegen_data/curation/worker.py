"""A process that calls the functions it is sent, and of which its owner learns how it ended."""

import atexit
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any

from moviegen_core.errors import UsageError

_PATIENCE_S = 10.0


class WorkerDied(Exception):
    """A worker ended before it answered.

    Args:
        how: the signal that killed it, or its exit status.
    """

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class CannotBegin(Exception):
    """A worker came not so far as to call its function, and another one would not either."""


class Worker:
    """A process that calls one function after another. It ends with its owner, also where that one is killed."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # libraries with threads do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        self.process.start()
        theirs.close()
        atexit.register(self.leave)  # earlier than multiprocessing, which would wait for it without end
        self.number: int | None = None  # what it is at
        self._function: bytes | None = None  # what it has
        self._is_up = False
        self._due: tuple[bytes | None, int] | None = None  # kept until it is up, since a full pipe that nobody reads holds up the owner

    def give(self, function: bytes, number: int) -> None:
        """Have a function called; `answer` tells what came of it.

        Args:
            function: its pickle; sent once for any number of calls, so that models are loaded once.
            number: its argument.
        """
        self.number, self._due = number, (None if function is self._function else function, number)
        self._function = function
        if self._is_up:
            self._tell(self._due)

    def forget(self) -> None:
        """Have the function put away, and the models that it loaded."""
        self._function = None
        self._tell(None)

    def answer(self) -> int | None:
        """What the function gave; None where the worker only says that it is up.

        Raises:
            WorkerDied: there will be no answer.
            CannotBegin: the process, or its function, cannot be built.
            Exception: what the function raised.
        """
        try:
            told = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if told is None:
            self._is_up = True
            self._tell(self._due)
            return None
        self.number = None
        if isinstance(told, Exception):
            raise told
        return told

    def is_alive(self) -> bool:
        """Whether it can be given something."""
        return self.process.is_alive()

    def leave(self) -> None:
        """Tell it to end, at once where it is at work; `join` waits for that."""
        self.pipe.close()
        if self.number is not None or not self._is_up:
            self.process.terminate()

    def join(self) -> None:
        """Wait until it is gone; kill it where it does not go."""
        self.process.join(_PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()
        atexit.unregister(self.leave)

    def _tell(self, message: tuple[bytes | None, int] | None) -> None:
        try:
            self.pipe.send(message)
        except OSError:  # it is dead, as `answer` will tell
            pass

    def _death(self) -> WorkerDied | CannotBegin:
        self.process.join(_PATIENCE_S)
        status = self.process.exitcode
        if status is not None and status < 0:
            return WorkerDied(signal.Signals(-status).name)
        how = f"exit status {status}"
        return WorkerDied(how) if self._is_up else CannotBegin(f"{how}; what it printed tells why")


def end(workers: Iterable[Worker]) -> None:
    """End workers, all at once."""
    ending = list(workers)
    for worker in ending:
        worker.leave()
    for worker in ending:
        worker.join()


def portable(error: Exception) -> Exception:
    """An error that can be sent to another process, with the place where it was raised as a note; a user's mistake as it is."""
    if isinstance(error, UsageError):
        return error
    place = "".join(traceback.format_exception(error))
    try:
        back: Any = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - a stranger's error may do anything
        back = None
    if type(back) is not type(error) or str(back) != str(error):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(place)
    return error


def _serve(pipe: Connection) -> None:
    threading.Thread(target=_leave_with_owner, daemon=True).start()
    function: Callable[[int], int] | None = None
    try:
        pipe.send(None)
        while True:
            told = pipe.recv()
            if told is None or told[0] is not None:  # one function's models go before those of the next come
                function = None
                _free()
            if told is None:
                continue
            pickled, number = told
            try:
                function = function or _built(pickled)
                answer: int | Exception = function(number)
            except Exception as error:  # noqa: BLE001 - the owner judges
                answer = portable(error)
            pipe.send(answer)
    except (EOFError, OSError, KeyboardInterrupt):  # the owner needs it no more
        return


def _built(pickled: bytes) -> Callable[[int], int]:
    try:
        return pickle.loads(pickled)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # reading it imports a stranger's modules, which may raise anything
        raise CannotBegin(f"{type(error).__name__}: {error}") from error


def _free() -> None:
    """Give back what nobody holds any more, on GPUs too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _leave_with_owner() -> None:
    owner = multiprocessing.parent_process()
    if owner is not None:
        owner.join()
        os._exit(1)
