"""Caches of what a model predicts for every sample: shards, split over ranks, that an interrupted run goes on with."""

import hashlib
import json
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from moviegen_core.callbacks.predictions import Prediction, SampleWriter, predictions
from moviegen_core.errors import UsageError
from moviegen_core.parallel.place import data_place
from moviegen_data.family import ShardFamily
from moviegen_data.faults import logger
from moviegen_data.loader import ShardLoader
from moviegen_data.shards import SCHEMA_VERSION, ShardWriter

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class CacheWriter(SampleWriter):
    """Writes what `predict_step` returns into shards; a subclass says which parts a sample has, and where they come from.

    Shards and index take their names only when all are whole; every process that sees samples of its own writes its own set. A run that
    was interrupted goes on after its last whole shard when the same command is given again, and ends with the same bytes as one that was
    not; where what the parts are made with, the shards or the settings are others, it begins anew.

    Args:
        output: the folder of the shards.
        dtype: precision that tensors are kept in, `bf16` or `fp16` (half the bytes), or `fp32`.
        prefix: first part of the shards' names, the class's own unless given; the rank is added where there are several processes.
        max_samples: samples in a shard at most; as many are encoded again at most when an interrupted run goes on.
        overwrite: make shards of this prefix that are already there anew, also whole ones of the same origin; they stay until the new ones
            are whole. Otherwise whole ones of the same origin are left as they are, and others are an error before anything is encoded.

    Raises:
        UsageError: the precision is unknown.
    """

    default_prefix: ClassVar[str] = "cache"

    def __init__(
        self,
        *,
        output: str,
        dtype: Literal["bf16", "fp16", "fp32"] = "bf16",
        prefix: str | None = None,
        max_samples: int = 1000,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise UsageError(f"dtype={dtype!r} was given to {type(self).__name__}", f"there are {', '.join(_DTYPES)}", "give one of these")
        self.output = output
        self.dtype = dtype
        self.prefix = self.default_prefix if prefix is None else prefix
        self.max_samples = max_samples
        self.overwrite = overwrite
        self._writer: ShardWriter | None = None
        self._family = ShardFamily(output, self.prefix, 1)
        self._origin: dict[str, str] = {}
        self._first_batch = 0
        self._written_until = 0  # the batch that an earlier run was at when its last shard was whole
        self._written: set[str] = set()  # and the keys of that batch that lie in whole shards

    def origin(self, model: LightningModule) -> dict[str, str]:
        """What the parts are made with, as it stands beside them; a set is gone on with only where all of it is the same."""
        raise NotImplementedError(f"{type(self).__name__} must define origin(model)")

    def parts(self, sample: Prediction, row: int, *, batch: Any, output: Any) -> dict[str, Any]:
        """The parts of a sample, `row` of its batch and of what the model returned."""
        raise NotImplementedError(f"{type(self).__name__} must define parts(sample, row, batch=..., output=...)")

    def kept(self, tensor: Tensor, what: str, *, advice: str) -> Tensor:
        """A tensor in the precision that it is to be kept in.

        Raises:
            UsageError: it holds NaN or infinite values there.
        """
        kept = tensor.to(_DTYPES[self.dtype])
        if not bool(kept.isfinite().all()):
            largest = float(tensor.abs().max())
            exists = f"it holds NaN or infinite values there, of {largest:.3g} at most before"
            raise UsageError(f"{what} was to be kept in {self.dtype}", exists, advice)
        return kept

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's shards, and skip the batches that an interrupted run has written whole."""
        self._origin = self.origin(pl_module)
        place = data_place(trainer)
        loader = _resumable(trainer)
        self._family = ShardFamily(self.output, self.prefix, place.count)
        if not self.overwrite:
            self._family.refuse_others()
        if place.leads:
            made_from = None if loader is None else self._made_from(loader, str(trainer.precision))
            settings = {"max_samples": self.max_samples, "overwrite": self.overwrite, "made_from": made_from}
            self._writer = ShardWriter(self.output, prefix=self._family.prefixes[place.rank], **settings)
            progress = self._writer.progress
            self._written_until, self._written = int(progress.get("batch", 0)), set(progress.get("written", ()))
        if loader is not None:
            self._skip_what_is_written(trainer, loader)

    def write_batch(self, prediction: Any, batch: Any, number: int) -> None:
        """Write every sample of the batch."""
        number += self._first_batch
        if self._writer is None or self._writer.complete or number < self._written_until:
            return
        written: list[str] = []
        self._writer.progress = {"batch": number, "written": written}
        for row, sample in enumerate(predictions(prediction)):
            if sample.metadata.get("repeated"):
                continue
            if number == self._written_until and sample.key in self._written:
                self._written.discard(sample.key)  # the same key again is another sample's, which the writer refuses
            else:
                self._writer.write(sample.key, self.parts(sample, row, batch=batch, output=prediction))
            written.append(sample.key)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the shards their names, and take away what they replace."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        trainer.strategy.barrier("cache")
        if trainer.is_global_zero:
            self._family.remove_others()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _made_from(self, loader: ShardLoader, precision: str) -> str:
        shown = {name: value for name, value in vars(self).items() if not name.startswith("_") and name not in ("output", "overwrite")}
        settings = {name: value for name, value in shown.items() if isinstance(value, (str, int, float, type(None)))}
        told = json.dumps([SCHEMA_VERSION, type(self).__qualname__, settings, self._origin, precision, loader.identity()], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def _skip_what_is_written(self, trainer: Trainer, loader: ShardLoader) -> None:
        """Begin at the first batch that any rank has not written: ranks have equally many steps, and may wait for each other in them."""
        first = len(loader)
        if self._writer is not None and not self._writer.complete:
            first = self._written_until
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
