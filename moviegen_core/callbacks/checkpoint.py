"""The checkpoint to resume from while training runs, and to go on with once it has ended."""

import tempfile
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from moviegen_core.callbacks.termination import Terminated, TerminationListener
from moviegen_core.errors import UsageError
from moviegen_core.files import recover
from moviegen_core.weights.checkpoint_io import use_whole_checkpoints


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`: renewed every so many steps, when training ends, and when the process is told to end by SIGTERM.

    Training that resumes from it, with `--ckpt_path last`, goes on exactly. Lightning's own `ModelCheckpoint` saves before a validation
    that is due at the same step, which a resumed training then leaves out; saves again in the middle of accumulated batches after
    resuming; and leaves the last multiple of `every_n_train_steps` behind when training ends.

    After SIGTERM all processes finish the step they are in and save, and `moviegen fit` ends with exit code 143. A validation that is due
    at that very step is left out. Under SLURM with Lightning's requeueing, Lightning's own handlers act instead.

    Args:
        every_n_train_steps: optimizer steps between savings, 1 or more.
        dirpath: folder of the checkpoint; `checkpoints` beside the run's logs unless given.
        save_on_terminate: save and end after SIGTERM; otherwise Lightning ends training without saving.
    """

    def __init__(self, *, every_n_train_steps: int = 250, dirpath: str | None = None, save_on_terminate: bool = True) -> None:
        if every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps={every_n_train_steps} was given; it counts steps from 1 on; try 250")
        super().__init__(
            dirpath=dirpath, every_n_train_steps=every_n_train_steps, save_last=True, save_top_k=0, save_on_train_epoch_end=False
        )
        self._termination = TerminationListener() if save_on_terminate else None

    @property
    def state_key(self) -> str:
        """One name whatever its arguments are, so that a training that resumes with others knows its `last.ckpt` again."""
        return type(self).__qualname__

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let single files, too, be written in one step."""
        super().setup(trainer, pl_module, stage)
        use_whole_checkpoints(trainer)
        if stage == "fit":
            self._require_writable(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What training resumes from needs no saving again."""
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = trainer.global_step
        if self._termination is not None:
            self._termination.start(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the epoch as begun where Lightning, resumed at the end of the one before, forgot to, and would count it twice."""
        epochs = trainer.fit_loop.epoch_progress
        if epochs.current.ready == epochs.current.processed:
            epochs.increment_ready()
            epochs.increment_started()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save where a step is complete, one is due, and no validation comes first; end where the process was told to."""
        if trainer.fast_dev_run or trainer.fit_loop._should_accumulate():
            return
        if self._termination is not None and self._termination.received_anywhere(trainer):
            if self._last_global_step_saved != trainer.global_step:
                self._save(trainer)
            rank_zero_info(f"SIGTERM: saved {self.last_model_path} at step {trainer.global_step}; go on with `--ckpt_path last`")
            raise Terminated
        if self._is_due(trainer) and not self._validation_follows(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what waited for the validation."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or trainer.fast_dev_run:
            return
        if not trainer.fit_loop._should_accumulate() and self._is_due(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the run's end."""
        if not trainer.fast_dev_run and self._last_global_step_saved != trainer.global_step:
            self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the signal to what listened before."""
        if self._termination is not None:
            self._termination.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the signal to what listened before."""
        self.teardown(trainer, pl_module, "fit")

    def _require_writable(self, trainer: Trainer) -> None:
        """Find out now, and not at the first saving, that the folder cannot be written to."""
        folder = self.dirpath
        if folder is None or not trainer.is_global_zero or trainer.fast_dev_run or not _is_local_file_protocol(folder):
            return
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UsageError(f"LastCheckpoint was given dirpath={folder}", f"{error.strerror}", "give a folder you may write to") from error

    def _is_due(self, trainer: Trainer) -> bool:
        # At the last step, too: once training has ended, Lightning counts the epoch as over, and more steps would begin another.
        if trainer.global_step >= trainer.max_steps > 0:
            return self._last_global_step_saved != trainer.global_step
        # A training with two optimizers may step over the multiples themselves.
        return trainer.global_step // self._every_n_train_steps > self._last_global_step_saved // self._every_n_train_steps

    def _validation_follows(self, trainer: Trainer) -> bool:
        fit_loop = trainer.fit_loop
        return fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher)

    def _save(self, trainer: Trainer) -> None:
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        folder = self.dirpath
        fitting = trainer.state.fn == TrainerFn.FITTING  # another process may be saving while this one predicts
        if fitting and folder is not None and trainer.is_global_zero and _is_local_file_protocol(folder):
            recover(Path(folder), self.FILE_EXTENSION)
        return super()._find_last_checkpoints(trainer)
