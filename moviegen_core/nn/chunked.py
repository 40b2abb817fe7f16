"""Attention in bf16 on CPUs with bf16 instructions, as matrix products over chunks of heads and queries.

There torch's own kernel runs its products in fp32 and its backward pass is slow for narrow heads; products in bf16 over chunks that stay
in the cache take 0.2 to 0.75 of its time in training (`benchmarks/backbone.py`). The n × m matrix never exists whole: one buffer of
`BUFFER_ELEMENTS` is used for all chunks, and the backward pass recomputes the weights.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula, sdpa_flop_count

BUFFER_ELEMENTS = 1 << 20
MIN_QUERIES = 64
# Private in torch 2.11 to 2.13, hence the way out.
_HAS_BF16_INSTRUCTIONS = torch.backends.mkldnn.is_available() and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def suits(query: Tensor) -> bool:
    """Whether chunked attention is the faster one for such queries; sharded tensors keep torch's kernel."""
    return _HAS_BF16_INSTRUCTIONS and query.device.type == "cpu" and query.dtype == torch.bfloat16 and not hasattr(query, "to_local")


def chunked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, buffer_elements: int | None = None
) -> Tensor:
    """Attention of (b, a, n, e) to (b, a, m, e) where `mask` (b, 1, 1, m) is true; a sample without any real token gets zeros.

    Scores and weights are rounded to the type of the inputs, as attention written out in that type would.

    Args:
        query: queries by head.
        key: keys by head.
        value: values by head.
        mask: true where a key is real.
        buffer_elements: most scores held at a time (but at least 64 queries of one head).
    """
    return _attend(query, key, value, mask, buffer_elements or BUFFER_ELEMENTS)


# Operations of their own, so that checkpointing, FLOP counters and compiled graphs see one call and not its chunks.
@torch.library.custom_op("moviegen::chunked_attention", mutates_args=())
def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, buffer_elements: int) -> Tensor:
    (b, a, n, e), m = query.shape, key.shape[2]
    q, k, v, bias, real = _prepare(query, key, value, mask)
    heads, queries = _chunk_size(b * a, n, m, buffer_elements)
    buffer = q.new_empty(heads * queries * m)
    out = q.new_empty(q.shape)  # contiguous, whatever the layout of the queries: compiled graphs rely on it
    for h, i, shape in _chunks(b * a, n, m, heads, queries):
        weights = _weights(q[h, i], k[h], bias if bias is None else bias[h], buffer[: shape.numel()].view(shape))
        torch.bmm(weights, v[h], out=out[h, i])
    out = out.view(b, a, n, e)
    return out if real is None else out * real


@torch.library.custom_op("moviegen::chunked_attention_backward", mutates_args=())
def _attend_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, buffer_elements: int
) -> tuple[Tensor, Tensor, Tensor]:
    (b, a, n, e), m = query.shape, key.shape[2]
    q, k, v, bias, real = _prepare(query, key, value, mask)
    heads, queries = _chunk_size(b * a, n, m, buffer_elements)
    gradient = (gradient if real is None else gradient * real).reshape(b * a, n, e)
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    buffers = q.new_empty(2, heads * queries * m)
    for h, i, shape in _chunks(b * a, n, m, heads, queries):
        weights, scores = (buffer[: shape.numel()].view(shape) for buffer in buffers)
        _weights(q[h, i], k[h], bias if bias is None else bias[h], weights)
        torch.bmm(gradient[h, i], v[h].transpose(1, 2), out=scores)
        torch._softmax_backward_data(scores, weights, -1, scores.dtype, grad_input=scores)
        torch.bmm(scores, k[h], out=dq[h, i])
        if queries >= n:
            torch.bmm(weights.transpose(1, 2), gradient[h, i], out=dv[h])
            torch.bmm(scores.transpose(1, 2), q[h, i], out=dk[h])
            continue
        if i.start == 0:
            sum_k, sum_v = torch.zeros(2, shape[0], m, e)
        sum_v += torch.bmm(weights.transpose(1, 2), gradient[h, i])
        sum_k += torch.bmm(scores.transpose(1, 2), q[h, i])
        if i.stop >= n:
            dk[h], dv[h] = sum_k, sum_v
    dq.mul_(e**-0.5)
    return dq.view(b, a, n, e), dk.view(b, a, m, e), dv.view(b, a, m, e)


@_attend.register_fake
def _(query, key, value, mask, buffer_elements):
    return query.new_empty(query.shape)


@_attend_backward.register_fake
def _(gradient, query, key, value, mask, buffer_elements):
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _remember(ctx, inputs, output):
    *tensors, ctx.buffer_elements = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, gradient):
    return *_attend_backward(gradient, *ctx.saved_tensors, ctx.buffer_elements), None, None


_attend.register_autograd(_differentiate, setup_context=_remember)


@register_flop_formula(torch.ops.moviegen.chunked_attention)
def _flops(query_shape, key_shape, value_shape, *_, **__) -> int:
    return sdpa_flop_count(query_shape, key_shape, value_shape)


@register_flop_formula(torch.ops.moviegen.chunked_attention_backward)
def _backward_flops(_, query_shape, key_shape, value_shape, *__, **___) -> int:
    # The scores anew, and four products of their size.
    return sdpa_flop_count(query_shape, key_shape, value_shape) * 5 // 2


def _prepare(query, key, value, mask):
    """Scaled queries, keys and values with batch and heads as one, what to add to the scores, and which samples have a real token."""
    (b, a, n, e), m = query.shape, key.shape[2]
    # Products write into given tensors, which autocast leaves alone. Scaling the narrow queries is cheaper than the wide scores.
    q, k, v = (query * e**-0.5).reshape(b * a, n, e), key.reshape(b * a, m, e), value.reshape(b * a, m, e)
    if mask is None or mask.all():
        return q, k, v, None, None
    bias = torch.zeros(b, 1, 1, m, dtype=q.dtype).masked_fill_(~mask, torch.finfo(q.dtype).min)
    return q, k, v, bias.expand(b, a, 1, m).reshape(b * a, 1, m), mask.any(-1, keepdim=True)


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """Attention weights of one chunk, written to `out`."""
    torch.bmm(q, k.transpose(1, 2), out=out)
    if bias is not None:
        out.add_(bias)
    return torch.softmax(out, -1, out=out)


def _chunk_size(heads: int, n: int, m: int, most: int) -> tuple[int, int]:
    """Heads and queries per chunk: whole heads as long as they fit, else parts of one."""
    queries = n if n * m <= most else min(n, max(MIN_QUERIES, most // m))
    return max(1, min(heads, most // (queries * m))), queries


def _chunks(total: int, n: int, m: int, heads: int, queries: int) -> Iterator[tuple[slice, slice, torch.Size]]:
    for h in range(0, total, heads):
        for i in range(0, n, queries):
            yield (
                slice(h, min(h + heads, total)),
                slice(i, min(i + queries, n)),
                torch.Size((min(heads, total - h), min(queries, n - i), m)),
            )
