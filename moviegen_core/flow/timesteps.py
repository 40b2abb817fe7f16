"""Distributions of the training time t in [0, 1] (paper 3.1.2)."""

import torch
from jaxtyping import Float
from torch import Tensor


class Timesteps:
    """A distribution of training times, given as the quantile function of a uniform variable."""

    def quantile(self, u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The time below which a share u of all training times lies; u in (0, 1)."""
        raise NotImplementedError

    def sample(
        self, num_samples: int, *, device: torch.device | str = "cpu", generator: torch.Generator | None = None
    ) -> Float[Tensor, " b"]:
        """Draw times independently."""
        return self.quantile(torch.rand(num_samples, device=device, dtype=torch.float32, generator=generator))


class LogitNormalTimesteps(Timesteps):
    """sigmoid(z) with z ~ N(mean, std²); the paper's choice is N(0, 1).

    Args:
        mean: mean of the underlying normal; positive values move times towards data.
        std: standard deviation of the underlying normal, above 0.
    """

    def __init__(self, *, mean: float = 0.0, std: float = 1.0) -> None:
        if std <= 0.0:
            raise ValueError(f"std={std} was given for the logit-normal times; it must be above 0; the paper uses 1.0")
        self.mean = mean
        self.std = std

    def quantile(self, u):
        """sigmoid(mean + std·Φ⁻¹(u))."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u.float().clamp(1e-6, 1.0 - 1e-6)))


class UniformTimesteps(Timesteps):
    """Every time in [0, 1] alike; what the diffusion ablation of 3.6.2 is trained with."""

    def quantile(self, u):
        """The identity."""
        return u
