"""Multi-head attention, to itself and to a context."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from moviegen_core.errors import UsageError
from moviegen_core.nn import chunked
from moviegen_core.nn.linear import Projection

# Those that hold a few rows of the scores at a time; torch's fallback, which holds all n × n, is left out.
FUSED_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


class ScaledDotProduct(nn.Module):
    """The kernel: attention of given queries, keys and values, never as an n × n matrix.

    It is a module without parameters so that context parallelism can gather keys and values right before it, from outside.
    """

    def forward(
        self,
        query: Float[Tensor, "b a n e"],
        key: Float[Tensor, "b a l e"],
        value: Float[Tensor, "b a l e"],
        mask: Bool[Tensor, "b 1 1 l"] | None = None,
    ) -> Float[Tensor, "b a n e"]:
        """Attend to where `mask` is true; a sample without any real token gets zeros."""
        if chunked.suits(query):
            return chunked.chunked_attention(query, key, value, mask)
        if query.is_cuda:
            return fused_attention(query, key, value, mask)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention by one of `FUSED_KERNELS`, as `ScaledDotProduct`; which samples have a real token is not asked of the device.

    Raises:
        UsageError: no fused kernel takes such heads.
    """
    if query.dtype.itemsize > 4 or query.shape[-1] % 8:
        raise UsageError(
            f"attention heads of {query.shape[-1]} channels in {str(query.dtype).removeprefix('torch.')} were given on {query.device.type}",
            "the fused kernels take multiples of 8 channels in bfloat16, float16 or float32",
            "change width or num_heads, or the precision",
        )
    with sdpa_kernel(FUSED_KERNELS):
        if mask is None:
            return F.scaled_dot_product_attention(query, key, value)
        # A sample without any real token attends to values of zero: rows of -inf alone give NaN in some kernels.
        real = mask.any(-1, keepdim=True)
        return F.scaled_dot_product_attention(query, key, value * real, attn_mask=mask | ~real)


class Attention(nn.Module):
    """Full bidirectional attention from `x` to `context`, with as many key and value heads as query heads (3.1.3).

    The four projections are separate matrices: tensor parallelism splits the first three by rows (whole heads) and the last by columns,
    and LLaMa weights map one to one.

    Args:
        width: width d of the tokens.
        num_heads: number of heads; divides `width`.
        output_gain: initial scale of the output projection.
    """

    def __init__(self, *, width: int, num_heads: int, output_gain: float = 1.0) -> None:
        super().__init__()
        if width % num_heads:
            raise UsageError(
                f"num_heads={num_heads} was given with width={width}",
                "every head is equally wide, so the width must be a multiple",
                f"give width={max(1, width // num_heads) * num_heads} or another num_heads",
            )
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.wq = Projection(width, width)
        self.wk = Projection(width, width)
        self.wv = Projection(width, width)
        self.wo = Projection(width, width, gain=output_gain)
        self.kernel = ScaledDotProduct()

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b l d"],
        mask: Bool[Tensor, "b 1 1 l"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Attend from every token of `x` to every real token of `context` (`x` itself for self-attention)."""
        # -1, not the number of heads: under tensor parallelism a rank holds only its share of them.
        heads = (-1, self.head_width)
        query = self.wq(x).unflatten(-1, heads).transpose(1, 2)
        key = self.wk(context).unflatten(-1, heads).transpose(1, 2)
        value = self.wv(context).unflatten(-1, heads).transpose(1, 2)
        return self.wo(self.kernel(query, key, value, mask).transpose(1, 2).flatten(-2))
