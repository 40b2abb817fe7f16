"""What the video backbone keeps for its backward pass and exchanges between processes, tensor by tensor.

`tests/t2v/test_footprint.py` holds these sums to what torch allocates.
"""

import math
from typing import TYPE_CHECKING

from moviegen_core.footprint import Footprint
from moviegen_core.nn.checkpointing import Product

if TYPE_CHECKING:
    from moviegen_t2v.model import VideoTransformer

_FP32 = 4


def footprint(
    backbone: "VideoTransformer", latent_shape: tuple[int, ...], context_length: int, *, context: int, tensor: int, element_bytes: int
) -> Footprint:
    """Count for one sample on one process, with kernels for CUDA (fused norms, attention that keeps its log-sum-exp).

    Tokens, heads and the inner width of the feed-forward network are each cut so that a process holds `share` tokens' worth of them. What
    the matrices of a block read is gathered over the tensor group and kept so; keys and values are gathered over the context.
    """
    first = backbone.blocks[0]
    d, f, num_heads = backbone.width, backbone.ffn_width, backbone.width // first.self_attention.head_width
    n = backbone.num_tokens(latent_shape)
    share = math.ceil(n / (context * tensor))
    tokens = share * d * element_bytes
    whole = tokens * tensor
    keys = 2 * tokens * context
    inner = share * f * element_bytes
    per_token = share * _FP32 * (num_heads + 1)  # log-sum-exp of attention, inverse root mean square of the norm

    # Before self-attention: input and output of the norm, its modulated output; query, keys and values, output; the projected output.
    attention = 2 * tokens + whole + 2 * tokens + keys + per_token + tokens
    cross = 2 * tokens + whole + 2 * tokens + per_token + 2 * context_length * d // tensor * element_bytes if context_length else 0
    gated = backbone.feed_forward == "swiglu"
    # w1's and w3's output, the activation, their product; without a gate w1's output and the activation.
    inner_kept = (4 if gated else 2) * inner
    ffn = 2 * tokens + whole + inner_kept + share * _FP32 + tokens
    # The gradient of the block's output and of the positions; of the inner ones two, or one without a gate; or those of the input of
    # w1 and w3 and their sum, of w1 alone beside the gradient of its output.
    flowing = 2 * tokens
    late_inner = 3 * whole if gated else whole + inner
    block_peak = flowing + max((2 if gated else 1) * inner - tokens, late_inner - inner_kept - tokens, 0)
    # Partial sums of the last matrix, and their copy in the order in which they are reduce-scattered.
    again_peak = flowing + (2 * whole + tokens if tensor > 1 else 0)
    # Gradients of keys and values: as they come, stacked, and in the order in which they are reduce-scattered.
    late_bytes = flowing + 2 * tokens + whole + (3 * keys + tokens if context > 1 else 2 * keys + 4 * tokens)
    cells = math.prod(latent_shape)
    edges_left = cells * (2 * _FP32 + element_bytes) + context_length * d * (_FP32 + 2 * element_bytes)
    return Footprint(
        num_blocks=len(backbone.blocks),
        block_input=tokens,
        shared_input=tokens,
        block_kept=attention + cross + ffn,
        block_peak=block_peak,
        again_peak=again_peak,
        late_bytes=late_bytes,
        edges_kept=3 * whole + cells * 2 * _FP32 + edges_left,
        edges_peak=3 * whole,
        edges_left=edges_left,
        products=tuple(_products(share, n, d, f, context_length, tensor, element_bytes, num_heads, gated)),
        block_flops=_block_flops(n, d, f, context_length, gated) // (context * tensor),
        tensor_exchange=(6 if context_length else 4) * whole if tensor > 1 else 0,
        context_exchange=keys if context > 1 else 0,
    )


def _block_flops(n: int, d: int, f: int, context_length: int, gated: bool) -> int:
    cross_attention = 4 * (n + context_length) * d * d + 4 * n * context_length * d if context_length else 0
    return 8 * n * d * d + 4 * n * n * d + cross_attention + (6 if gated else 4) * n * d * f


def _products(
    share: int, n: int, d: int, f: int, context_length: int, tensor: int, element_bytes: int, num_heads: int, gated: bool
) -> list[Product]:
    """The products of a block in the order in which they run; outputs of each last matrix are whole until they are reduce-scattered."""
    tokens, inner = share * d * element_bytes, share * f * element_bytes
    log_sum_exp = share * _FP32 * num_heads
    matrix = 2 * share * d * d
    out = Product("wo", matrix, tokens * tensor)
    products = [Product(name, matrix, tokens) for name in ("wq", "wk", "wv")]
    products += [Product("attention", 4 * share * n * d, tokens + log_sum_exp), out]
    if context_length:
        text = context_length * d // tensor
        products += [Product("cross wq", matrix, tokens)]
        products += [Product(f"cross {name}", 2 * text * d, text * element_bytes) for name in ("wk", "wv")]
        products += [Product("cross attention", 4 * share * context_length * d, tokens + log_sum_exp), out]
    products += [Product(name, 2 * share * d * f, inner) for name in (("w1", "w3") if gated else ("w1",))]
    return [*products, Product("w2", 2 * share * d * f, tokens * tensor)]
