"""Probability paths from noise to data, and what a network is asked to predict on them (paper 3.1.2, 3.6.2).

Direction of time, stated here once: t = 0 is pure noise x_0 ~ N(0, I), t = 1 is data x_1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PathSample:
    """A point on a path.

    Args:
        x_t: the point (b, ...).
        t: its time in [0, 1] (b,).
        target: what the network shall predict there (b, ...).
    """

    x_t: Tensor
    t: Tensor
    target: Tensor


class Path:
    """A family of conditional paths between a noise sample and a data sample."""

    def sample(self, x_0: Float[Tensor, "b ..."], x_1: Float[Tensor, "b ..."], t: Float[Tensor, " b"]) -> PathSample:
        """The point at time t between noise x_0 and data x_1, with the training target there."""
        raise NotImplementedError

    def velocity(self, x_t: Float[Tensor, "b ..."], prediction: Float[Tensor, "b ..."], t: Float[Tensor, " b"]) -> Float[Tensor, "b ..."]:
        """The marginal velocity dx/dt that the network's prediction stands for."""
        raise NotImplementedError


class OptimalTransportPath(Path):
    """x_t = t·x_1 + (1 − (1 − σ_min)·t)·x_0, whose velocity x_1 − (1 − σ_min)·x_0 is the target (3.1.2).

    Args:
        sigma_min: standard deviation of the noise that is left at t = 1, at least 0.
    """

    def __init__(self, *, sigma_min: float = 1e-5) -> None:
        if not 0.0 <= sigma_min < 1.0:
            raise ValueError(f"sigma_min={sigma_min} was given; it is a standard deviation in [0, 1); the paper uses 1e-5")
        self.sigma_min = sigma_min

    def sample(self, x_0, x_1, t):
        """The point at time t and its velocity."""
        times = _expand(t, x_1)
        x_t = times * x_1 + (1.0 - (1.0 - self.sigma_min) * times) * x_0
        return PathSample(x_t=x_t, t=t, target=x_1 - (1.0 - self.sigma_min) * x_0)

    def velocity(self, x_t, prediction, t):
        """The prediction itself."""
        return prediction


class VariancePreservingPath(Path):
    """Diffusion with v-prediction and zero terminal SNR: the objective that 3.6.2 compares flow matching with.

    x_t = α(t)·x_1 + σ(t)·x_0 with α² + σ² = 1; the target is v = α·x_0 − σ·x_1. The signal rate is that of the scaled-linear β schedule
    over `num_steps` steps, shifted and scaled so that α(0) = 0 exactly, and linear between the steps.

    Args:
        beta_start: β of the step nearest to the data.
        beta_end: β of the step nearest to the noise.
        num_steps: number of discrete steps the schedule is defined on.
    """

    def __init__(self, *, beta_start: float = 0.00085, beta_end: float = 0.012, num_steps: int = 1000) -> None:
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=torch.float64) ** 2
        alpha = torch.cumprod(1.0 - betas, dim=0).sqrt()
        first, last = alpha[0], alpha[-1]
        alpha = (alpha - last) * first / (first - last)
        # Entry k belongs to t = k / num_steps: zero signal at t = 0, all signal at t = 1.
        self._alpha = torch.cat([alpha.flip(0), torch.ones(1, dtype=torch.float64)]).float()
        self.num_steps = num_steps

    def rates(self, t: Float[Tensor, " b"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """α, σ and their derivatives in t; the derivative of σ is bounded where σ vanishes (t = 1)."""
        table = self._alpha.to(t.device)
        position = t.float().clamp(0.0, 1.0) * self.num_steps
        left = position.floor().long().clamp(max=self.num_steps - 1)
        slope = table[left + 1] - table[left]
        alpha = table[left] + slope * (position - left)
        sigma = (1.0 - alpha**2).clamp_min(0.0).sqrt()
        d_alpha = slope * self.num_steps
        return alpha, sigma, d_alpha, -alpha * d_alpha / sigma.clamp_min(1e-3)

    def sample(self, x_0, x_1, t):
        """The point at time t and its v target."""
        alpha, sigma, _, _ = (_expand(rate, x_1) for rate in self.rates(t))
        return PathSample(x_t=alpha * x_1 + sigma * x_0, t=t, target=alpha * x_0 - sigma * x_1)

    def velocity(self, x_t, prediction, t):
        """α'·x_1 + σ'·x_0 with both ends read from the v prediction."""
        alpha, sigma, d_alpha, d_sigma = (_expand(rate, x_t) for rate in self.rates(t))
        x_1 = alpha * x_t - sigma * prediction
        x_0 = sigma * x_t + alpha * prediction
        return d_alpha * x_1 + d_sigma * x_0


def _expand(per_sample: Tensor, like: Tensor) -> Tensor:
    return per_sample.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
