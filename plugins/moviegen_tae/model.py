"""The network of the temporal autoencoder (3.1.1): latent diffusion's image autoencoder, inflated along time.

Inside, a video is folded frames `(b t) c h w` in channels-last memory (see moviegen_core.nn.convolution); every layer gets the number of
videos b and finds t by division. Statistics of the normalisation are per frame, so that one frame means the same in an image and a video.

Shape legend: b videos, t frames, c channels, h rows, w columns, z latent channels.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from moviegen_core.nn.convolution import (
    Conv2d,
    DownsampleConv2d,
    FullConv3d,
    TemporalConv,
    TemporalUpsampleConv,
    UpsampleConv2d,
    fold_frames,
    unfold_frames,
)
from moviegen_tae.normalization import GroupNormSiLU

Dimensionality = Literal["2d", "2.5d", "3d"]


class VideoConv(nn.Module):
    """3×3 convolution of every frame, then a 1-D temporal convolution ("2.5D"); or the first alone ("2D"), or both in one ("3D").

    Args:
        in_channels: channels in.
        out_channels: channels out.
        dimensionality: `2d`, `2.5d` or `3d`.
        stride: spatial stride, 1 or 2.
        temporal_stride: temporal stride, 1 or 2.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dimensionality: Dimensionality, stride: int = 1, temporal_stride: int = 1
    ) -> None:
        super().__init__()
        self.full = dimensionality == "3d"
        if self.full:
            self.spatial = FullConv3d(in_channels, out_channels, stride=stride, temporal_stride=temporal_stride)
        else:
            self.spatial = DownsampleConv2d(in_channels, out_channels) if stride == 2 else Conv2d(in_channels, out_channels, 3, padding=1)
        self.temporal = TemporalConv(out_channels, stride=temporal_stride) if dimensionality == "2.5d" else None

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        if self.full:
            return self.spatial(x, batch_size)
        x = self.spatial(x)
        return x if self.temporal is None else self.temporal(x, batch_size)


class VideoUpsample(nn.Module):
    """Nearest-neighbour doubling in space, and in time where asked, each followed by its convolution.

    Args:
        channels: channels in and out.
        dimensionality: `2d`, `2.5d` or `3d`.
        temporal: also double the frames.
    """

    def __init__(self, channels: int, *, dimensionality: Dimensionality, temporal: bool) -> None:
        super().__init__()
        self.full, self.doubles_time = dimensionality == "3d", temporal
        self.spatial = FullConv3d(channels, channels) if self.full else UpsampleConv2d(channels, channels)
        self.temporal = None
        if dimensionality == "2.5d":
            self.temporal = TemporalUpsampleConv(channels) if temporal else TemporalConv(channels)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        if self.full:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            if self.doubles_time:
                x = x.permute(0, 2, 3, 1).repeat_interleave(2, dim=0).permute(0, 3, 1, 2)
            return self.spatial(x, batch_size)
        x = self.spatial(x)
        return x if self.temporal is None else self.temporal(x, batch_size)


class ResidualBlock(nn.Module):
    """Twice norm, SiLU, convolution, with a shortcut.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        dimensionality: `2d`, `2.5d` or `3d`.
        norm_groups: groups of the normalisation.
    """

    def __init__(self, in_channels: int, out_channels: int, *, dimensionality: Dimensionality, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNormSiLU(norm_groups, in_channels)
        self.conv1 = VideoConv(in_channels, out_channels, dimensionality=dimensionality)
        self.norm2 = GroupNormSiLU(norm_groups, out_channels)
        self.conv2 = VideoConv(out_channels, out_channels, dimensionality=dimensionality)
        self.shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        h = self.conv1(self.norm1(x), batch_size)
        h = self.conv2(self.norm2(h), batch_size)
        return self.shortcut(x) + h


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero."""

    def reset_parameters(self) -> None:
        """Set all to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class Attention(nn.Module):
    """Single-head self-attention with a residual connection, over space, over time, or over both.

    Args:
        channels: channels in and out.
        axes: `space` (within a frame), `time` (within a position; starts as the identity), `spacetime`.
        norm_groups: groups of the normalisation.
    """

    def __init__(self, channels: int, *, axes: Literal["space", "time", "spacetime"], norm_groups: int) -> None:
        super().__init__()
        self.axes = axes
        self.norm = nn.GroupNorm(norm_groups, channels, eps=1e-6)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = (ZeroLinear if axes == "time" else nn.Linear)(channels, channels)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        n, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1)
        if self.axes == "time":
            if n == batch_size:  # attention over a single frame returns its value
                value = F.linear(tokens, self.qkv.weight[2 * c :], self.qkv.bias[2 * c :])
                return x + self.out(value).permute(0, 3, 1, 2)
            tokens = tokens.reshape(batch_size, n // batch_size, h * w, c).transpose(1, 2).reshape(batch_size * h * w, -1, c)
        else:
            tokens = tokens.reshape(n if self.axes == "space" else batch_size, -1, c)
        q, k, v = self.qkv(tokens).unsqueeze(1).chunk(3, dim=-1)
        y = self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        if self.axes == "time":
            y = y.view(batch_size, h * w, -1, c).transpose(1, 2)
        return x + y.reshape(n, h, w, c).permute(0, 3, 1, 2)


class Middle(nn.Module):
    """The middle of encoder and decoder: residual block, attention (spatial, then temporal), residual block.

    Args:
        channels: channels in and out.
        dimensionality: `2d`, `2.5d` or `3d`.
        norm_groups: groups of the normalisation.
    """

    def __init__(self, channels: int, *, dimensionality: Dimensionality, norm_groups: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, channels, dimensionality=dimensionality, norm_groups=norm_groups)
        self.attention = Attention(channels, axes="spacetime" if dimensionality == "3d" else "space", norm_groups=norm_groups)
        self.temporal_attention = Attention(channels, axes="time", norm_groups=norm_groups) if dimensionality == "2.5d" else None
        self.block2 = ResidualBlock(channels, channels, dimensionality=dimensionality, norm_groups=norm_groups)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        x = self.attention(self.block1(x, batch_size), batch_size)
        if self.temporal_attention is not None:
            x = self.temporal_attention(x, batch_size)
        return self.block2(x, batch_size)


class Encoder(nn.Module):
    """Pixels to the posterior's parameters.

    Args:
        widths: channels of each level, from full resolution down; each but the last ends in a halving of rows and columns.
        num_temporal_levels: how many of those halvings, from full resolution on, also halve the frames.
        num_res_blocks: residual blocks of each level.
        out_channels: channels out.
        dimensionality: `2d`, `2.5d` or `3d`.
        norm_groups: groups of the normalisation.
        patch_size: pixels of a side that are folded into channels first; above 1 the first convolution also halves the frames.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        num_temporal_levels: int,
        num_res_blocks: int,
        out_channels: int,
        dimensionality: Dimensionality,
        norm_groups: int,
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        common = {"dimensionality": dimensionality, "norm_groups": norm_groups}
        self.patch_size = patch_size
        halves_first = patch_size > 1 and num_temporal_levels > 0
        num_temporal_levels -= halves_first
        stem_stride = 2 if halves_first else 1
        self.conv_in = VideoConv(3 * patch_size**2, widths[0], dimensionality=dimensionality, temporal_stride=stem_stride)
        layers: list[nn.Module] = []
        width = widths[0]
        for level, next_width in enumerate(widths):
            for _ in range(num_res_blocks):
                layers.append(ResidualBlock(width, next_width, **common))
                width = next_width
            if level < len(widths) - 1:
                temporal_stride = 2 if level < num_temporal_levels else 1
                layers.append(VideoConv(width, width, dimensionality=dimensionality, stride=2, temporal_stride=temporal_stride))
        self.layers = nn.ModuleList(layers)
        self.middle = Middle(width, **common)
        self.norm_out = GroupNormSiLU(norm_groups, width)
        self.conv_out = VideoConv(width, out_channels, dimensionality=dimensionality)
        self.gradient_checkpointing = False

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        if self.patch_size > 1:
            x = F.pixel_unshuffle(x, self.patch_size).contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x, batch_size)
        for layer in [*self.layers, self.middle]:
            x = _run(layer, x, batch_size, checkpointed=self.gradient_checkpointing and self.training)
        return self.conv_out(self.norm_out(x), batch_size)


class Decoder(nn.Module):
    """Latents to pixels, the encoder's mirror with one more residual block per level.

    Args:
        widths: channels of each level, from full resolution down.
        num_temporal_levels: how many doublings, up to full resolution, also double the frames.
        num_res_blocks: residual blocks of each level, less one.
        in_channels: channels in.
        dimensionality: `2d`, `2.5d` or `3d`.
        norm_groups: groups of the normalisation.
        patch_size: pixels of a side that are unfolded from channels last; above 1 the frames are doubled right before.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        num_temporal_levels: int,
        num_res_blocks: int,
        in_channels: int,
        dimensionality: Dimensionality,
        norm_groups: int,
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        common = {"dimensionality": dimensionality, "norm_groups": norm_groups}
        self.patch_size = patch_size
        doubles_last = patch_size > 1 and num_temporal_levels > 0
        num_temporal_levels -= doubles_last
        width = widths[-1]
        self.conv_in = VideoConv(in_channels, width, dimensionality=dimensionality)
        self.middle = Middle(width, **common)
        layers: list[nn.Module] = []
        for level, next_width in reversed(list(enumerate(widths))):
            for _ in range(num_res_blocks + 1):
                layers.append(ResidualBlock(width, next_width, **common))
                width = next_width
            if level > 0:
                layers.append(VideoUpsample(width, dimensionality=dimensionality, temporal=level <= num_temporal_levels))
        self.layers = nn.ModuleList(layers)
        self.norm_out = GroupNormSiLU(norm_groups, width)
        self.temporal = TemporalUpsampleConv(width) if doubles_last else None
        self.conv_out = VideoConv(width, 3 * patch_size**2, dimensionality=dimensionality)
        self.gradient_checkpointing = False

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        x = self.conv_in(x, batch_size)
        for layer in [self.middle, *self.layers]:
            x = _run(layer, x, batch_size, checkpointed=self.gradient_checkpointing and self.training)
        x = self.norm_out(x)
        if self.temporal is not None:
            x = self.temporal(x, batch_size)
        x = self.conv_out(x, batch_size)
        return F.pixel_shuffle(x, self.patch_size).contiguous(memory_format=torch.channels_last) if self.patch_size > 1 else x


class PosteriorConv(nn.Conv2d):
    """1×1 convolution to mean and log-variance, which starts with little noise so that the decoder has something to learn from.

    Args:
        latent_channels: channels of the latent.
        initial_logvar: where the log-variance starts.
    """

    def __init__(self, latent_channels: int, *, initial_logvar: float = -4.0) -> None:
        self.initial_logvar = initial_logvar
        super().__init__(2 * latent_channels, 2 * latent_channels, 1)

    def reset_parameters(self) -> None:
        """As any convolution, but for the log-variance's bias."""
        super().reset_parameters()
        nn.init.constant_(self.bias[self.out_channels // 2 :], self.initial_logvar)


class AutoencoderNetwork(nn.Module):
    """Encoder and decoder with the 1×1 convolutions around the latent.

    Args:
        base_channels: width of the first level.
        channel_multipliers: width of each level as a multiple of `base_channels`; n levels compress space by 2^(n-1).
        num_res_blocks: residual blocks of each encoder level (the decoder has one more).
        latent_channels: channels of the latent.
        temporal_factor: compression of time, a power of 2 of at most 2^(n-1), twice that behind patches; 1 in `2d`.
        dimensionality: `2d` (frame by frame), `2.5d` (the paper's) or `3d` (the ablation's).
        norm_groups: groups of the normalisation; must divide every width.
        patch_size: pixels of a side that are folded into channels before the first level; compresses space by as much.
        gradient_checkpointing: recompute blocks in the backward pass.
    """

    def __init__(
        self,
        *,
        base_channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        latent_channels: int,
        temporal_factor: int,
        dimensionality: Dimensionality,
        norm_groups: int,
        patch_size: int = 1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        widths = [base_channels * multiplier for multiplier in channel_multipliers]
        _check_sizes(widths, temporal_factor, dimensionality, norm_groups, patch_size)
        common = {
            "widths": widths,
            "num_temporal_levels": int(math.log2(temporal_factor)),
            "num_res_blocks": num_res_blocks,
            "dimensionality": dimensionality,
            "norm_groups": norm_groups,
            "patch_size": patch_size,
        }
        self.encoder = Encoder(**common, out_channels=2 * latent_channels)
        self.quant_conv = PosteriorConv(latent_channels)
        self.post_quant_conv = Conv2d(latent_channels, latent_channels, 1)
        self.decoder = Decoder(**common, in_channels=latent_channels)
        self.encoder.gradient_checkpointing = self.decoder.gradient_checkpointing = gradient_checkpointing

    def encode(self, video: Float[Tensor, "b 3 t h w"]) -> tuple[Float[Tensor, "b z s y x"], Float[Tensor, "b z s y x"]]:
        """Mean and log-variance of the posterior."""
        b = video.shape[0]
        parameters = self.quant_conv(self.encoder(fold_frames(video), b))
        mean, logvar = unfold_frames(parameters, b).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, latent: Float[Tensor, "b z s y x"]) -> Float[Tensor, "b 3 t h w"]:
        """All frames of the latents, the spurious ones included."""
        b = latent.shape[0]
        return unfold_frames(self.decoder(self.post_quant_conv(fold_frames(latent)), b), b)


def _run(layer: nn.Module, x: Tensor, batch_size: int, *, checkpointed: bool) -> Tensor:
    return checkpoint(layer, x, batch_size, use_reentrant=False) if checkpointed else layer(x, batch_size)


def _check_sizes(widths: Sequence[int], temporal_factor: int, dimensionality: str, norm_groups: int, patch_size: int) -> None:
    if patch_size not in (1, 2, 4) or (patch_size > 1 and dimensionality == "3d"):
        raise ValueError(
            f"patch_size {patch_size} was given with dimensionality {dimensionality}; patches of 1, 2 or 4 pixels exist, "
            "and 3d takes 1 alone; choose one of these"
        )
    if bad := [width for width in widths if width % norm_groups]:
        raise ValueError(
            f"norm_groups is {norm_groups}, but levels are {list(widths)} channels wide; {bad[0]} is no multiple of it; "
            f"set norm_groups to a common divisor such as {math.gcd(*widths)}"
        )
    largest = 1 if dimensionality == "2d" else 2 ** (len(widths) - 1 + (patch_size > 1))
    if temporal_factor not in (allowed := [2**i for i in range(int(math.log2(largest)) + 1)]):
        raise ValueError(
            f"temporal_factor {temporal_factor} was given; {dimensionality} with {len(widths)} levels offers {allowed}; "
            "choose one of them or add channel_multipliers"
        )
