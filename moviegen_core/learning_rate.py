"""Learning-rate schedules of the paper's recipes; every one multiplies the optimizer's own rate, step by step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupConstantLR(LambdaLR):
    """Linear warm-up from 0, then constant (T2I post-training, 3.7; audio pre-training, 6.1).

    Args:
        optimizer: the wrapped optimizer.
        warmup_steps: steps until the full rate is reached.
    """

    def __init__(self, optimizer: Optimizer, *, warmup_steps: int = 2000) -> None:
        self.warmup_steps = warmup_steps
        super().__init__(optimizer, self._factor)

    def _factor(self, step: int) -> float:
        return min(1.0, (step + 1) / max(1, self.warmup_steps))


class WarmupDecayLR(LambdaLR):
    """Linear warm-up from 0, then down to a last share of the rate by a curve that a subclass gives.

    Args:
        optimizer: the wrapped optimizer.
        total_steps: steps of the whole run.
        warmup_steps: steps until the full rate is reached.
        final_share: share of the rate left at the end, in [0, 1].
    """

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup_steps: int = 0, final_share: float = 0.0) -> None:
        if warmup_steps >= total_steps:
            raise ValueError(f"{warmup_steps} warm-up steps of {total_steps} in all were given; the warm-up must be shorter than the run")
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.final_share = final_share
        super().__init__(optimizer, self._factor)

    def left(self, done: float) -> float:
        """Share of the way down that is left, from 1 where `done` is 0 to 0 where it is 1."""
        raise NotImplementedError(f"{type(self).__name__} must define left(done)")

    def _factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.final_share + (1.0 - self.final_share) * self.left(done)


class WarmupCosineLR(WarmupDecayLR):
    """Linear warm-up from 0, then half a cosine down to a last share of the rate (supervised fine-tuning, 3.3)."""

    def left(self, done: float) -> float:
        """Half a cosine."""
        return 0.5 * (1.0 + math.cos(math.pi * done))


class WarmupLinearLR(WarmupDecayLR):
    """Linear warm-up from 0, then linear decay to a last share of the rate (audio fine-tuning, 6.1.6: from 1e-4 to 1e-8)."""

    def left(self, done: float) -> float:
        """A straight line."""
        return 1.0 - done
