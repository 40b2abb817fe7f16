"""The transformer block of Movie Gen Video: LLaMa3's, with cross-attention and adaptive layer norm (3.1.3)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from moviegen_core.errors import UsageError
from moviegen_core.nn.attention import Attention
from moviegen_core.nn.linear import Projection
from moviegen_core.nn.modulation import LayerModulation, RMSNorm

FeedForwardKind = Literal["swiglu", "gelu"]


class SwiGLU(nn.Module):
    """Gated feed-forward network, `w2(silu(w1 x) · w3 x)`.

    Args:
        width: width d of the tokens.
        ffn_width: inner width f.
        output_gain: initial scale of the output projection.
    """

    def __init__(self, *, width: int, ffn_width: int, output_gain: float = 1.0) -> None:
        super().__init__()
        self.w1 = Projection(width, ffn_width)
        self.w3 = Projection(width, ffn_width)
        self.w2 = Projection(ffn_width, width, gain=output_gain)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Transform every token alone."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class PlainFeedForward(nn.Module):
    """Feed-forward network of two matrices, `w2(gelu(w1 x))`, as in the first transformers and in DiT, whose GELU is the tanh form.

    Args:
        width: width d of the tokens.
        ffn_width: inner width f.
        output_gain: initial scale of the output projection.
    """

    def __init__(self, *, width: int, ffn_width: int, output_gain: float = 1.0) -> None:
        super().__init__()
        self.w1 = Projection(width, ffn_width)
        self.w2 = Projection(ffn_width, width, gain=output_gain)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Transform every token alone."""
        return self.w2(F.gelu(self.w1(x), approximate="tanh"))


_FEED_FORWARD: dict[str, type[SwiGLU] | type[PlainFeedForward]] = {"swiglu": SwiGLU, "gelu": PlainFeedForward}


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the context, feed-forward network; each behind an RMS norm and added to its input.

    The time step modulates the norms before self-attention and feed-forward network (scale and shift) and gates their outputs: six
    vectors, four scales and two biases (6.1.2). Cross-attention is neither modulated nor gated.

    Args:
        width: width d of the tokens.
        ffn_width: inner width f of the feed-forward network.
        num_heads: number of attention heads; divides `width`.
        norm_eps: added to the mean square in the norms.
        output_gain: initial scale of the three output projections.
        feed_forward: "swiglu", three matrices of d x f (3.1.3), or "gelu", two of them.
    """

    def __init__(
        self,
        *,
        width: int,
        ffn_width: int,
        num_heads: int,
        norm_eps: float = 1e-5,
        output_gain: float = 1.0,
        feed_forward: FeedForwardKind = "swiglu",
    ) -> None:
        super().__init__()
        if feed_forward not in _FEED_FORWARD:
            raise UsageError(f"feed_forward={feed_forward!r} was given", f"known are {', '.join(_FEED_FORWARD)}", "give one of them")
        self.modulation = LayerModulation(width=width)
        self.self_norm = RMSNorm(width=width, eps=norm_eps)
        self.self_attention = Attention(width=width, num_heads=num_heads, output_gain=output_gain)
        self.cross_norm = RMSNorm(width=width, eps=norm_eps)
        self.cross_attention = Attention(width=width, num_heads=num_heads, output_gain=output_gain)
        self.ffn_norm = RMSNorm(width=width, eps=norm_eps)
        self.ffn = _FEED_FORWARD[feed_forward](width=width, ffn_width=ffn_width, output_gain=output_gain)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        positions: Float[Tensor, "n d"],
        modulation: Float[Tensor, "b 6 d"],
        context: Float[Tensor, "b l d"] | None = None,
        context_mask: Bool[Tensor, "b 1 1 l"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """One layer; `positions` are added to its input, as in every layer."""
        attention_scale, attention_shift, attention_gate, ffn_scale, ffn_shift, ffn_gate = self.modulation(modulation)
        x = x + positions
        normed = self.self_norm(x, attention_scale, attention_shift)
        x = torch.addcmul(x, attention_gate.to(x.dtype), self.self_attention(normed, normed))
        if context is not None:
            x = x + self.cross_attention(self.cross_norm(x), context, context_mask)
        normed = self.ffn_norm(x, ffn_scale, ffn_shift)
        return torch.addcmul(x, ffn_gate.to(x.dtype), self.ffn(normed))
