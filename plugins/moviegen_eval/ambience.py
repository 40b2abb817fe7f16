"""Naming the ambience of a toy scene by the band that it alone fills, and hearing whether music plays, where no knock sounds."""

import numpy as np

from moviegen_eval.waveforms import HEARING_HZ

# Hz; inside the bands that the toy world renders, with room for leakage. What lies between them tells the level of any other noise.
BANDS = {"hum": (48.0, 72.0), "murmur": (400.0, 600.0), "wind": (950.0, 1450.0), "fan": (1950.0, 2750.0), "air": (4100.0, 6900.0)}
_BETWEEN = ((690.0, 850.0), (1560.0, 1840.0), (2900.0, 3800.0), (7100.0, 7700.0))
_MUSIC = (110.0, 350.0)
_WINDOW = HEARING_HZ // 5
_KNOCK = round(0.26 * HEARING_HZ)  # how long a knock sounds
_BEFORE = round(0.01 * HEARING_HZ)
SILENT_RMS = 1e-3  # -60 dB of full scale
_LEAST_EXCESS = 5.0  # of power, over what lies between the bands and over the next band
_LEAST_FLATNESS = 0.1  # geometric over arithmetic mean of the power in a band: 1 of even noise, near 0 of a tone
_LEAST_MUSIC_RMS = 5e-3


def read_ambience(wave: np.ndarray, onsets: np.ndarray) -> tuple[str, float, bool]:
    """Kind of ambience, or "silence", or "none" where it cannot be told; a confidence, 0 to 1; and whether music plays.

    Args:
        wave: one channel at `HEARING_HZ` (s,).
        onsets: where knocks begin, in samples.
    """
    power = _free_power(wave, onsets)
    if power is None:
        return "none", 1.0, False
    plays = bool(np.sqrt(_sum(power, _MUSIC)) > _LEAST_MUSIC_RMS)
    if np.sqrt(_sum(power, (40.0, 7900.0)) - _sum(power, _MUSIC)) < SILENT_RMS:
        return "silence", 1.0, plays
    densities = {name: _sum(power, band) / (band[1] - band[0]) for name, band in BANDS.items()}
    other = np.median([_sum(power, band) / (band[1] - band[0]) for band in _BETWEEN])
    (best, most), (_, next_most) = sorted(densities.items(), key=lambda item: -item[1])[:2]
    excess = most / max(other, next_most, 1e-16)
    if best != "hum" and _flatness(power, BANDS[best]) < _LEAST_FLATNESS:
        return "none", 1.0, plays
    confidence = float(np.clip(abs(np.log10(excess / _LEAST_EXCESS)), 0.0, 1.0))
    return (best if excess >= _LEAST_EXCESS else "none"), confidence, plays


def _free_power(wave: np.ndarray, onsets: np.ndarray) -> np.ndarray | None:
    """Mean power by frequency where no knock sounds, None where there is too little of that."""
    starts = np.arange(0, len(wave) - _WINDOW + 1, _WINDOW // 4)
    for onset in onsets:
        starts = starts[(starts + _WINDOW < onset - _BEFORE) | (starts > onset + _KNOCK)]
    if not len(starts):
        return None
    taper = np.hanning(_WINDOW)
    spectra = np.fft.rfft(np.stack([wave[start : start + _WINDOW] for start in starts]) * taper, axis=1)
    return 2.0 * (abs(spectra) ** 2).mean(0) / (_WINDOW * (taper**2).sum())


def _sum(power: np.ndarray, band: tuple[float, float]) -> float:
    return float(_within(power, band).sum())


def _flatness(power: np.ndarray, band: tuple[float, float]) -> float:
    inside = _within(power, band) + 1e-20
    return float(np.exp(np.log(inside).mean()) / inside.mean())


def _within(power: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    first, last = (round(edge * _WINDOW / HEARING_HZ) for edge in band)
    return power[first : last + 1]
