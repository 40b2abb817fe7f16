"""Starts the processes of one machine and looks after them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

if TYPE_CHECKING:
    from moviegen_core.parallel.liveness import ChildObserver


class ObservingLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher of scripts with an observer that says which process failed; Lightning's own kills all without a word.

    Arguments are those of Lightning's launcher.
    """

    observer: "ChildObserver | None" = None

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes of this machine, then call the function here."""
        from moviegen_core.parallel.liveness import ChildObserver

        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            first = self.cluster_environment.node_rank() * self.num_processes
            self.observer = ChildObserver(self.procs, rank=first)
            self.observer.start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)
