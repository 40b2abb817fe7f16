"""The one linear layer of our transformers: no bias, and an initial scale of its own."""

import torch
from torch import nn


class Projection(nn.Linear):
    """A linear layer without bias (3.1.3 follows LLaMa3) whose weights start normal, scaled by the fan-in.

    It subclasses `nn.Linear`, so tensor-parallel plans and FLOP counters know it, and draws its own weights, so a model built on the
    meta device can be materialised module by module.

    Args:
        in_features: channels in.
        out_features: channels out.
        gain: initial standard deviation times sqrt(in_features); 0 starts at zero.
    """

    def __init__(self, in_features: int, out_features: int, *, gain: float = 1.0) -> None:
        self.gain = gain
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weights."""
        if self.gain == 0.0:
            nn.init.zeros_(self.weight)
        else:
            nn.init.normal_(self.weight, std=self.gain * self.in_features**-0.5)

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{self.in_features}, {self.out_features}, gain={self.gain:.3g}"


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The type matrix products of `x` run in: autocast's where it is on, else that of `x`."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
