"""`num_flops` of every backbone that is offered, against torch's own counter."""

import importlib
from dataclasses import replace

import pytest
import torch
from moviegen_hello import HelloBackbone
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moviegen_core.conditioner import Conditioning
from moviegen_core.plugins import plugin_host
from moviegen_t2v.model import VideoTransformer

# Small sizes of every offered backbone, and a latent it takes; a new backbone is entered here.
SIZES = {
    "AudioTransformer": (
        {"num_layers": 3, "width": 96, "ffn_width": 384, "num_heads": 6, "in_channels": 4, "extra_channels": 4, "max_frames": 300},
        (4, 257),
    ),
    "VideoTransformer": (
        {
            "num_layers": 3,
            "width": 96,
            "ffn_width": 160,
            "num_heads": 6,
            "in_channels": 4,
            "max_frames": 4,
            "max_height": 8,
            "max_width": 8,
        },
        (4, 4, 16, 16),
    ),
}
CONTEXT_LENGTH = 24
OFFERED = {name: found[0][0] for name, found in plugin_host().components.items() if found[0][0].kind == "backbone"}


def counted(backbone, latent_shape, conditioning, *, backward=False):
    """Operations of a forward pass, or of both passes, as torch counts them (its tables know attention as matrix products only)."""
    x_t = torch.randn(1, *latent_shape)
    if backbone.extra_channels:
        conditioning = replace(conditioning, channels=torch.randn(1, backbone.extra_channels, *latent_shape[1:]))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        velocity = backbone(x_t, torch.rand(1), conditioning)
        if backward:
            velocity.square().mean().backward()
    return counter.get_total_flops()


def text(length, width):
    return Conditioning(context=torch.randn(1, length, width, requires_grad=True), context_mask=torch.ones(1, length, dtype=torch.bool))


def test_every_offered_backbone_has_sizes_here():
    assert set(OFFERED) == set(SIZES)


@pytest.mark.parametrize("length", [0, CONTEXT_LENGTH])
@pytest.mark.parametrize("name", sorted(SIZES))
def test_forward_and_backward_within_one_percent(name, length):
    sizes, latent_shape = SIZES[name]
    module, _, cls = OFFERED[name].class_path.rpartition(".")
    backbone = getattr(importlib.import_module(module), cls)(**sizes)
    told = text(length, backbone.width) if length else Conditioning()
    forward = backbone.num_flops(latent_shape, length)
    assert forward == pytest.approx(counted(backbone, latent_shape, told), rel=0.01)
    assert 3 * forward == pytest.approx(counted(backbone, latent_shape, told, backward=True), rel=0.01)


@pytest.mark.parametrize("feed_forward", ["swiglu", "gelu"])
def test_both_feed_forward_networks(feed_forward):
    sizes, latent_shape = SIZES["VideoTransformer"]
    backbone = VideoTransformer(**sizes, feed_forward=feed_forward)
    told = text(CONTEXT_LENGTH, backbone.width)
    assert backbone.num_flops(latent_shape, CONTEXT_LENGTH) == pytest.approx(counted(backbone, latent_shape, told), rel=0.01)


def test_a_strangers_backbone():
    backbone = HelloBackbone(num_layers=2)
    told = Conditioning(modulation=torch.zeros(1, backbone.width))
    assert backbone.num_flops((4, 3, 6, 6), 0) == pytest.approx(counted(backbone, (4, 3, 6, 6), told), rel=0.01)
