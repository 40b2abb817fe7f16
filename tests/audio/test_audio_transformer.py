"""The audio backbone: what its base class promises, for latents of two dimensions, and the paper's count."""

import warnings
from functools import partial

import pytest
import torch

from moviegen_audio.model import AudioTransformer
from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.parallel.planner.layout import Layout
from moviegen_core.parallel.planner.memory import estimate_memory
from moviegen_core.parallel.planner.parameters import shard_parameters
from moviegen_core.parallel.planner.simulation import simulate_step
from moviegen_core.testing import check_backbone
from moviegen_t2v.model import VideoTransformer

SIZES = {"num_layers": 2, "width": 32, "ffn_width": 128, "num_heads": 4, "in_channels": 4, "extra_channels": 4, "max_frames": 20}


def awake(backbone):
    """Every weight drawn, those that start at zero included."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.2)
    return backbone


def conditioning(num_frames, batch=2, width=32, channels=4):
    torch.manual_seed(1)
    return Conditioning(
        context=torch.randn(batch, 3, width),
        context_mask=torch.tensor([[True, True, False]] * batch),
        channels=torch.randn(batch, channels, num_frames),
        aligned=torch.randn(batch, num_frames, width),
    )


@pytest.mark.parametrize("feed_forward", ["gelu", "swiglu"])
def test_keeps_the_contract_of_backbones(feed_forward):
    check_backbone(partial(AudioTransformer, **SIZES, feed_forward=feed_forward), latent_shape=(4, 13))


def test_a_sound_is_a_video_of_one_cell():
    sound = awake(AudioTransformer(**SIZES))
    video = VideoTransformer(**SIZES, max_height=1, max_width=1, patch_size=(1, 1, 1), feed_forward="gelu")
    video.load_state_dict(sound.state_dict())
    x_t, t, told = torch.randn(2, 4, 11), torch.tensor([0.2, 0.7]), conditioning(11)
    as_video = Conditioning(told.context, told.context_mask, None, told.channels[..., None, None], told.aligned)
    assert torch.equal(sound(x_t, t, told), video(x_t[..., None, None], t, as_video)[..., 0, 0])


@pytest.mark.parametrize("door", ["context", "channels", "aligned"])
def test_every_door_is_open(door):
    backbone, told = awake(AudioTransformer(**SIZES)), conditioning(7)
    x_t, t = torch.randn(2, 4, 7), torch.tensor([0.2, 0.7])
    changed = Conditioning(**{**vars(told), door: getattr(told, door) + 1.0})
    assert not torch.allclose(backbone(x_t, t, told), backbone(x_t, t, changed), atol=1e-3)


def test_the_context_starts_without_effect_and_learns():
    backbone = AudioTransformer(**SIZES)
    assert not backbone.patchify.weight[:, 4:].any() and backbone.patchify.weight[:, :4].any()


def test_aligned_features_act_where_they_are_first():
    """With closed gates only the token itself sees its feature, so the velocity changes at that frame alone."""
    backbone, told = AudioTransformer(**SIZES), conditioning(9)
    with torch.no_grad():
        backbone.unpatchify.linear.weight.normal_()
    x_t, t, moved = torch.randn(2, 4, 9), torch.tensor([0.2, 0.7]), told.aligned.clone()
    moved[:, 5] += 1.0
    change = backbone(x_t, t, told) - backbone(x_t, t, Conditioning(**{**vars(told), "aligned": moved}))
    assert change[:, :, 5].abs().max() > 0.1 and not change[:, :, [0, 1, 2, 3, 4, 6, 7, 8]].abs().max() > 1e-5


def test_the_papers_size():
    with torch.device("meta"):
        backbone = AudioTransformer()
    d = 4608
    count = sum(parameter.numel() for parameter in backbone.parameters())
    matrices = 36 * (4 + 4 + 8) * d * d
    assert matrices == 12_230_590_464
    shared = (256 + d + 6 * d + 2 * d) * d  # time embedding, the network of all layers' modulation, that of the last norm
    small = 36 * (6 + 3) * d + 3 * d  # biases and norms by layer, and the last ones
    edges = 256 * d + 128 * d + (750 + 2) * d
    assert count == matrices + shared + small + edges == 12_429_614_592
    with torch.device("meta"):
        gated = AudioTransformer(feed_forward="swiglu")
    assert sum(parameter.numel() for parameter in gated.parameters()) - count == 36 * 4 * d * d
    assert backbone.num_tokens((128, 750)) == 750


@pytest.mark.parametrize("shape", [(1, 4, 21), (1, 4, 3, 1, 1)])
def test_what_is_too_long_or_no_sound_is_refused(shape):
    told = "21 latent frames.*ends at 20.*`window` of at most 20: .*MultiDiffusion" if len(shape) == 3 else "a sound's is"
    with pytest.raises(UsageError, match=told):
        AudioTransformer(**SIZES)(torch.randn(shape), torch.rand(1), Conditioning())


@pytest.mark.parametrize(
    "layout",
    [
        Layout(4, 1, 1, "none", micro_batch=4),
        Layout(2, 2, 2, "selective", 0.5, micro_batch=8),
        pytest.param(Layout(2, 1, 4, "block", micro_batch=8), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_planners_memory_within_a_tenth(layout):
    sizes, shape = {"num_layers": 3, "width": 512, "ffn_width": 2048, "num_heads": 8}, (128, 750)
    build = partial(AudioTransformer, **sizes, activation_checkpointing=layout.checkpointing, kept_activations=layout.kept_activations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames collectives
        measured = simulate_step(build, layout, shape, 64)
    with torch.device("meta"):
        backbone = build()
    footprint = backbone.footprint(shape, 64, context=layout.context, tensor=layout.tensor, element_bytes=layout.element_bytes)
    assert estimate_memory(shard_parameters(backbone, layout.tensor), footprint, layout).tensors == pytest.approx(measured, rel=0.1)
