"""Exponential moving average of the trained weights (audio fine-tuning, 6.1.6, uses a decay of 0.999)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from moviegen_core.errors import UsageError
from moviegen_core.parallel.dtensor import shard_like, whole
from moviegen_core.weights.sharded import StoredTensor


class ExponentialMovingAverage(Callback):
    """Keeps an average of the trainable parameters and lets validation, testing and prediction see it.

    The average moves after every optimizer step, not after every micro batch. Buffers and frozen parameters are not averaged; they are
    the model's own. A checkpoint holds both versions: its `state_dict` holds the average, so that prediction, export and a next stage get
    it even where this callback is absent, and the callback's state holds the weights that training goes on from. Resuming is exact; it
    needs this callback, and Lightning warns where it is missing. Checkpoints saved with `save_weights_only` call no callback and hold the
    unaveraged weights.

    Lightning's own `EMAWeightAveraging` copies the frozen encoders too, refuses sharded models, averages without warm-up and does not test
    with the average.

    Args:
        decay: share of the old average kept at each update, in [0, 1).
        warmup: use min(decay, (1 + n) / (10 + n)) at the n-th update, so that the random start is forgotten soon.
        update_every: optimizer steps between updates.
        device: where the average is kept, e.g. `cpu` to spare the accelerator; beside the parameters unless given.
        use_for_predict: validate, test and predict with the average and store it as the checkpoint's `state_dict`; false keeps the average
            in the checkpoint's callback state only.
    """

    def __init__(
        self,
        *,
        decay: float = 0.999,
        warmup: bool = True,
        update_every: int = 1,
        device: str | None = None,
        use_for_predict: bool = True,
    ) -> None:
        if not 0.0 <= decay < 1.0:
            raise UsageError(
                f"decay={decay} was given", "it is the share of the old average that is kept, at least 0 and below 1", "try 0.999"
            )
        if update_every < 1:
            raise UsageError(
                f"update_every={update_every} was given", "it counts optimizer steps from 1", "give 1 to average after every step"
            )
        self.decay = decay
        self.warmup = warmup
        self.update_every = update_every
        self.device = device
        self.use_for_predict = use_for_predict
        self.num_updates = 0
        self._last_step: int | None = None
        self._module: LightningModule | None = None
        self._names: list[str] = []
        self._parameters: list[Tensor] = []
        self._averages: list[Tensor] = []
        self._online: list[Tensor] | None = None
        self._same_kind = True

    @property
    def averages(self) -> dict[str, Tensor]:
        """The averaged weights by parameter name."""
        return dict(zip(self._names, self._averages, strict=True))

    @contextmanager
    def averaged(self, pl_module: LightningModule) -> Iterator[None]:
        """Hold the averaged weights in the model within the block; nothing happens where there are none, or where they are in already."""
        if not self._swap_in(pl_module):
            yield
            return
        try:
            yield
        finally:
            self._swap_out()

    # -- training ------------------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse strategies that hide the parameters."""
        if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy)):
            raise UsageError(
                f"ExponentialMovingAverage was given with {type(trainer.strategy).__name__}, which flattens the parameters",
                "it works with single devices, DDP and ModelParallelStrategy",
                "change `trainer.strategy` or remove the callback",
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the model's weights, unless a checkpoint or an earlier `fit` of the same model left an average."""
        trainable = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        if [id(parameter) for parameter in trainable] != [id(parameter) for parameter in self._parameters]:
            self._start(pl_module)
        # The strategy has moved the parameters to their device since a checkpoint was loaded.
        self._averages = [average.to(self.device or parameter.device) for average, parameter in self._pairs()]
        self._same_kind = all(average.dtype == p.dtype and average.device == p.device for average, p in self._pairs())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count steps from here where no checkpoint said otherwise."""
        if self._last_step is None:
            self._last_step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the average where an optimizer has stepped since."""
        step = trainer.global_step
        if step - self._last_step < self.update_every:
            return
        self._last_step = step
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates)) if self.warmup else self.decay
        sources = self._parameters if self._same_kind else [parameter.detach().to(average) for average, parameter in self._pairs()]
        torch._foreach_lerp_(self._averages, sources, 1.0 - decay)
        self.num_updates += 1

    # -- use -----------------------------------------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        self._use(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the trained weights."""
        self._swap_out()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test the average."""
        self._use(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the trained weights."""
        self._swap_out()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict with the average."""
        self._use(pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the trained weights."""
        self._swap_out()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the trained weights in the model where a validation was interrupted."""
        self._swap_out()

    # -- checkpoints ---------------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put one version into `state_dict` and the other into the callback's state."""
        if not self._averages:
            return
        online, average = {}, {}
        trained = self._online if self._online is not None else self._parameters
        states = checkpoint["state_dict"]
        stored_names = pl_module.state_dict().keys()
        is_sharded = any(isinstance(value, DTensor) for value in states.values())
        # A strategy that saves the shards of callbacks too gets them as they are; a large model is never whole in one process.
        keep = torch.Tensor.detach if is_sharded and getattr(trainer.strategy, "saves_shards_of_callbacks", False) else _gathered
        # Gathering a sharded tensor takes all processes, so what is gathered may not depend on `states`, which only the first may hold.
        for name, parameter, mean in zip(self._names, trained, self._averages, strict=True):
            is_stored = name in stored_names
            if self.use_for_predict:
                online[name] = keep(parameter)
            if not self.use_for_predict or not is_stored or mean.dtype != parameter.dtype:
                average[name] = keep(mean)
            if is_stored:
                chosen = mean.to(parameter.dtype) if self.use_for_predict else parameter
                chosen = chosen.detach() if is_sharded else _gathered(chosen)
                key = name if name in states else name.replace("_orig_mod.", "")
                if key in states:
                    states[key] = chosen
        state = {"online": online, "average": average, "num_updates": self.num_updates, "last_step": self._last_step}
        checkpoint["callbacks"][self.state_key] = state

    @torch.no_grad()
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both versions; the model already holds what `state_dict` held."""
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state is None:  # nothing was averaged: `on_fit_start` begins anew, and prediction uses what was loaded
            self._names, self._parameters, self._averages = [], [], []
            return
        self._start(pl_module)
        self.num_updates, self._last_step = state["num_updates"], state["last_step"]
        for name, parameter, average in zip(self._names, self._parameters, self._averages, strict=True):
            if name in state["average"]:
                _fill(average, state["average"][name])
            if name in state["online"]:
                _fill(parameter, state["online"][name])

    # ------------------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _start(self, pl_module: LightningModule) -> None:
        trainable = [(name, parameter) for name, parameter in pl_module.named_parameters() if parameter.requires_grad]
        self._module = pl_module
        self._names = [name for name, _ in trainable]
        self._parameters = [parameter for _, parameter in trainable]
        # Half precision is too coarse for small steps towards the weights, so the average is kept in at least float32.
        self._averages = [
            p.detach().to(self.device or p.device, torch.promote_types(p.dtype, torch.float32), copy=True) for p in self._parameters
        ]
        self.num_updates, self._last_step, self._online = 0, None, None

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self._averages, self._parameters, strict=True))

    def _use(self, pl_module: LightningModule) -> None:
        if self.use_for_predict:
            self._swap_in(pl_module)

    @torch.no_grad()
    def _swap_in(self, pl_module: LightningModule) -> bool:
        if not self._averages or self._online is not None or self._module is not pl_module:
            return False
        _reshard(pl_module)
        self._online = [parameter.detach().to(self.device or parameter.device, copy=True) for parameter in self._parameters]
        for average, parameter in self._pairs():
            parameter.copy_(average)
        return True

    @torch.no_grad()
    def _swap_out(self) -> None:
        if self._online is None:
            return
        _reshard(self._module)
        for parameter, online in zip(self._parameters, self._online, strict=True):
            parameter.copy_(online)
        self._online = None


def _reshard(module: LightningModule) -> None:
    # The outermost sharded module keeps its gathered weights after a forward pass and would go on using them.
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _gathered(tensor: Tensor) -> Tensor:
    return whole(tensor.detach())


def _fill(target: Tensor, source: Tensor | StoredTensor) -> None:
    """Copy a stored tensor, each process its own shards where the target is sharded."""
    if isinstance(source, StoredTensor):
        source.read_into(target)
    else:
        target.copy_(shard_like(source.to(target.device), target))
