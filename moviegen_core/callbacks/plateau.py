"""Halving of the learning rate where the validation loss no longer falls (paper 3.2.2: validation loss is the proxy for quality)."""

import math
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from moviegen_core.errors import UsageError


class HalveOnPlateau(Callback):
    """Multiplies every learning rate by a factor after `patience` validations without a better value.

    `lightning.pytorch.cli.ReduceLROnPlateau` is stepped at the end of an epoch, which a run over a stream of shards may never see; this
    callback counts validations. It also works beside a warm-up schedule: the schedule's base rates are multiplied as well. Resuming is
    exact. In a configuration:

        trainer:
          callbacks+:
            - class_path: HalveOnPlateau
              init_args: {monitor: val_loss, factor: 0.5, patience: 3}

    Args:
        monitor: the logged value to watch.
        mode: `min` where lower is better, `max` where higher is.
        factor: what the rates are multiplied by, in (0, 1); the paper halves.
        patience: validations without improvement that are let pass before the rates are lowered.
        threshold: relative improvement that counts, e.g. 1e-3 for a tenth of a percent.
        min_lr: rates never fall below.
    """

    def __init__(
        self,
        *,
        monitor: str = "val_loss",
        mode: Literal["min", "max"] = "min",
        factor: float = 0.5,
        patience: int = 3,
        threshold: float = 1e-3,
        min_lr: float = 0.0,
    ) -> None:
        if not 0.0 < factor < 1.0:
            raise UsageError(
                f"factor={factor} was given", "rates are multiplied by it, so it lies between 0 and 1", "give 0.5 to halve them"
            )
        if mode not in ("min", "max"):
            raise UsageError(f"mode={mode!r} was given", "there are 'min' (lower is better) and 'max'", "give one of them")
        self.monitor = monitor
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.min_lr = min_lr
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the best value so far."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise UsageError(
                f"HalveOnPlateau watches {self.monitor!r}", f"this run logged {known}", "set `monitor` to a value that validation logs"
            )
        value = float(trainer.callback_metrics[self.monitor])
        if self._is_better(value):
            self.best, self.num_bad = value, 0
            return
        self.num_bad += 1
        # All processes lower their rates together, even where each saw its own share of the validation data.
        if trainer.strategy.reduce_boolean_decision(self.num_bad > self.patience, all=False):
            self.num_bad = 0
            self._lower(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best value and how long ago it was."""
        return {"best": self.best, "num_bad": self.num_bad}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.best, self.num_bad = state_dict["best"], state_dict["num_bad"]

    def _is_better(self, value: float) -> bool:
        # The slack is taken of the magnitude, so that it is a slack for negative values as well.
        slack = self.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        return value < self.best - slack if self.mode == "min" else value > self.best + slack

    def _lower(self, trainer: Trainer) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = max(group["lr"] * self.factor, min(group["lr"], self.min_lr))
        for config in trainer.lr_scheduler_configs:
            # Schedules that multiply a base rate at every step would undo the change.
            if hasattr(config.scheduler, "base_lrs"):
                config.scheduler.base_lrs = [max(lr * self.factor, min(lr, self.min_lr)) for lr in config.scheduler.base_lrs]
        rates = ", ".join(f"{group['lr']:.3g}" for optimizer in trainer.optimizers for group in optimizer.param_groups)
        rank_zero_info(f"{self.monitor} has not improved on {self.best:.5g}; the learning rate is now {rates}")
