"""Temporal tiling against whole decoding, its blending against the paper's formula, and its memory."""

import pytest
import torch
from torch import Tensor

from moviegen_core.nn.convolution import TemporalConv
from moviegen_tae.model import AutoencoderNetwork
from moviegen_tae.tiling import TemporalTiling
from moviegen_tae.training import TemporalAutoencoder

SIZES = {"base_channels": 4, "channel_multipliers": (1, 1, 1, 2), "num_res_blocks": 1, "latent_channels": 3, "norm_groups": 2}


def repeat(latent: Tensor) -> Tensor:
    """A decoder that looks at one latent frame at a time."""
    return latent.repeat_interleave(8, dim=2)


@pytest.mark.parametrize("frames", [1, 8, 31, 32, 33, 64, 100])
def test_a_model_without_memory_is_tiled_exactly(frames: int) -> None:
    torch.manual_seed(0)
    model = TemporalAutoencoder(**SIZES, tile_frames=32, tile_overlap_frames=16)
    for layer in model.modules():
        if isinstance(layer, TemporalConv):  # no layer looks at its neighbours
            torch.nn.init.dirac_(layer.weight)
    video = torch.rand(1, 3, frames, 8, 8) * 2 - 1
    latent = model.encode_raw(video)
    whole, _ = model.network.encode(video)
    torch.testing.assert_close(latent, whole)
    torch.testing.assert_close(model.decode_raw(latent), model.network.decode(latent), rtol=1e-4, atol=1e-5)


def test_tiles_of_a_model_with_memory_differ_only_near_seams() -> None:
    torch.manual_seed(0)
    network = AutoencoderNetwork(**SIZES, temporal_factor=8, dimensionality="2.5d")
    for name, parameter in network.named_parameters():
        if ".temporal.weight" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    network.decoder.middle.temporal_attention.out.reset_parameters()
    latent = torch.randn(1, 3, 12, 2, 2)
    with torch.no_grad():
        whole = network.decode(latent)
        tiled = TemporalTiling(tile_frames=64, overlap_frames=32).decode(network.decode, latent)
    assert tiled.shape == whole.shape
    error = (tiled - whole).abs().mean(dim=(0, 1, 3, 4))
    assert error[:16].max() < 1e-4  # far from the first seam
    assert error.max() > 1e-4
    assert error.mean() < 0.2 * whole.std()


def test_blend_is_linear_and_continuous() -> None:
    """Frame j of N overlapping ones takes (1 − j/N) of the earlier tile and j/N of the later."""
    tiling = TemporalTiling(tile_frames=32, overlap_frames=16)
    number = iter(range(100))

    def decode(latent: Tensor) -> Tensor:
        return torch.full((1, 1, latent.shape[2] * 8, 1, 1), float(next(number)))

    video = tiling.decode(decode, torch.zeros(1, 1, 6, 1, 1)).flatten()
    expected = torch.cat([torch.zeros(16), torch.arange(16) / 16, torch.ones(16)])
    torch.testing.assert_close(video, expected)


def test_streaming_holds_one_tile_whatever_the_length() -> None:
    tiling = TemporalTiling(tile_frames=32, overlap_frames=16)
    sizes = []

    def decode(latent: Tensor) -> Tensor:
        sizes.append(latent.shape[2])
        return repeat(latent)

    latent = torch.randn(1, 2, 41, 1, 1)
    stream = tiling.stream_decode(decode, latent)
    first = next(stream)
    assert len(sizes) == 1 and first.shape[2] == 16, "a finished stretch comes before the next tile is decoded"
    stretches = [first, *stream]
    assert max(sizes) == 4 and max(stretch.shape[2] for stretch in stretches) <= 32
    torch.testing.assert_close(torch.cat(stretches, dim=2), repeat(latent))


def test_encoder_tiles_do_not_overlap() -> None:
    seen = []
    TemporalTiling(tile_frames=32, overlap_frames=16).encode(
        lambda x: seen.append(x) or x[:, :, ::8], torch.arange(80.0).view(1, 1, 80, 1, 1)
    )
    assert [int(tile[0, 0, 0, 0, 0]) for tile in seen] == [0, 32, 64] and seen[-1].shape[2] == 16
