"""The layers against independent references with the same weights."""

import einops
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from moviegen_core.errors import UsageError
from moviegen_core.nn.attention import Attention, fused_attention
from moviegen_core.nn.chunked import _chunk_size, chunked_attention
from moviegen_core.nn.modulation import RMSNorm, sinusoidal_embedding
from moviegen_core.nn.patchify import Patchify, Unpatchify
from moviegen_core.nn.positions import FactorizedPositions
from moviegen_core.nn.transformer import TransformerBlock

WIDTH, HEADS, FFN = 64, 4, 160


@pytest.fixture
def block() -> TransformerBlock:
    torch.manual_seed(0)
    block = TransformerBlock(width=WIDTH, ffn_width=FFN, num_heads=HEADS)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return block


def neutral(block: TransformerBlock, samples: int) -> Tensor:
    """What the shared network must say for scales 1, shifts 0 and gates 1."""
    wanted = torch.zeros(samples, 6, WIDTH)
    wanted[:, [2, 5]] = 1.0
    return wanted - block.modulation.bias.detach()


def llama_attention(ours: Attention) -> LlamaAttention:
    config = LlamaConfig(hidden_size=WIDTH, num_attention_heads=HEADS, num_key_value_heads=HEADS, attn_implementation="eager")
    theirs = LlamaAttention(config, layer_idx=0).eval()
    for name, projection in {"q_proj": ours.wq, "k_proj": ours.wk, "v_proj": ours.wv, "o_proj": ours.wo}.items():
        getattr(theirs, name).load_state_dict(projection.state_dict())
    return theirs


def unrotated(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary positions that rotate nothing."""
    shape = (x.shape[0], x.shape[1], WIDTH // HEADS)
    return torch.ones(shape), torch.zeros(shape)


def test_block_equals_llama(block: TransformerBlock) -> None:
    """With neutral modulation the block is LLaMa's norm, attention (no mask, no rotation) and MLP."""
    x, positions = torch.randn(2, 12, WIDTH), torch.randn(12, WIDTH)
    attention = llama_attention(block.self_attention)
    mlp = LlamaMLP(LlamaConfig(hidden_size=WIDTH, intermediate_size=FFN, hidden_act="silu")).eval()
    for name, projection in {"gate_proj": block.ffn.w1, "up_proj": block.ffn.w3, "down_proj": block.ffn.w2}.items():
        getattr(mlp, name).load_state_dict(projection.state_dict())
    norms = []
    for ours in (block.self_norm, block.ffn_norm):
        norms.append(LlamaRMSNorm(WIDTH, eps=1e-5))
        norms[-1].load_state_dict(ours.state_dict())

    theirs = x + positions
    theirs = theirs + attention(norms[0](theirs), unrotated(theirs), attention_mask=None)[0]
    theirs = theirs + mlp(norms[1](theirs))
    ours = block(x, positions, neutral(block, 2))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_cross_attention_equals_llama_over_joined_tokens(block: TransformerBlock) -> None:
    """Cross-attention equals LLaMa attention over [context; x] whose mask lets x see the real context alone."""
    x, context = torch.randn(2, 7, WIDTH), torch.randn(2, 5, WIDTH)
    mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    joined = torch.cat([context, x], dim=1)
    bias = torch.full((2, 1, 12, 12), torch.finfo(torch.float32).min)
    bias[..., :5] = torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None, None]
    theirs = llama_attention(block.cross_attention)(joined, unrotated(joined), attention_mask=bias)[0][:, 5:]
    torch.testing.assert_close(block.cross_attention(x, context, mask[:, None, None]), theirs, rtol=1e-5, atol=1e-5)


def test_modulation_by_hand(block: TransformerBlock) -> None:
    """Scale and shift act after the norm, the gate on the output; the layer's bias is added to the shared vectors."""
    x = torch.randn(2, 3, WIDTH)
    shared = torch.randn(2, 6, WIDTH)
    scale_a, shift_a, gate_a, scale_f, shift_f, gate_f = (shared + block.modulation.bias).unbind(1)

    def norm(y: Tensor, layer: RMSNorm) -> Tensor:
        return y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight

    y = x + 1.0
    inner = norm(y, block.self_norm) * (1 + scale_a[:, None]) + shift_a[:, None]
    y = y + gate_a[:, None] * block.self_attention(inner, inner)
    inner = norm(y, block.ffn_norm) * (1 + scale_f[:, None]) + shift_f[:, None]
    y = y + gate_f[:, None] * block.ffn(inner)
    torch.testing.assert_close(block(x, torch.ones(3, WIDTH), shared), y, rtol=1e-4, atol=1e-4)


def test_patchify_is_a_convolution() -> None:
    patchify = Patchify(in_channels=4, width=24, patch_size=(1, 2, 2), extra_channels=2)
    torch.nn.init.normal_(patchify.weight)
    latent = torch.randn(2, 6, 3, 4, 8)
    theirs = einops.rearrange(F.conv3d(latent, patchify.weight, stride=(1, 2, 2)), "b d t h w -> b (t h w) d")
    torch.testing.assert_close(patchify(latent), theirs, rtol=1e-5, atol=1e-5)


def test_unpatchify_inverts_the_order_of_patchify() -> None:
    """With identity weights, tokens of a latent go back to the same latent."""
    patchify = Patchify(in_channels=3, width=24, patch_size=(2, 2, 2))
    unpatchify = Unpatchify(width=24, out_channels=3, patch_size=(2, 2, 2))
    with torch.no_grad():
        patchify.weight.copy_(torch.eye(24).view(24, 3, 2, 2, 2))
        unpatchify.linear.weight.copy_(torch.eye(24))
    latent = torch.randn(2, 3, 4, 6, 2)
    torch.testing.assert_close(unpatchify(patchify(latent), (2, 3, 1)), latent)


def test_extra_channels_start_silent() -> None:
    patchify = Patchify(in_channels=4, width=8, patch_size=(1, 2, 2), extra_channels=3)
    assert patchify.weight[:, :4].std() > 0.1
    assert not patchify.weight[:, 4:].any()


def test_positions_are_sums_of_three_tables() -> None:
    positions = FactorizedPositions(width=5, max_frames=4, max_height=3, max_width=6)
    table = positions(2, 3, 5).unflatten(0, (2, 3, 5))
    torch.testing.assert_close(table[1, 2, 4], positions.frames[1] + positions.rows[2] + positions.columns[4])
    with pytest.raises(UsageError, match=r"5x3x6 .* end at 4x3x6; raise max_frames"):
        positions(5, 3, 6)


def test_norm_keeps_fp32_statistics() -> None:
    """A bf16 input with squares beyond bf16's precision is normalised as in fp32."""
    norm = RMSNorm(width=4096)
    x = (torch.randn(1, 3, 4096) * 3 + 10).bfloat16()
    theirs = F.rms_norm(x.double(), (4096,), eps=1e-5)
    torch.testing.assert_close(norm(x).double(), theirs, rtol=8e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_without_any_real_token_gives_zeros(dtype: torch.dtype) -> None:
    attention = Attention(width=32, num_heads=2).to(dtype)
    x = torch.randn(2, 3, 32, dtype=dtype, requires_grad=True)
    context = torch.randn(2, 4, 32, dtype=dtype, requires_grad=True)
    mask = torch.tensor([[True, True, False, False], [False] * 4])[:, None, None]
    y = attention(x, context, mask)
    y.square().sum().backward()
    assert y[0].any() and not y[1].any()
    assert x.grad.isfinite().all() and context.grad.isfinite().all()
    assert not context.grad[0, 2:].any() and not context.grad[1].any()


@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_equals_torch(masked: bool) -> None:
    """Run here with the fused kernel for CPUs; a sample without any real token gives zeros and no NaN in its gradients."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, n, 8, requires_grad=True) for n in (9, 5, 5))
    mask = torch.tensor([[True] * 5, [False] * 5, [True, False, True, False, False]])[:, None, None] if masked else None
    ours = fused_attention(query, key, value, mask)
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(ours, theirs)
    assert not masked or not ours[1].any()
    inputs, gradient = (query, key, value), torch.randn_like(ours)
    found, wanted = (torch.autograd.grad(y, inputs, gradient) for y in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_fused_attention_never_falls_back() -> None:
    with pytest.raises(UsageError, match="heads of 12 channels in float32 were given on cpu"):
        fused_attention(*torch.randn(3, 1, 1, 4, 12))
    with pytest.raises(UsageError, match="float64"):
        fused_attention(*torch.randn(3, 1, 1, 4, 8, dtype=torch.float64))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UsageError, match=r"num_heads=5 .*width=64.*give width=60"):
        Attention(width=64, num_heads=5)


def test_time_embedding_separates_near_times() -> None:
    embedding = sinusoidal_embedding(torch.tensor([0.0, 0.001, 1.0]), 256)
    torch.testing.assert_close(embedding[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    assert (embedding[0] - embedding[1]).norm() > 0.5


@pytest.mark.parametrize("buffer_elements", [1, 700, 1 << 20], ids=["rows", "some", "whole"])
@pytest.mark.parametrize("masked", [False, True])
def test_chunked_attention_equals_torch(buffer_elements: int, masked: bool) -> None:
    """In fp32, value and gradients, whatever the chunks, and zeros for a sample without real tokens."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, n, 2, 8).transpose(1, 2).requires_grad_() for n in (150, 20, 20))
    mask = None
    if masked:
        mask = torch.rand(3, 1, 1, 20) < 0.5
        mask[1] = False
    gradient = torch.randn(3, 2, 150, 8)
    ours = chunked_attention(query, key, value, mask, buffer_elements=buffer_elements)
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(ours, theirs)
    inputs = (query, key, value)
    for found, wanted in zip(torch.autograd.grad(ours, inputs, gradient), torch.autograd.grad(theirs, inputs, gradient), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_compiled_graphs_know_the_layout_of_chunked_attention(batch: int) -> None:
    query, key, value = (torch.randn(batch, length, 2, 8).transpose(1, 2).requires_grad_() for length in (6, 5, 5))
    mask = torch.ones(batch, 1, 1, 5, dtype=torch.bool)
    torch.library.opcheck(torch.ops.moviegen.chunked_attention.default, (query, key, value, mask, 64))


def test_chunked_attention_in_bf16_is_as_exact_as_bf16() -> None:
    query, key, value = (torch.randn(2, 2, n, 32).bfloat16().requires_grad_() for n in (96, 40, 40))
    ours = chunked_attention(query, key, value)
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    assert (ours - exact).norm() < 0.01 * exact.norm()
    for found, wanted in zip(torch.autograd.grad(ours.sum(), (query, key)), torch.autograd.grad(exact.sum(), (query, key)), strict=True):
        assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_chunks_bound_the_memory() -> None:
    """At the paper's 73,728 tokens one chunk is 64 queries of one head."""
    assert _chunk_size(48, 73_728, 73_728, 1 << 20) == (1, 64)
    assert _chunk_size(192, 64, 64, 1 << 20) == (192, 64)
    assert _chunk_size(8, 1024, 1024, 1 << 20) == (1, 1024)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 1, 1), (1, 1, 3), (2, 3, 4)])
def test_gradients_of_positions_add_up_over_backward_passes(sizes):
    names = ("max_frames", "max_height", "max_width")
    positions = FactorizedPositions(width=8, **dict(zip(names, sizes, strict=True)))
    first, second = torch.randn(2, sizes[0] * sizes[1] * sizes[2], 8)
    for weights in (first, second):
        (positions(*sizes) * weights).sum().backward()
    total = (first + second).view(*sizes, 8)
    for table, others in ((positions.frames, (1, 2)), (positions.rows, (0, 2)), (positions.columns, (0, 1))):
        torch.testing.assert_close(table.grad, total.sum(others))


def test_feed_forward_networks_with_and_without_a_gate():
    block = TransformerBlock(width=WIDTH, ffn_width=FFN, num_heads=HEADS, feed_forward="gelu")
    x = torch.randn(2, 5, WIDTH)
    inner = x @ block.ffn.w1.weight.T
    inner = 0.5 * inner * (1.0 + torch.tanh((2.0 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
    torch.testing.assert_close(block.ffn(x), inner @ block.ffn.w2.weight.T, atol=1e-5, rtol=1e-4)
    gated = TransformerBlock(width=WIDTH, ffn_width=FFN, num_heads=HEADS)
    assert sum(p.numel() for p in gated.parameters()) - sum(p.numel() for p in block.parameters()) == WIDTH * FFN
    with pytest.raises(UsageError, match="feed_forward='relu' was given; known are swiglu, gelu"):
        TransformerBlock(width=WIDTH, ffn_width=FFN, num_heads=HEADS, feed_forward="relu")
