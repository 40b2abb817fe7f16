"""Short-time spectra, mel filters, and the distances between two sounds that are built on them.

Shape legend: b sounds, a channels, s samples, f frequencies, m mel bands, n windows. All is computed in float32.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from moviegen_core.errors import UsageError

# The Slaney scale: linear below 1 kHz, logarithmic above, 27 mel from 1 to 6.4 kHz.
_LINEAR_HZ, _BREAK_HZ, _MELS_PER_E = 200.0 / 3.0, 1000.0, 27.0 / math.log(6.4)
LOG_FLOOR = 1e-5  # DAC's


def stft(audio: Float[Tensor, "b a s"], *, window: int, hop: int | None = None) -> Complex[Tensor, "b a f n"]:
    """Spectra of overlapping Hann windows, centred at multiples of the hop (a quarter of the window unless given).

    The ends are mirrored as the original does, or filled with zeros where the sound is too short for that.
    """
    mode = "reflect" if audio.shape[-1] > window // 2 else "constant"
    spectra = torch.stft(
        audio.float().flatten(0, 1),
        window,
        hop_length=hop or window // 4,
        window=torch.hann_window(window, device=audio.device),
        center=True,
        pad_mode=mode,
        return_complex=True,
    )
    return spectra.unflatten(0, audio.shape[:2])


def require_windows(name: str, windows: Sequence[int]) -> None:
    """Refuse window lengths that `stft` cannot take: none at all, or below 4 samples, a quarter of which is no hop.

    Raises:
        UsageError: they are.
    """
    if not windows or min(windows) < 4:
        raise UsageError(
            f"{name}={list(windows)} was given",
            "there is at least one window, of 4 samples or more",
            "give e.g. [512, 2048], or turn the loss off",
        )


@lru_cache(maxsize=64)
def mel_filters(*, num_bands: int, window: int, sample_rate: int) -> Float[Tensor, "m f"]:
    """Triangular filters, equally spaced on the Slaney mel scale from 0 Hz to half the rate, each of unit area."""
    highest = _hz_to_mel(torch.tensor(sample_rate / 2.0, dtype=torch.float64))
    corners = _mel_to_hz(torch.linspace(0.0, float(highest), num_bands + 2, dtype=torch.float64))
    bins = torch.linspace(0.0, sample_rate / 2.0, window // 2 + 1, dtype=torch.float64)
    lower, centre, upper = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    return (torch.minimum(rising, falling).clamp_min(0.0) * 2.0 / (upper - lower)).float()


def _hz_to_mel(hz: Tensor) -> Tensor:
    above = _BREAK_HZ / _LINEAR_HZ + torch.log(hz.clamp_min(1.0) / _BREAK_HZ) * _MELS_PER_E
    return torch.where(hz < _BREAK_HZ, hz / _LINEAR_HZ, above)


def _mel_to_hz(mel: Tensor) -> Tensor:
    first = _BREAK_HZ / _LINEAR_HZ
    return torch.where(mel < first, mel * _LINEAR_HZ, _BREAK_HZ * torch.exp((mel - first) / _MELS_PER_E))


class MelDistance(nn.Module):
    """Mean absolute difference of log10 mel spectra, summed over window lengths.

    Args:
        sample_rate: samples per second.
        windows: window lengths in samples; hops are a quarter of them (DAC: 32 to 2048).
        num_bands: mel bands of each (DAC: 5 to 320).
        log_floor: smallest magnitude that is told apart; a higher one lets silence weigh less (DAC: 1e-5).
    """

    def __init__(
        self,
        *,
        sample_rate: int = 48000,
        windows: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048),
        num_bands: Sequence[int] = (5, 10, 20, 40, 80, 160, 320),
        log_floor: float = LOG_FLOOR,
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.log_floor = log_floor
        self.scales = tuple(zip(windows, num_bands, strict=True))

    def forward(self, ours: Float[Tensor, "b a s"], target: Float[Tensor, "b a s"]) -> Float[Tensor, ""]:
        """The distance."""
        total = torch.zeros((), device=ours.device)
        for window, bands in self.scales:
            one, other = (self._log_mel(audio, window, bands) for audio in (ours, target))
            total = total + F.l1_loss(one, other)
        return total

    def _log_mel(self, audio: Tensor, window: int, bands: int) -> Tensor:
        filters = mel_filters(num_bands=bands, window=window, sample_rate=self.sample_rate).to(audio.device)
        with torch.autocast(audio.device.type, enabled=False):
            return (filters @ magnitude(stft(audio, window=window))).clamp_min(self.log_floor).log10()


class StftDistance(nn.Module):
    """Mean absolute difference of magnitudes and of their log10 squares, summed over window lengths.

    Args:
        windows: window lengths in samples; hops are a quarter of them (DAC: 2048 and 512).
        log_floor: smallest magnitude that is told apart (DAC: 1e-5).
    """

    def __init__(self, *, windows: Sequence[int] = (2048, 512), log_floor: float = LOG_FLOOR) -> None:
        super().__init__()
        self.windows = tuple(windows)
        self.log_floor = log_floor

    def forward(self, ours: Float[Tensor, "b a s"], target: Float[Tensor, "b a s"]) -> Float[Tensor, ""]:
        """The distance."""
        total = torch.zeros((), device=ours.device)
        for window in self.windows:
            one, other = (magnitude(stft(audio, window=window)) for audio in (ours, target))
            total = (
                total
                + F.l1_loss(one, other)
                + 2.0 * F.l1_loss(one.clamp_min(self.log_floor).log10(), other.clamp_min(self.log_floor).log10())
            )
        return total


def magnitude(spectra: Complex[Tensor, "b a f n"]) -> Float[Tensor, "b a f n"]:
    """Absolute values with a gradient that stays finite at zero."""
    return (spectra.real.square() + spectra.imag.square()).clamp_min(1e-14).sqrt()
