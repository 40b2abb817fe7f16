"""SIGTERM during training: all processes end after the same step, with a checkpoint."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer

EXIT_CODE = 143  # 128 + SIGTERM, as a shell reports it


class Terminated(SystemExit):
    """Training ended because of SIGTERM, after it was saved; the process ends with code 143."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class TerminationListener:
    """Notes SIGTERM instead of acting on it at once, as Lightning does, whose handler starts a broadcast wherever the program stands.

    Where Lightning requeues a SLURM job by itself it leaves the signals to Lightning.
    """

    def __init__(self) -> None:
        self.received = False
        self._earlier: Callable[[int, FrameType | None], Any] | int | None = None
        self._listens = False

    def start(self, trainer: Trainer) -> None:
        """Listen, from the main thread only."""
        if self._listens or _is_requeued(trainer) or threading.current_thread() is not threading.main_thread():
            return
        self.received, self._listens = False, True
        self._earlier = signal.signal(signal.SIGTERM, self._note)

    def stop(self) -> None:
        """Put back what listened before."""
        if self._listens:
            signal.signal(signal.SIGTERM, self._earlier if self._earlier is not None else signal.SIG_DFL)
            self._listens = False

    def received_anywhere(self, trainer: Trainer) -> bool:
        """Whether any process has received the signal; all processes ask together and hear the same."""
        if trainer.world_size == 1:
            return self.received
        # Lightning itself synchronises all processes once per batch for the same purpose, so this one finds them together.
        return not _is_requeued(trainer) and trainer.strategy.reduce_boolean_decision(self.received, all=False)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = True


def _is_requeued(trainer: Trainer) -> bool:
    environment = trainer._accelerator_connector.cluster_environment
    return isinstance(environment, SLURMEnvironment) and environment.auto_requeue


def leave_process_group(_: int) -> None:
    """For loaders' workers: signals to the whole group of processes are the training process's business; it ends its workers itself."""
    os.setpgid(0, 0)
