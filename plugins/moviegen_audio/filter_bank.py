"""A start that already passes sound: kernels that are a cascade of block cosine transforms which keep the lowest frequencies.

A freshly drawn codec turns sound into noise, and learns for long before its output has anything to do with its input. One whose resampling
convolutions start as an orthonormal transform (and its decoder as the transpose) starts as a low-pass filter: as many of the lowest bands
come through as there are channels at the narrowest place. DAC starts at random; nothing else differs.

Bands are channels in the order of their frequencies. A band of a decimated signal has its spectrum reversed where its number is odd.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bands:
    """What the first channels carry at the start; the others carry nothing.

    Args:
        count: channels that carry a band.
        audio_channels: channels of the sound, whose bands of one frequency lie side by side.
    """

    count: int
    audio_channels: int = 1

    def split(self, stride: int, limit: int) -> "Bands":
        """The bands after each was split into `stride` narrower ones, of which the lowest are kept."""
        return Bands(min(self.count * stride, limit), self.audio_channels)

    def kept(self, stride: int, limit: int) -> list[tuple[int, int]]:
        """For every narrower band that is kept, lowest first: its wide band and the number of its cosine."""
        a = self.audio_channels
        pairs = [(band, cosine) for band in range(self.count) for cosine in range(stride)]

        def frequency(pair: tuple[int, int]) -> tuple[float, int]:
            band, cosine = pair
            return band // a + (cosine if band // a % 2 == 0 else stride - 1 - cosine) / stride, band % a

        return sorted(pairs, key=frequency)[:limit]


def cosines(size: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II): a row per frequency."""
    positions = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi / size * positions[:, None] * (positions + 0.5)) * (2.0 / size) ** 0.5
    rows[0] *= 0.5**0.5
    return rows.float()


def split_kernel(shape: tuple[int, int, int], *, bands: Bands, stride: int, padding: int) -> Tensor:
    """Kernel (narrow, wide, taps) that splits bands; as the kernel of a transposed convolution it joins them."""
    kernel, rows = torch.zeros(shape), cosines(stride)
    for narrow, (wide, cosine) in enumerate(bands.kept(stride, shape[0])):
        kernel[narrow, wide, padding : padding + stride] = rows[cosine]
    return kernel


def patch_kernel(shape: tuple[int, int, int], *, audio_channels: int, patch_size: int) -> Tensor:
    """Kernel (bands, folded samples, taps) that splits patches of samples into bands at its middle tap."""
    kernel, rows = torch.zeros(shape), cosines(patch_size)
    for band in range(min(shape[0], audio_channels * patch_size)):
        cosine, channel = divmod(band, audio_channels)
        kernel[band, channel * patch_size : (channel + 1) * patch_size, shape[2] // 2] = rows[cosine]
    return kernel


def unpatch_kernel(shape: tuple[int, int, int], *, audio_channels: int, patch_size: int) -> Tensor:
    """The transpose of `patch_kernel`."""
    transposed = (shape[1], shape[0], shape[2])
    return patch_kernel(transposed, audio_channels=audio_channels, patch_size=patch_size).transpose(0, 1)


def identity_kernel(shape: tuple[int, int, int]) -> Tensor:
    """Kernel (o, i, taps) that passes channels on."""
    kernel = torch.zeros(shape)
    kernel[:, :, shape[2] // 2].fill_diagonal_(1.0)
    return kernel
