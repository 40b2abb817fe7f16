"""Caches of what a model predicts for every sample: shards, split over ranks, that an interrupted run goes on with."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from moviegen_core.callbacks.writers import Prediction, predictions
from moviegen_core.parallel.place import data_place
from moviegen_data.faults import logger
from moviegen_data.loader import ShardLoader
from moviegen_data.shards import ShardWriter


class CacheWriter(BasePredictionWriter):
    """Writes what `predict_step` returns into shards; a subclass says which parts a sample has, and where they come from.

    Args:
        output: the folder of the shards.
        prefix: first part of the shards' names; the rank is added where there are several processes.
        max_samples: samples in a shard at most.
        overwrite: replace shards of this prefix that are already there; otherwise they are an error before anything is encoded.
    """

    def __init__(self, *, output: str, prefix: str, max_samples: int = 1000, overwrite: bool = False) -> None:
        super().__init__(write_interval="batch")
        self.output = output
        self.prefix = prefix
        self.max_samples = max_samples
        self.overwrite = overwrite
        self._writer: ShardWriter | None = None
        self._origin: dict[str, str] = {}
        self._first_batch = 0

    def origin(self, model: LightningModule) -> dict[str, str]:
        """What the parts are made with, as it stands beside them; a set is gone on with only where all of it is the same."""
        raise NotImplementedError(f"{type(self).__name__} must define origin(model)")

    def parts(self, sample: Prediction, row: int, *, batch: Any, output: Any) -> dict[str, Any]:
        """The parts of a sample, `row` of its batch and of what the model returned."""
        raise NotImplementedError(f"{type(self).__name__} must define parts(sample, row, batch=..., output=...)")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's shards, and skip the batches that an interrupted run has written whole."""
        self._origin = self.origin(pl_module)
        place = data_place(trainer)
        loader = _resumable(trainer)
        if place.leads:
            prefix = self.prefix if place.count == 1 else f"{self.prefix}-rank{place.rank:04d}"
            made_from = None if loader is None else self._made_from(loader, str(trainer.precision))
            settings = {"prefix": prefix, "max_samples": self.max_samples, "overwrite": self.overwrite, "made_from": made_from}
            self._writer = ShardWriter(self.output, **settings)
        if loader is not None:
            self._skip_what_is_written(trainer, loader)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write every sample of the batch."""
        if self._writer is None or self._writer.complete:  # or another process of those that made it together writes it
            return
        self._writer.progress = {"batch": self._first_batch + batch_idx}
        for row, sample in enumerate(predictions(prediction)):
            if sample.metadata.get("repeated") or (self._writer.made_from is not None and sample.key in self._writer.written):
                continue
            self._writer.write(sample.key, self.parts(sample, row, batch=batch, output=prediction))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the shards their names."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _made_from(self, loader: ShardLoader, precision: str) -> str:
        shown = {name: value for name, value in vars(self).items() if not name.startswith("_") and name not in ("output", "overwrite")}
        settings = {name: value for name, value in shown.items() if isinstance(value, (str, int))}
        told = json.dumps([type(self).__qualname__, settings, self._origin, precision, loader.identity()], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def _skip_what_is_written(self, trainer: Trainer, loader: ShardLoader) -> None:
        """Begin at the first batch that any rank has not written: ranks have equally many steps, and may wait for each other in them."""
        first = len(loader)
        if self._writer is not None and not self._writer.complete:
            first = int(self._writer.progress.get("batch", 0))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            earliest = torch.tensor(first, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(earliest, op=torch.distributed.ReduceOp.MIN)
            first = int(earliest)
        self._first_batch = first
        if first:
            logger.warning("%s: going on at batch %d of %d, after what an earlier run has written", self.output, first, len(loader))
            loader.load_state_dict({"epoch": 0, "num_batches": first, "whole": False})


def _resumable(trainer: Trainer) -> ShardLoader | None:
    """The loader, where it can begin in the middle and all of it is to be predicted."""
    loaders = trainer.predict_dataloaders
    loaders = [loaders] if isinstance(loaders, ShardLoader) else loaders
    if not isinstance(loaders, (list, tuple)) or len(loaders) != 1 or not isinstance(loaders[0], ShardLoader):
        return None
    return loaders[0] if trainer.num_predict_batches == [len(loaders[0])] else None
