"""The checkpoint to resume from while training runs, and to go on with once it has ended."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`: renewed every so many steps, and when training ends.

    Lightning's own `ModelCheckpoint` leaves the last multiple of `every_n_train_steps` there: without the steps after it, and without what
    a validation at that step measured.

    Args:
        every_n_train_steps: optimizer steps between savings, 1 or more.
        dirpath: folder of the checkpoint; `checkpoints` beside the run's logs unless given.
    """

    def __init__(self, *, every_n_train_steps: int = 250, dirpath: str | None = None) -> None:
        if every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps={every_n_train_steps} was given; it counts steps from 1 on; try 250")
        super().__init__(
            dirpath=dirpath, every_n_train_steps=every_n_train_steps, save_last=True, save_top_k=0, save_on_train_epoch_end=False
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the run's end."""
        if not trainer.fast_dev_run:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
