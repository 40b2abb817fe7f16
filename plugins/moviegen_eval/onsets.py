"""Onsets: finding where sounds begin in any recording, and comparing two lists of them.

The detector is a spectral flux over logarithmic bands, each measured against its own quiet level, so that a steady noise, however
loud, has little flux and a faint attack over silence has much.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor

from moviegen_core.errors import UsageError
from moviegen_eval.waveforms import HEARING_HZ, as_waveform

HOP = 64  # 4 ms
_WINDOW = 384  # 24 ms
_LAG = 5  # hops between the two frames of a difference: slower attacks than 20 ms have less flux
_NEIGHBOURHOOD = 51  # hops, a fifth of a second
_AROUND = ((-50, -30), (-28, -8), (30, 50))  # ms, around what may be an attack or an end
_QUIETEST = 1e-4  # -80 dB of full scale: what is below is silence
_RANGE_DB = 50.0  # what is this far below the loudest moment is not heard; codecs leave noise there


@dataclass(frozen=True)
class OnsetScore:
    """How well estimated onsets meet the reference; scores of several clips add up to that of all.

    Args:
        num_matched: pairs within the tolerance, one to one.
        num_reference: onsets that should be there.
        num_estimate: onsets that were found.
    """

    num_matched: int = 0
    num_reference: int = 0
    num_estimate: int = 0

    def __add__(self, other: "OnsetScore") -> "OnsetScore":
        return OnsetScore(
            self.num_matched + other.num_matched, self.num_reference + other.num_reference, self.num_estimate + other.num_estimate
        )

    @property
    def precision(self) -> float:
        """Share of the found onsets that should be there; 1 where none was found."""
        return self.num_matched / self.num_estimate if self.num_estimate else 1.0

    @property
    def recall(self) -> float:
        """Share of the reference that was found; 1 where there is none."""
        return self.num_matched / self.num_reference if self.num_reference else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there is nothing to find and nothing was found."""
        total = self.num_reference + self.num_estimate
        return 2 * self.num_matched / total if total else 1.0


def onset_f1(reference: Sequence[float], estimate: Sequence[float], *, tolerance_s: float = 0.04) -> OnsetScore:
    """Compare two lists of onsets under the one-to-one matching that has most pairs.

    Args:
        reference: onsets that should be there, in seconds.
        estimate: onsets that were found, in seconds.
        tolerance_s: how far apart the two of a pair may be, in seconds.
    """
    pairs = match_onsets(reference, estimate, tolerance_s=tolerance_s)
    return OnsetScore(len(pairs), len(reference), len(estimate))


def match_onsets(reference: Sequence[float], estimate: Sequence[float], *, tolerance_s: float = 0.04) -> list[tuple[int, int]]:
    """Indices of matched onsets, as many pairs as there can be."""
    if not tolerance_s >= 0:
        raise UsageError(f"tolerance_s={tolerance_s} was given", "a tolerance is 0 or more seconds", "give 0.04, say")
    if not len(reference) or not len(estimate):
        return []
    apart = abs(np.subtract.outer(np.asarray(reference, float), np.asarray(estimate, float)))
    partners = maximum_bipartite_matching(csr_matrix(apart <= tolerance_s + 1e-9), perm_type="column")
    return [(index, int(partner)) for index, partner in enumerate(partners) if partner >= 0]


def detect_onsets(
    audio: Float[np.ndarray, "..."] | Float[Tensor, "..."],
    audio_hz: int,
    *,
    threshold: float = 3.0,
    low_hz: float = 60.0,
    high_hz: float = 7600.0,
    gap_s: float = 0.07,
) -> list[float]:
    """Find where sounds begin, in seconds; of a sharp attack it is right to a few milliseconds.

    Args:
        audio: a waveform (s,) or (channels, s).
        audio_hz: its samples per second.
        threshold: the least flux above the usual one around it. 1.5 hears faint and slow onsets in dense music, and some in steady noise
            that are none; at 3 steady noise has none; strikes out of silence reach 10 and more.
        low_hz: bands from here on are listened to.
        high_hz: bands up to here.
        gap_s: of onsets nearer than this the strongest counts.
    """
    wave = as_waveform(audio, audio_hz)
    if not len(wave):
        return []
    flux = spectral_flux(wave, low_hz=low_hz, high_hz=high_hz)
    mean = ndimage.median_filter(flux, _NEIGHBOURHOOD, mode="nearest")
    peaks = (flux == ndimage.maximum_filter1d(flux, 2 * _LAG + 1)) & (flux >= threshold + mean)
    chosen: list[int] = []
    for sample in (_attack(wave, int(frame)) for frame in sorted(np.flatnonzero(peaks), key=lambda frame: -flux[frame])):
        if not _stops(wave, sample) and all(abs(sample - other) >= gap_s * HEARING_HZ for other in chosen):
            chosen.append(sample)
    return [sample / HEARING_HZ for sample in sorted(chosen)]


def spectral_flux(wave: np.ndarray, *, low_hz: float = 60.0, high_hz: float = 7600.0) -> np.ndarray:
    """How much the bands' logarithmic levels rise at each hop of 4 ms (t,), of one channel at `HEARING_HZ`."""
    levels = band_levels(wave, low_hz=low_hz, high_hz=high_hz)
    inaudible = max(_QUIETEST, levels.max() * 10 ** (-_RANGE_DB / 20))
    quiet = np.maximum(np.percentile(levels, 25, axis=0), inaudible)
    # A neighbour of the band counts as the band: what glides from one into the next does not begin anew.
    heard = np.log1p(levels / quiet)
    before = ndimage.maximum_filter1d(np.concatenate([heard[:1].repeat(_LAG, 0), heard[:-_LAG]])[: len(heard)], 3, axis=1)
    return np.sqrt((np.maximum(heard - before, 0.0) ** 2).sum(1))


def band_levels(wave: np.ndarray, *, low_hz: float, high_hz: float, window: int = _WINDOW, per_octave: int = 6) -> np.ndarray:
    """Amplitudes in bands of equal width on the logarithmic scale, hop by hop (t, bands); frame i is centred at sample i · HOP."""
    # Mirrored ends: a sound that is on from the start has no onset there.
    mode = "reflect" if len(wave) > window else "constant"
    padded = np.pad(wave, (window // 2, window // 2 + window), mode=mode)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: len(wave) + 1 : HOP]
    taper = np.hanning(window + 1)[:-1]
    power = abs(np.fft.rfft(frames * (2.0 * taper / taper.sum()), axis=1)) ** 2
    return np.sqrt(power @ _bands(window, low_hz, high_hz, per_octave))


def _bands(window: int, low_hz: float, high_hz: float, per_octave: int) -> np.ndarray:
    """Which bin belongs to which band (bins, bands), triangles between neighbouring centres, each at least a bin wide."""
    bins = np.fft.rfftfreq(window, 1.0 / HEARING_HZ)
    count = max(int(np.log2(high_hz / low_hz) * per_octave), 1)
    centres = low_hz * 2.0 ** (np.arange(count + 1) / per_octave)
    width = np.maximum(centres * (2.0 ** (1.0 / per_octave) - 1.0), HEARING_HZ / window)
    return np.maximum(1.0 - abs(bins[:, None] - centres) / width, 0.0)


def _attack(wave: np.ndarray, frame: int) -> int:
    """The sample at which the power near a frame has risen by a fifth of its way to the peak."""
    before, after = round(0.03 * HEARING_HZ), round(0.02 * HEARING_HZ)
    first = max(frame * HOP - before, 0)
    part = wave[max(first - 256, 0) : frame * HOP + after]
    # A first difference is high-pass enough to keep hum and music out of the power.
    power = ndimage.uniform_filter1d(np.diff(part, prepend=part[:1]) ** 2, 32)[first - max(first - 256, 0) :]
    if not len(power) or not power.max() > 0:
        return frame * HOP
    peak = int(power.argmax())
    floor = np.median(power[: max(peak // 2, 1)]) if peak > 1 else 0.0
    below = np.flatnonzero(power[: peak + 1] < floor + 0.2 * (power[peak] - floor))
    return first + (int(below[-1]) + 1 if len(below) else 0)


def _stops(wave: np.ndarray, sample: int) -> bool:
    """True where a sound is cut off: that has flux too."""
    # Its flux begins half a window before the end, and codecs smear it by as much again; what comes before an attack they smear too.
    milliseconds = HEARING_HZ // 1000
    spans = [(max(sample + first * milliseconds, 0), max(sample + last * milliseconds, 0)) for first, last in _AROUND]
    before, just_before, after = (float((np.diff(wave[first:last]) ** 2).sum()) for first, last in spans)
    return after < 0.25 * min(before, just_before)
