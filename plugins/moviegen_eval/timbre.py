"""Naming a knock of the toy world: the bands' levels after its attack, correlated with those of every shape and size."""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from moviegen_data.toyworld import SHAPES, SIZES, TIMBRES, knock
from moviegen_eval.onsets import HOP, band_levels
from moviegen_eval.waveforms import HEARING_HZ, as_waveform

LEAST_HZ, MOST_HZ = 450.0, 7600.0
_WINDOW, _PER_OCTAVE = 512, 8
_STEP = 2  # hops between the columns of a picture
_COLUMNS = 26  # of 8 ms: a fifth of a second
_LEAST_COLUMNS = 6
_SHIFTS = range(-3, 4)  # hops by which an onset may be wrong
LEAST_CORRELATION = 0.8
PITCHES = {"small": "high", "large": "low"}


@dataclass(frozen=True)
class KnockReading:
    """What a knock sounds like; "none" where it is no knock of the toy world.

    Args:
        timbre: one of the timbres.
        pitch: "high" or "low".
        confidence: of the timbre, "none" included, 0 to 1.
        correlation: with the best template, 0 to 1.
    """

    timbre: str
    pitch: str
    confidence: float
    correlation: float


def read_knock(levels: np.ndarray, onset: float, *, until: float) -> KnockReading:
    """Name the knock at `onset`, in hops, by the levels of a sound (t, bands); another begins, or the sound ends, at `until`."""
    scores = np.zeros((len(SHAPES), len(SIZES)))
    for shift in _SHIFTS:
        first = round(onset) + shift
        columns = min(_COLUMNS, int((until - first - 3) / _STEP))
        if columns < _LEAST_COLUMNS or first < 0:
            continue
        picture = _compress(levels[first : first + _STEP * columns : _STEP], _background(levels, first))
        found = [_correlate(picture, template[: len(picture)]) for template in _templates()]
        scores = np.maximum(scores, np.array(found).reshape(scores.shape))
    by_shape = scores.max(1)
    order = np.argsort(-by_shape)
    best, next_best = by_shape[order[0]], by_shape[order[1]]
    if best < LEAST_CORRELATION:
        return KnockReading("none", "none", float(np.clip((LEAST_CORRELATION - best) / 0.2, 0, 1)), float(best))
    size = tuple(SIZES)[int(scores[order[0]].argmax())]
    return KnockReading(TIMBRES[SHAPES[order[0]]], PITCHES[size], float(np.clip((best - next_best) / 0.15, 0, 1)), float(best))


def knock_levels(wave: np.ndarray) -> np.ndarray:
    """The levels that knocks are named by (t, bands), of one channel at `HEARING_HZ`."""
    return band_levels(wave, low_hz=LEAST_HZ, high_hz=MOST_HZ, window=_WINDOW, per_octave=_PER_OCTAVE)


def _background(levels: np.ndarray, first: int) -> np.ndarray:
    """Levels of what was there before: just before, or where the knock comes at once, the quiet moments of the whole sound."""
    before = levels[max(first - 50, 0) : max(first - 6, 0)]
    return np.median(before, axis=0) if len(before) >= 15 else np.percentile(levels, 20, axis=0)


def _compress(levels: np.ndarray, background: np.ndarray) -> np.ndarray:
    """What stands out of the background, faint parts raised."""
    return np.maximum(levels**2 - (2.0 * background) ** 2, 0.0) ** 0.25


@cache
def _templates() -> tuple[np.ndarray, ...]:
    """Every shape and size, flat over both; noise is the mean over several draws."""
    return tuple(np.mean([_template(shape, size, seed) for seed in range(8 if TIMBRES[shape] == "burst" else 1)], axis=0)
                 for shape, size in product(SHAPES, SIZES))  # fmt: skip


def _template(shape: str, size: str, seed: int) -> np.ndarray:
    hz = 3 * HEARING_HZ
    sound = np.concatenate([np.zeros(hz // 5), knock(shape, size, audio_hz=hz, seed=seed), np.zeros(hz // 5)])
    first = HEARING_HZ // 5 // HOP
    picture = knock_levels(as_waveform(sound, hz))[first : first + _STEP * _COLUMNS : _STEP]
    return _compress(picture, np.zeros(picture.shape[1]))


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-12))
