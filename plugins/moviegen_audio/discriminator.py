"""Discriminators of DAC: periods of the waveform, and bands of complex spectra at several window lengths.

Each gives its feature maps, the last of which is a map of scores.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moviegen_audio.spectral import stft
from moviegen_core.errors import UsageError, require_at_least

_SLOPE = 0.1


class PeriodDiscriminator(nn.Module):
    """Sees every `period`-th sample side by side: convolutions along time, shared by the phases.

    Args:
        audio_channels: channels of a sound.
        period: samples of a period.
        base_channels: channels of the first layer (32 in DAC); the others have 4, 16, 32 and 32 times as many.
    """

    def __init__(self, *, audio_channels: int, period: int, base_channels: int = 32) -> None:
        super().__init__()
        self.period = period
        widths = [audio_channels, *(base_channels * multiple for multiple in (1, 4, 16, 32, 32))]
        strides = (3, 3, 3, 3, 1)
        self.layers = nn.ModuleList(
            _normed(nn.Conv2d(i, o, (5, 1), (stride, 1), padding=(2, 0)))
            for i, o, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.score = _normed(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, audio: Float[Tensor, "b a s"]) -> list[Tensor]:
        """Feature maps; scores last."""
        x = F.pad(audio, (0, -audio.shape[-1] % self.period)).unflatten(-1, (-1, self.period))
        return _features(x, self.layers, self.score)


class BandDiscriminator(nn.Module):
    """Sees real and imaginary parts of spectra of one window length; each band of frequencies has its own convolutions.

    Args:
        audio_channels: channels of a sound.
        window: window length in samples; the hop is a quarter of it.
        bands: borders of the bands as shares of half the rate.
        channels: channels of all layers (32 in DAC).
    """

    def __init__(
        self, *, audio_channels: int, window: int, bands: Sequence[float] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0), channels: int = 32
    ) -> None:
        super().__init__()
        self.window = window
        size = window // 2 + 1
        self.borders = [int(share * size) for share in bands]
        if any(last <= first for first, last in pairwise(self.borders)):
            raise UsageError(
                f"a discriminator's window of {window} samples was given",
                f"of its {size} frequencies none is left for some of the bands {list(bands)}",
                "give longer windows, e.g. 512",
            )
        shapes = [((3, 9), (1, 1)), *[((3, 9), (1, 2))] * 3, ((3, 3), (1, 1))]
        self.bands = nn.ModuleList()
        for _ in self.borders[1:]:
            width, layers = 2 * audio_channels, nn.ModuleList()
            for kernel, stride in shapes:
                layers.append(_normed(nn.Conv2d(width, channels, kernel, stride, padding=(kernel[0] // 2, kernel[1] // 2))))
                width = channels
            self.bands.append(layers)
        self.score = _normed(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, audio: Float[Tensor, "b a s"]) -> list[Tensor]:
        """Feature maps of all bands, one band after the other; scores last."""
        spectra = stft(audio, window=self.window)
        x = torch.cat([spectra.real, spectra.imag], dim=1).transpose(2, 3)
        maps, ends = [], []
        for layers, first, last in zip(self.bands, self.borders[:-1], self.borders[1:], strict=True):
            *inner, end = _features(x[..., first:last], layers, None)
            maps += [*inner, end]
            ends.append(end)
        return [*maps, self.score(torch.cat(ends, dim=-1))]


class SoundDiscriminator(nn.Module):
    """DAC's ensemble: five periods and three window lengths with bands.

    Every sound loses its mean and is scaled to a peak of 0.8 first, as in DAC, so that loudness is not judged.

    Args:
        audio_channels: channels of a sound.
        periods: periods in samples (2, 3, 5, 7, 11).
        windows: window lengths in samples (2048, 1024, 512).
        period_channels: channels of the first layer of each period discriminator (32).
        band_channels: channels of the band discriminators (32).

    Raises:
        UsageError: there is nothing that judges, or a size that nothing can be made of.
    """

    def __init__(
        self,
        audio_channels: int = 1,
        *,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        windows: Sequence[int] = (2048, 1024, 512),
        period_channels: int = 32,
        band_channels: int = 32,
    ) -> None:
        super().__init__()
        if not (periods or windows) or min(periods, default=1) < 1:
            raise UsageError(
                f"periods={list(periods)} and windows={list(windows)} were given to SoundDiscriminator",
                "it has at least one of either, and a period is at least one sample",
                "give e.g. [2, 3, 5] and [512], or no discriminator",
            )
        require_at_least(1, period_channels=period_channels, band_channels=band_channels)
        self.parts = nn.ModuleList(
            PeriodDiscriminator(audio_channels=audio_channels, period=period, base_channels=period_channels) for period in periods
        )
        self.parts.extend(BandDiscriminator(audio_channels=audio_channels, window=window, channels=band_channels) for window in windows)

    def forward(self, audio: Float[Tensor, "b a s"]) -> list[list[Tensor]]:
        """Feature maps of every part; scores last."""
        audio = audio.float()
        audio = audio - audio.mean(-1, keepdim=True)
        audio = 0.8 * audio / (audio.abs().amax((1, 2), keepdim=True) + 1e-9)
        return [part(audio) for part in self.parts]


def _normed(convolution: nn.Conv2d) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(convolution)


def _features(x: Tensor, layers: nn.ModuleList, score: nn.Module | None) -> list[Tensor]:
    maps = []
    for layer in layers:
        x = F.leaky_relu(layer(x), _SLOPE)
        maps.append(x)
    return maps if score is None else [*maps, score(x)]
