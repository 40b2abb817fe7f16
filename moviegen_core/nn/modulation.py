"""Adaptive layer norm: one network for all layers, a small learned bias per layer (3.1.3, 6.1.2)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_core.nn.linear import Projection


def sinusoidal_embedding(t: Float[Tensor, " b"], width: int, *, max_period: float = 10_000.0) -> Float[Tensor, "b width"]:
    """Embed flow times in [0, 1], counted in thousandths, as cosines and sines of geometrically spaced periods."""
    frequencies = torch.exp(torch.arange(width // 2, device=t.device, dtype=torch.float32) * (-2.0 * math.log(max_period) / width))
    angles = 1000.0 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Embeds the flow time: sinusoids, then a two-layer perceptron.

    Args:
        width: width d of the embedding.
        num_frequencies: half of it cosines, half sines.
    """

    def __init__(self, *, width: int, num_frequencies: int = 256) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.w1 = Projection(num_frequencies, width)
        self.w2 = Projection(width, width)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Embed one time per sample."""
        embedding = sinusoidal_embedding(t, self.num_frequencies).to(self.w1.weight.dtype)
        return self.w2(F.silu(self.w1(embedding)))


class LayerModulation(nn.Module):
    """A layer's own share of the modulation: a bias added to what the shared network says.

    Args:
        width: width d of the tokens.
        num_outputs: 6 in a block (scale, shift and gate of self-attention, then of the feed-forward network), 2 in the last norm.
    """

    def __init__(self, *, width: int, num_outputs: int = 6) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(num_outputs, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start at zero: every norm unscaled, every gate closed."""
        nn.init.zeros_(self.bias)

    def forward(self, shared: Float[Tensor, "b k d"]) -> tuple[Float[Tensor, "b 1 d"], ...]:
        """The layer's modulation vectors, summed in fp32."""
        return (shared.float() + self.bias.float()).split(1, dim=1)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned weight, modulated where scale and shift are given; its statistics are fp32.

    Args:
        width: width d of the tokens.
        eps: added to the mean square (1e-5 in 3.1.3).
    """

    def __init__(self, *, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start at one."""
        nn.init.ones_(self.weight)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        scale: Float[Tensor, "b 1 d"] | None = None,
        shift: Float[Tensor, "b 1 d"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Normalise over d: `norm(x) · weight · (1 + scale) + shift`."""
        normed = F.rms_norm(x, x.shape[-1:], eps=self.eps)
        if scale is None:
            return normed * self.weight.to(x.dtype)
        return torch.addcmul(shift.to(x.dtype), normed, (self.weight * (1.0 + scale)).to(x.dtype))
