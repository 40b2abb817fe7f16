"""Folded convolutions against torch's plain ones."""

import pytest
import torch
from torch.nn import functional as F

from moviegen_core.nn.convolution import (
    DownsampleConv2d,
    FullConv3d,
    TemporalConv,
    TemporalUpsampleConv,
    UpsampleConv2d,
    fold_frames,
    unfold_frames,
)


def randomised(layer: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


def compare(layer, folded, reference, video: torch.Tensor) -> None:
    """Values, input gradients and weight gradients of a layer on folded frames against a plain function of the video."""
    results = []
    for function in (lambda x: unfold_frames(folded(fold_frames(x)), x.shape[0]), reference):
        x = video.clone().requires_grad_()
        layer.zero_grad()
        y = function(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
        results.append([y, x.grad, *[parameter.grad.clone() for parameter in layer.parameters()]])
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted)


def replicated(video: torch.Tensor, pad: int = 1) -> torch.Tensor:
    return F.pad(video, (0, 0, 0, 0, pad, pad), mode="replicate")


@pytest.mark.parametrize("frames", [1, 2, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_temporal_convolution(frames: int, stride: int) -> None:
    layer = randomised(TemporalConv(4, stride=stride)).double()
    video = torch.randn(2, 4, frames, 3, 5, dtype=torch.float64)
    compare(
        layer,
        lambda x: layer(x, 2),
        lambda x: F.conv3d(replicated(x), layer.weight[..., None, None], layer.bias, stride=(stride, 1, 1)),
        video,
    )
    assert layer(fold_frames(video), 2).shape[0] == 2 * -(-frames // stride)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_temporal_upsampling(frames: int) -> None:
    layer = randomised(TemporalUpsampleConv(4)).double()
    video = torch.randn(2, 4, frames, 3, 2, dtype=torch.float64)
    compare(
        layer,
        lambda x: layer(x, 2),
        lambda x: F.conv3d(replicated(x.repeat_interleave(2, dim=2)), layer.weight[..., None, None], layer.bias),
        video,
    )


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 6)])
def test_spatial_upsampling(size: tuple[int, int]) -> None:
    layer = randomised(UpsampleConv2d(3, 5)).double()
    video = torch.randn(2, 3, 2, *size, dtype=torch.float64)
    compare(
        layer,
        layer,
        lambda x: F.conv3d(
            F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest"), layer.weight.unsqueeze(2), layer.bias, padding=(0, 1, 1)
        ),
        video,
    )


@pytest.mark.parametrize("frames", [1, 4, 5])
@pytest.mark.parametrize(("stride", "temporal_stride"), [(1, 1), (2, 1), (2, 2)])
def test_full_convolution(frames: int, stride: int, temporal_stride: int) -> None:
    layer = randomised(FullConv3d(3, 4, stride=stride, temporal_stride=temporal_stride)).double()
    video = torch.randn(2, 3, frames, 6, 4, dtype=torch.float64)

    def plain(x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(replicated(x), (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        return F.conv3d(padded, layer.weight, layer.bias, stride=(temporal_stride, stride, stride))

    compare(layer, lambda x: layer(x, 2), plain, video)


def test_temporal_layers_leave_a_static_video_as_it_is_at_the_start() -> None:
    still = torch.randn(1, 4, 3, 3).expand(6, -1, -1, -1)
    for layer, num_frames in (
        (TemporalConv(4), 6),
        (TemporalUpsampleConv(4), 12),
        (TemporalConv(4, stride=2), 3),
    ):
        torch.testing.assert_close(layer(still, 1), still[:1].expand(num_frames, -1, -1, -1))


def test_temporal_layers_start_as_the_identity_or_an_average_and_a_difference() -> None:
    torch.manual_seed(0)
    frames = torch.randn(6, 64, 3, 3)
    averages = torch.stack([(3 * frames[0] + frames[1]) / 4, (frames[1] + 3 * frames[2]) / 4])  # of 1-2-1, the end frames standing twice
    for layer, clip, wanted, size in ((TemporalConv(64), frames, frames, 0.2), (TemporalConv(64, stride=2), frames[:3], averages, 0.7)):
        even = (layer.weight + layer.weight.flip(-1)) / 2
        odd = (layer.weight - even)[:, :, 2]
        assert odd.std().item() == pytest.approx(size / 64**0.5, rel=0.05)
        with torch.no_grad():
            layer.weight.copy_(even)
        torch.testing.assert_close(layer(clip, 1), wanted)


def test_layout_is_kept() -> None:
    frames = fold_frames(torch.randn(2, 4, 4, 6, 6))
    for layer in (TemporalConv(4), TemporalConv(4, stride=2), TemporalUpsampleConv(4)):
        assert layer(frames, 2).is_contiguous(memory_format=torch.channels_last)
    assert UpsampleConv2d(4, 4)(frames).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(unfold_frames(frames, 2), unfold_frames(frames.contiguous(), 2))


def test_resampling_layers_start_close_to_resampling() -> None:
    torch.manual_seed(0)
    smooth = F.interpolate(torch.randn(2, 32, 3, 3), scale_factor=8, mode="bilinear")
    for layer, wanted in (
        (DownsampleConv2d(32, 32), F.avg_pool2d(smooth, 2)),
        (UpsampleConv2d(32, 32), F.interpolate(smooth, scale_factor=2, mode="nearest")),
    ):
        similarity = F.cosine_similarity(layer(smooth).flatten(), wanted.flatten(), dim=0)
        assert 0.8 < similarity < 1.0


@pytest.mark.parametrize("size", [(4, 4), (5, 6)])
def test_spatial_downsampling(size: tuple[int, int]) -> None:
    layer = randomised(DownsampleConv2d(3, 5)).double()
    video = torch.randn(2, 3, 2, *size, dtype=torch.float64)
    compare(layer, layer, lambda x: F.conv3d(F.pad(x, (0, 1, 0, 1)), layer.weight.unsqueeze(2), layer.bias, stride=(1, 2, 2)), video)
