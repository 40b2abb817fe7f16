"""The whole backbone: against a plain reference, its doors, its sizes, its counts."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_t2v.model import VideoTransformer

Build = Callable[..., VideoTransformer]


def reference(backbone: VideoTransformer, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
    """The definition in loops and einsum, one sample at a time, in double precision."""
    weights = {name: parameter.detach().double() for name, parameter in backbone.named_parameters()}
    heads = 4

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"]

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.einsum("...i,oi->...o", x, weights[f"{name}.weight"])

    def attend(x: Tensor, context: Tensor, name: str) -> Tensor:
        q, k, v = (linear(y, f"{name}.{w}").unflatten(-1, (heads, -1)) for y, w in ((x, "wq"), (context, "wk"), (context, "wv")))
        scores = torch.einsum("nae,lae->anl", q, k) / q.shape[-1] ** 0.5
        return linear(torch.einsum("anl,lae->nae", scores.softmax(-1), v).flatten(-2), f"{name}.wo")

    outputs = []
    for i in range(len(x_t)):
        x = F.conv3d(x_t[i : i + 1].double(), weights["patchify.weight"], stride=(1, 2, 2))[0]
        frames, rows, columns = x.shape[1:]
        x = x.permute(1, 2, 3, 0).flatten(0, 2)
        if conditioning.aligned is not None:
            x = x + conditioning.aligned[i].double().repeat_interleave(rows * columns, dim=0)
        places = torch.cartesian_prod(torch.arange(frames), torch.arange(rows), torch.arange(columns))
        positions = sum(weights[f"positions.{n}"][places[:, j]] for j, n in enumerate(("frames", "rows", "columns")))

        angles = 1000 * t[i].double() * torch.exp(-torch.arange(128).double() / 128 * torch.log(torch.tensor(10_000.0).double()))
        time = linear(F.silu(linear(torch.cat([angles.cos(), angles.sin()]), "time_embedding.w1")), "time_embedding.w2")
        if conditioning.modulation is not None:
            time = time + conditioning.modulation[i].double()
        time = F.silu(time)
        for layer in range(len(backbone.blocks)):
            block = f"blocks.{layer}"
            m = linear(time, "modulation").view(6, -1) + weights[f"{block}.modulation.bias"]
            x = x + positions
            inner = norm(x, f"{block}.self_norm") * (1 + m[0]) + m[1]
            x = x + m[2] * attend(inner, inner, f"{block}.self_attention")
            if conditioning.context is not None:
                real = conditioning.context[i][conditioning.context_mask[i]].double()
                x = x + attend(norm(x, f"{block}.cross_norm"), real, f"{block}.cross_attention")
            inner = norm(x, f"{block}.ffn_norm") * (1 + m[3]) + m[4]
            ffn = F.silu(linear(inner, f"{block}.ffn.w1")) * linear(inner, f"{block}.ffn.w3")
            x = x + m[5] * linear(ffn, f"{block}.ffn.w2")
        scale, shift = linear(time, "final_modulation").view(2, -1) + weights["final_bias.bias"]
        cells = linear(norm(x, "final_norm") * (1 + scale) + shift, "unpatchify.linear").view(frames, rows, columns, -1, 1, 2, 2)
        outputs.append(torch.einsum("thwcijk->cthwijk", cells).permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, frames, 2 * rows, 2 * columns))
    return torch.stack(outputs).float()


def test_equals_plain_reference(backbone: VideoTransformer, conditioning: Conditioning) -> None:
    x_t, t = torch.randn(3, 4, 3, 4, 6), torch.tensor([0.0, 0.4, 1.0])
    everything = dataclasses.replace(conditioning, modulation=torch.randn(3, 32), aligned=torch.randn(3, 3, 32))
    for given in (everything, conditioning, Conditioning()):
        torch.testing.assert_close(backbone(x_t, t, given), reference(backbone, x_t, t, given), rtol=1e-4, atol=1e-4)


def test_first_prediction_is_zero_and_every_weight_learns(conditioning: Conditioning, sizes: dict[str, Any]) -> None:
    backbone = VideoTransformer(**sizes)
    x_t, t = torch.randn(3, 4, 2, 4, 4), torch.rand(3)
    assert not backbone(x_t, t, conditioning).any()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        (backbone(x_t, t, conditioning) - x_t).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())


def test_masked_context_has_no_influence(backbone: VideoTransformer, conditioning: Conditioning) -> None:
    x_t, t = torch.randn(3, 4, 1, 4, 4), torch.rand(3)
    noise = torch.randn_like(conditioning.context) * 1e3
    other = dataclasses.replace(conditioning, context=conditioning.context.where(conditioning.context_mask[..., None], noise))
    torch.testing.assert_close(backbone(x_t, t, conditioning), backbone(x_t, t, other))
    shorter = Conditioning(context=conditioning.context[:2, :3], context_mask=conditioning.context_mask[:2, :3])
    torch.testing.assert_close(backbone(x_t, t, conditioning)[:2], backbone(x_t[:2], t[:2], shorter), rtol=1e-4, atol=1e-5)


def test_batched_equals_single(backbone: VideoTransformer, conditioning: Conditioning) -> None:
    x_t, t = torch.randn(3, 4, 2, 4, 4), torch.rand(3)
    batched = backbone(x_t, t, conditioning)
    for i in range(3):
        single = Conditioning(context=conditioning.context[i : i + 1], context_mask=conditioning.context_mask[i : i + 1])
        torch.testing.assert_close(batched[i : i + 1], backbone(x_t[i : i + 1], t[i : i + 1], single), rtol=1e-4, atol=1e-5)


def test_checkpointing_changes_no_gradient(awake: Build, conditioning: Conditioning) -> None:
    x_t, t = torch.randn(3, 4, 2, 4, 4), torch.rand(3)
    gradients = []
    for how in ("none", "selective", "block"):
        backbone = awake(activation_checkpointing=how)
        backbone(x_t, t, conditioning).square().mean().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    for recomputed in gradients[1:]:
        torch.testing.assert_close(recomputed, gradients[0])


@pytest.mark.parametrize("autocast", [True, False], ids=["mixed", "true"])
def test_bf16_is_near_fp32(backbone: VideoTransformer, conditioning: Conditioning, autocast: bool) -> None:
    x_t, t = torch.randn(3, 4, 2, 4, 4), torch.rand(3)
    exact = backbone(x_t, t, conditioning)
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            rounded = backbone(x_t, t, conditioning)
    else:
        rounded = backbone.bfloat16()(x_t.bfloat16(), t, conditioning)
        assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.05 * exact.norm()
    rounded.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


def test_extra_channels_enter_silently(conditioning: Conditioning, awake: Build) -> None:
    """A fresh backbone with extra channels says what it says without them, whatever they hold."""
    wide = awake(extra_channels=4)
    torch.nn.init.zeros_(wide.patchify.weight[:, 4:])
    narrow = awake()
    narrow.load_state_dict(wide.state_dict() | {"patchify.weight": wide.patchify.weight[:, :4]})
    x_t, t = torch.randn(3, 4, 1, 4, 4), torch.rand(3)
    extra = dataclasses.replace(conditioning, channels=torch.randn_like(x_t))
    torch.testing.assert_close(wide(x_t, t, extra), narrow(x_t, t, conditioning))


def test_meta_build_materialises_to_the_same_weights(sizes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    built = VideoTransformer(**sizes)
    with torch.device("meta"):
        late = VideoTransformer(**sizes)
    late.to_empty(device="cpu")
    torch.manual_seed(0)
    late.reset_parameters()
    for name, parameter in late.named_parameters():
        assert parameter.isfinite().all(), name
        torch.testing.assert_close(parameter.std(), built.get_parameter(name).std(), rtol=0.5, atol=1e-6)


@pytest.mark.parametrize("length", [0, 7])
def test_flops_within_one_percent_of_torch(backbone: VideoTransformer, length: int) -> None:
    text = Conditioning(context=torch.randn(1, 7, 32), context_mask=torch.ones(1, 7, dtype=torch.bool)) if length else Conditioning()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        backbone(torch.randn(1, 4, 3, 8, 8), torch.rand(1), text)
    assert backbone.num_flops((4, 3, 8, 8), length) == pytest.approx(counter.get_total_flops(), rel=0.01)


def count(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e9


def test_paper_sizes() -> None:
    """Table 1 and 3.6.2: 30 B, the 5 B ablation, and 73,728 tokens for 768 x 768 px and 256 frames."""
    with torch.device("meta"):
        large = VideoTransformer()
        small = VideoTransformer(num_layers=32, width=3072, ffn_width=8192, num_heads=24)
    assert count(large) == pytest.approx(30, rel=0.05)
    assert count(large.blocks) == pytest.approx(29.0, rel=0.005)
    assert count(large.modulation) < 0.25
    assert count(small) == pytest.approx(4.8, rel=0.05)
    assert large.num_tokens((16, 256 // 8, 768 // 8, 768 // 8)) == 73_728


@pytest.mark.parametrize(
    ("shape", "doors", "message"),
    [
        ((1, 5, 1, 4, 4), {}, r"5 channels was given; this backbone takes 4; set"),
        ((1, 4, 1, 5, 4), {}, r"1x5x4 cells .* patches are 1x2x2; resize or crop so that the latent is 1x4x4"),
        ((1, 4, 9, 4, 4), {}, r"9x2x2 patches .* end at 4x4x4; raise"),
        ((1, 4, 1, 4, 10), {}, r"1x2x5 patches .* end at 4x4x4; raise"),
        ((1, 4, 1, 4, 4), {"channels": torch.zeros(1, 3, 1, 4, 4)}, r"3 extra channels; this backbone has weights for 0; set its extra"),
        ((1, 4, 2, 4, 4), {"aligned": torch.zeros(1, 3, 32)}, r"3 frames were given; the latent has 2 frames .*; resample"),
    ],
)
def test_wrong_sizes_are_named(backbone: VideoTransformer, shape: tuple[int, ...], doors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        backbone(torch.zeros(shape), torch.zeros(1), Conditioning(**doors))


def test_absent_extra_channels_are_named(sizes: dict[str, Any]) -> None:
    backbone = VideoTransformer(**sizes, extra_channels=4)
    with pytest.raises(UsageError, match="0 extra channels; this backbone has weights for 4"):
        backbone(torch.zeros(1, 4, 1, 4, 4), torch.zeros(1), Conditioning())
