"""A process that calls one function again and again, and of which its owner learns how it ended."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from moviegen_core.errors import UsageError

_PATIENCE_S = 10.0


class WorkerDied(Exception):
    """A worker ended before it answered.

    Args:
        how: the signal that killed it, or its exit status.
        killed: whether a signal did.
        begun: whether it had come so far as to call the function.
    """

    def __init__(self, how: str, *, killed: bool, begun: bool) -> None:
        super().__init__(how)
        self.how, self.killed, self.begun = how, killed, begun


class Worker:
    """A process with a function. It ends with its owner, also where that one is killed.

    Args:
        function: what it calls; it is sent once, so that models are loaded once.
    """

    def __init__(self, function: Callable[[int], int]) -> None:
        context = multiprocessing.get_context("spawn")  # libraries with threads do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function))
        self.process.start()
        theirs.close()
        self.number: int | None = None  # what it is at
        self._begun = False

    def give(self, number: int) -> None:
        """Have the function called; `answer` tells what came of it."""
        self.number = number
        try:
            self.pipe.send(number)
        except OSError:  # it is dead, as `answer` will tell
            pass

    def answer(self) -> int | None:
        """What the function gave; None where the worker only says that it has begun.

        Raises:
            WorkerDied: there will be no answer.
            Exception: what the function raised.
        """
        try:
            told = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if told is None:
            self._begun = True
            return None
        self.number = None
        if isinstance(told, Exception):
            raise told
        return told

    def end(self) -> None:
        """End it, at once where it is at work."""
        self.pipe.close()
        if self.number is not None or not self._begun:
            self.process.terminate()
        self.process.join(_PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()

    def _death(self) -> WorkerDied:
        self.process.join(_PATIENCE_S)
        status = self.process.exitcode
        killed = status is not None and status < 0
        return WorkerDied(signal.Signals(-status).name if killed else f"exit status {status}", killed=killed, begun=self._begun)


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


def _serve(pipe: Connection, function: Callable[[int], int]) -> None:
    threading.Thread(target=_leave_with_owner, daemon=True).start()
    try:
        pipe.send(None)
        while True:
            number = pipe.recv()
            try:
                answer: int | Exception = function(number)
            except Exception as error:  # noqa: BLE001 - the owner judges
                answer = portable(error)
            pipe.send(answer)
    except (EOFError, OSError, KeyboardInterrupt):  # the owner needs it no more
        return


def _leave_with_owner() -> None:
    owner = multiprocessing.parent_process()
    if owner is not None:
        owner.join()
        os._exit(1)
