"""The plain network of the DAC-VAE: Descript Audio Codec's encoder and decoder around a Gaussian bottleneck (6.1.3).

Layout: inside, a sound travels as (b, c, 1, t) in channels-last memory, that is b, t, c. In bf16 on a CPU, convolutions of that are up to
three times as fast as Conv1d, and nothing is copied to change its layout.

Shape legend: b sounds, a channels of a sound, s samples, c latent channels, t latent frames.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_audio.convolution import Conv1d, ConvTranspose1d, Start
from moviegen_audio.filter_bank import Bands, identity_kernel, patch_kernel, split_kernel, unpatch_kernel
from moviegen_audio.snake import Snake1d
from moviegen_audio.streaming import Geometry
from moviegen_core.errors import UsageError, require_at_least

DILATIONS = (1, 3, 9)
# Residual branches start small, so that a deep network starts close to its resampling convolutions alone.
_BRANCH_SCALE = 0.1
# Of kernels that start as a filter bank, beside which chance is to break symmetries only.
_NOISE_SCALE = 0.05
# Where the sound itself passes, a filter bank needs Snakes that start nearly straight; with α = 1 the toy starts at -10 dB, so at 2 dB.
_STRAIGHT_ALPHA = 0.05


class ResidualUnit(nn.Module):
    """Snake, dilated convolution, Snake, pointwise convolution, added to the input.

    Args:
        channels: channels in and out.
        dilation: positions between taps.
        weight_norm: as in `Conv1d`.
    """

    def __init__(self, channels: int, *, dilation: int, weight_norm: bool = True) -> None:
        super().__init__()
        self.snake1 = Snake1d(channels)
        self.conv1 = Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation, weight_norm=weight_norm)
        self.snake2 = Snake1d(channels)
        self.conv2 = Conv1d(channels, channels, 1, weight_norm=weight_norm, scale=_BRANCH_SCALE)

    def forward(self, x: Float[Tensor, "b c 1 t"]) -> Float[Tensor, "b c 1 t"]:
        return x + self.conv2(self.snake2(self.conv1(self.snake1(x))))


class EncoderBlock(nn.Module):
    """Three residual units and a strided convolution to twice the channels.

    Args:
        channels: channels of the input.
        stride: positions of the input per position of the output.
        weight_norm: as in `Conv1d`.
        bands: what the channels carry at the start; a random start unless given.
    """

    def __init__(self, channels: int, *, stride: int, weight_norm: bool = True, bands: Bands | None = None) -> None:
        super().__init__()
        self.units = nn.ModuleList(ResidualUnit(channels, dilation=dilation, weight_norm=weight_norm) for dilation in DILATIONS)
        self.snake = Snake1d(channels, start=_alpha(bands is not None))
        padding = math.ceil(stride / 2)
        self.down = Conv1d(
            channels,
            2 * channels,
            2 * stride,
            stride=stride,
            padding=padding,
            weight_norm=weight_norm,
            scale=_noise(bands),
            start=_split(bands, stride),
        )

    def forward(self, x: Float[Tensor, "b c 1 t"]) -> Float[Tensor, "b d 1 u"]:
        for unit in self.units:
            x = unit(x)
        return self.down(self.snake(x))


class DecoderBlock(nn.Module):
    """A transposed convolution to half the channels and three residual units.

    Args:
        channels: channels of the input.
        stride: positions of the output per position of the input.
        weight_norm: as in `Conv1d`.
        bands: what the output's channels carry at the start; a random start unless given.
    """

    def __init__(self, channels: int, *, stride: int, weight_norm: bool = True, bands: Bands | None = None) -> None:
        super().__init__()
        self.snake = Snake1d(channels, start=_alpha(bands is not None))
        self.up = ConvTranspose1d(
            channels, channels // 2, stride=stride, weight_norm=weight_norm, scale=_noise(bands), start=_split(bands, stride)
        )
        self.units = nn.ModuleList(ResidualUnit(channels // 2, dilation=dilation, weight_norm=weight_norm) for dilation in DILATIONS)

    def forward(self, x: Float[Tensor, "b c 1 t"]) -> Float[Tensor, "b d 1 u"]:
        x = self.up(self.snake(x))
        for unit in self.units:
            x = unit(x)
        return x


class Encoder(nn.Module):
    """Sound to features, one per latent frame.

    Args:
        audio_channels: channels of a sound.
        width: channels of the first level; each further level has twice as many.
        strides: downsampling of each level.
        patch_size: samples that are folded into channels first.
        weight_norm: as in `Conv1d`.
        filter_bank: start as a filter bank instead of at random.
    """

    def __init__(
        self, *, audio_channels: int, width: int, strides: Sequence[int], patch_size: int, weight_norm: bool, filter_bank: bool
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.out_channels = width * 2 ** len(strides)
        folded = audio_channels * patch_size
        starts = _starts(filter_bank, partial(patch_kernel, audio_channels=audio_channels, patch_size=patch_size))
        self.conv_in = Conv1d(folded, width, 7, padding=3, weight_norm=weight_norm, **starts)
        bands = Bands(min(folded, width), audio_channels) if filter_bank else None
        self.blocks = nn.ModuleList()
        for level, stride in enumerate(strides):
            channels = width * 2**level
            self.blocks.append(EncoderBlock(channels, stride=stride, weight_norm=weight_norm, bands=bands))
            bands = bands and bands.split(stride, 2 * channels)
        self.snake_out = Snake1d(self.out_channels, start=_alpha(filter_bank))
        starts = _starts(filter_bank, identity_kernel)
        self.conv_out = Conv1d(self.out_channels, self.out_channels, 3, padding=1, weight_norm=weight_norm, **starts)

    def forward(self, audio: Float[Tensor, "b a s"]) -> Float[Tensor, "b d 1 t"]:
        x = self.conv_in(fold_samples(audio, self.patch_size))
        for block in self.blocks:
            x = block(x)
        return self.conv_out(self.snake_out(x))


class Decoder(nn.Module):
    """Features, one per latent frame, to sound.

    Args:
        audio_channels: channels of a sound.
        in_channels: channels of the features.
        width: channels of the first level; each further level has half as many.
        strides: upsampling of each level.
        patch_size: samples that are unfolded from channels last.
        weight_norm: as in `Conv1d`.
        filter_bank: start as the transpose of an encoder that starts as a filter bank.
    """

    def __init__(
        self,
        *,
        audio_channels: int,
        in_channels: int,
        width: int,
        strides: Sequence[int],
        patch_size: int,
        weight_norm: bool,
        filter_bank: bool,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.conv_in = Conv1d(in_channels, width, 7, padding=3, weight_norm=weight_norm, **_starts(filter_bank, identity_kernel))
        narrow, folded = width // 2 ** len(strides), audio_channels * patch_size
        bands = Bands(min(folded, narrow), audio_channels) if filter_bank else None
        blocks: list[nn.Module] = []
        for level, stride in enumerate(reversed(strides)):  # from the sound's end, as the bands are split
            channels = narrow * 2 ** (level + 1)
            blocks.append(DecoderBlock(channels, stride=stride, weight_norm=weight_norm, bands=bands))
            bands = bands and bands.split(stride, channels)
        self.blocks = nn.ModuleList(reversed(blocks))
        self.snake_out = Snake1d(narrow, start=_alpha(filter_bank))
        starts = _starts(filter_bank, partial(unpatch_kernel, audio_channels=audio_channels, patch_size=patch_size))
        self.conv_out = Conv1d(narrow, folded, 7, padding=3, weight_norm=weight_norm, **starts)

    def forward(self, x: Float[Tensor, "b d 1 t"]) -> Float[Tensor, "b a s"]:
        x = self.conv_in(x)
        for block in self.blocks:
            x = block(x)
        x = self.snake_out(x)
        # The eight bits of a bf16 sample would be heard as noise.
        with torch.autocast(x.device.type, enabled=False):
            return unfold_samples(torch.tanh(self.conv_out(x.to(self.conv_out.weight.dtype))), self.patch_size)


class CodecNetwork(nn.Module):
    """Encoder, bottleneck and decoder.

    Args:
        audio_channels: channels of a sound, 1 or 2.
        encoder_width: channels of the encoder's first level (64 in DAC).
        decoder_width: channels of the decoder's first level (1536 in DAC).
        strides: downsampling of the encoder's levels, 2 or more each; the decoder has them in reverse.
        latent_channels: channels of the latent (128 in 6.1.3).
        patch_size: samples of a channel that are folded into channels before the first level (1 in DAC).
        weight_norm: keep lengths and directions of kernels apart, as DAC does.
        filter_bank: start as a low-pass filter bank instead of at random; see `filter_bank.py`.

    Raises:
        UsageError: sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        audio_channels: int = 1,
        encoder_width: int = 64,
        decoder_width: int = 1536,
        strides: Sequence[int] = (2, 4, 5, 6, 8),
        latent_channels: int = 128,
        patch_size: int = 1,
        weight_norm: bool = True,
        filter_bank: bool = False,
    ) -> None:
        super().__init__()
        require_at_least(1, encoder_width=encoder_width, decoder_width=decoder_width)
        require_at_least(1, audio_channels=audio_channels, latent_channels=latent_channels)
        if not strides or min(strides) < 2 or patch_size < 1:
            raise UsageError(
                f"strides={list(strides)} and patch_size={patch_size} were given",
                "every level has a stride of 2 or more, and a patch is at least one sample",
                "leave levels without a stride out",
            )
        if decoder_width % 2 ** len(strides):
            parts = 2 ** len(strides)
            raise UsageError(
                f"decoder_width={decoder_width} was given with {len(strides)} strides",
                "each level halves it, down to a whole number",
                f"give a multiple of {parts}, such as {max(1, round(decoder_width / parts)) * parts}",
            )
        common = {"audio_channels": audio_channels, "patch_size": patch_size, "weight_norm": weight_norm, "filter_bank": filter_bank}
        starts = _starts(filter_bank, identity_kernel)
        self.encoder = Encoder(width=encoder_width, strides=strides, **common)
        features = self.encoder.out_channels
        self.to_moments = Conv1d(features, 2 * latent_channels, 1, weight_norm=weight_norm, **_starts(filter_bank, _moments_kernel))
        self.from_latent = Conv1d(latent_channels, features, 1, weight_norm=weight_norm, **starts)
        self.decoder = Decoder(in_channels=features, width=decoder_width, strides=tuple(reversed(strides)), **common)

    def encode(self, audio: Float[Tensor, "b a s"]) -> Float[Tensor, "b two_c t"]:
        """Means and log-variances of the posterior of a sound of whole latent frames."""
        return self.to_moments(self.encoder(audio)).squeeze(2)

    def decode(self, latent: Float[Tensor, "b c t"]) -> Float[Tensor, "b a s"]:
        """Samples, as many as belong to whole latent frames."""
        return self.decoder(self.from_latent(_as_map(latent)))

    def encoder_layers(self) -> list[Geometry]:
        """The layers that widen what a latent frame depends on, in order."""
        return [_fold_geometry(self.encoder.patch_size, transposed=False), *_geometries(self.encoder)]

    def decoder_layers(self) -> list[Geometry]:
        """The layers that widen what a sample depends on, in order."""
        return [*_geometries(self.decoder), _fold_geometry(self.decoder.patch_size, transposed=True)]


def fold_samples(audio: Float[Tensor, "b a s"], patch_size: int) -> Float[Tensor, "b ap 1 t"]:
    """Fold successive samples into channels, in channels-last memory."""
    b, a, s = audio.shape
    folded = audio.view(b, a, s // patch_size, patch_size).permute(0, 2, 1, 3).reshape(b, 1, s // patch_size, a * patch_size).contiguous()
    return folded.permute(0, 3, 1, 2)


def unfold_samples(x: Float[Tensor, "b ap 1 t"], patch_size: int) -> Float[Tensor, "b a s"]:
    """Undo `fold_samples`."""
    b, channels, _, t = x.shape
    return x.view(b, channels // patch_size, patch_size, t).transpose(2, 3).reshape(b, -1, t * patch_size)


def _as_map(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous().unsqueeze(1).permute(0, 3, 1, 2)


def _fold_geometry(patch_size: int, *, transposed: bool) -> Geometry:
    return Geometry(kernel_size=patch_size, stride=patch_size, transposed=transposed)


def _geometries(module: nn.Module) -> list[Geometry]:
    # Modules are registered in the order in which they are applied.
    return [part.geometry for part in module.modules() if isinstance(part, (Conv1d, ConvTranspose1d))]


def _alpha(filter_bank: bool) -> float:
    return _STRAIGHT_ALPHA if filter_bank else 1.0


def _noise(bands: Bands | None) -> float:
    return 1.0 if bands is None else _NOISE_SCALE


def _split(bands: Bands | None, stride: int) -> Start | None:
    if bands is None:
        return None
    return partial(split_kernel, bands=bands, stride=stride, padding=math.ceil(stride / 2))


def _starts(filter_bank: bool, start: Start) -> dict[str, Any]:
    return {"scale": _NOISE_SCALE, "start": start} if filter_bank else {}


def _moments_kernel(shape: tuple[int, int, int]) -> Tensor:
    """Means that pass channels on, and log-variances that do not depend on them."""
    kernel = identity_kernel(shape)
    kernel[shape[0] // 2 :] = 0.0
    return kernel
