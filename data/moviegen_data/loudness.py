"""Loudness by ITU-R BS.1770-4, peaks and silence, and bringing sounds to one level.

Shapes: sounds are float in [-1, 1], (a, s).
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.signal import lfilter, resample_poly

from moviegen_core.errors import UsageError

Normalize = Literal["none", "peak", "loudness"]
SILENCE_DB = -60.0
LOWEST_DB = -120.0  # a level below it is a slip of the pen
# Defaults: EBU R 128's programme loudness, and its highest true peak.
TARGETS_DB = {"peak": -1.0, "loudness": -23.0}
_CEILING_DB = -1.0
_ABSOLUTE_GATE, _RELATIVE_GATE_DB = -70.0, -10.0
_STEP_S, _STEPS_PER_BLOCK = 0.1, 4
# Left, right, centre, bass (not heard by the measure), and the surrounds, 1.5 dB louder.
_WEIGHTS = {5: (1.0, 1.0, 1.0, 1.41, 1.41), 6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41)}


def k_weighting(hz: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numerators and denominators of the two filters of BS.1770 (a shelf for the head, and a high pass), for any rate.

    The standard prints them for 48 kHz; these are the analogue filters behind those numbers, by the bilinear transform.
    """
    k, q, gain = math.tan(math.pi * 1681.974450955533 / hz), 0.7071752369554196, 10.0 ** (3.999843853973347 / 20.0)
    edge = gain**0.4996667741545416
    norm = 1.0 + k / q + k * k
    above = np.array([gain + edge * k / q + k * k, 2.0 * (k * k - gain), gain - edge * k / q + k * k]) / norm
    below = np.array([norm, 2.0 * (k * k - 1.0), 1.0 - k / q + k * k]) / norm
    k, q = math.tan(math.pi * 38.13547087602444 / hz), 0.5003270373238773
    norm = 1.0 + k / q + k * k
    return [(above, below), (np.array([1.0, -2.0, 1.0]), np.array([norm, 2.0 * (k * k - 1.0), 1.0 - k / q + k * k]) / norm)]


class SoundMeter:
    """Measures a sound that comes in pieces of any length.

    Args:
        audio_hz: samples per second.
        num_channels: channels; five and six are taken for 5.0 and 5.1 in libav's order.
    """

    def __init__(self, *, audio_hz: int, num_channels: int) -> None:
        self.audio_hz, self.num_channels = audio_hz, num_channels
        self.num_samples, self.peak = 0, 0.0
        self._weights = np.asarray(_WEIGHTS.get(num_channels, (1.0,) * num_channels))
        self._filters = k_weighting(audio_hz)
        self._states = [np.zeros((num_channels, 2)) for _ in self._filters]
        self._step = max(1, round(_STEP_S * audio_hz))
        self._rest = np.zeros((2, num_channels, 0))
        self._heard: list[np.ndarray] = []  # mean square of every step, weighted over channels
        self._levels: list[np.ndarray] = []  # mean square of every step's loudest channel, as it is

    def add(self, audio: Float[np.ndarray, "a s"]) -> None:
        """Take the next piece."""
        if not audio.shape[1]:
            return
        self.num_samples += audio.shape[1]
        self.peak = max(self.peak, float(np.abs(audio).max()))
        filtered = np.asarray(audio, dtype=np.float64)
        raw = filtered
        for number, (above, below) in enumerate(self._filters):
            filtered, self._states[number] = lfilter(above, below, filtered, axis=1, zi=self._states[number])
        both = np.concatenate([self._rest, np.stack([filtered, raw])], axis=2)
        whole = both.shape[2] // self._step
        steps = np.square(both[:, :, : whole * self._step].reshape(2, self.num_channels, whole, self._step)).mean(3)
        self._rest = both[:, :, whole * self._step :]
        self._heard.append(self._weights @ steps[0])
        self._levels.append(steps[1].max(0))

    @property
    def loudness(self) -> float:
        """Integrated loudness in LUFS; -inf of silence. Of less than 0.4 s, where the standard has no block, that of the whole."""
        steps = np.concatenate([np.zeros(0), *self._heard])
        if len(steps) < _STEPS_PER_BLOCK:
            rest = np.square(self._rest[0]).sum(1) @ self._weights if self._rest.shape[2] else 0.0
            power = (steps.sum() * self._step + rest) / max(1, self.num_samples)
            return _lufs(power)
        blocks = np.lib.stride_tricks.sliding_window_view(steps, _STEPS_PER_BLOCK).mean(1)
        loud = blocks[blocks > _power(_ABSOLUTE_GATE)]
        if not len(loud):
            return -math.inf
        return _lufs(loud[loud > loud.mean() * 10.0 ** (_RELATIVE_GATE_DB / 10.0)].mean())

    @property
    def silence(self) -> float:
        """Share of the time, in steps of 0.1 s, whose loudest channel's RMS is below -60 dB; 1 for an empty sound."""
        levels = [*self._levels, np.square(self._rest[1]).mean(1).max(keepdims=True)] if self._rest.shape[2] else self._levels
        spans = np.full(sum(len(some) for some in levels), float(self._step))
        if self._rest.shape[2]:
            spans[-1] = self._rest.shape[2]
        if not len(spans):
            return 1.0
        silent = np.concatenate(levels) < 10.0 ** (SILENCE_DB / 10.0)
        return float(spans[silent].sum() / spans.sum())


def loudness(audio: Float[np.ndarray, "a s"], audio_hz: int) -> float:
    """Integrated loudness in LUFS (BS.1770-4); -inf of silence."""
    meter = SoundMeter(audio_hz=audio_hz, num_channels=len(audio))
    meter.add(audio)
    return meter.loudness


def true_peak_db(audio: Float[np.ndarray, "a s"]) -> float:
    """Highest level between the samples too, in dB of full scale: the peak after fourfold oversampling (BS.1770-4, annex 2)."""
    if not audio.size:
        return -math.inf
    peak = max(float(np.abs(audio).max()), float(np.abs(resample_poly(audio, 4, 1, axis=1)).max()))
    return 20.0 * math.log10(peak) if peak > 0.0 else -math.inf


def gain(audio: Float[np.ndarray, "a s"], audio_hz: int, how: Normalize, target_db: float | None = None) -> float:
    """Factor that brings a sound to a level; 1 for silence.

    Args:
        audio: waveform.
        audio_hz: its samples per second.
        how: `peak` sets the highest sample, `loudness` the integrated loudness; the latter gives way where the true peak would pass
            -1 dB, so that nothing is clipped.
        target_db: dB of full scale (peak), -1 unless given; or LUFS (loudness), -23 unless given.

    Raises:
        UsageError: the target is above 0.
    """
    if how == "none":
        return 1.0
    target = TARGETS_DB[how] if target_db is None else target_db
    if not target <= 0.0:
        raise UsageError(f"normalize={how} was given with {target} dB", "full scale is 0 dB", "give a level of 0 or below, e.g. -23")
    if how == "peak":
        peak = float(np.abs(audio).max(initial=0.0))
        return 10.0 ** (target / 20.0) / peak if peak > 0.0 else 1.0
    level = loudness(audio, audio_hz)
    return 10.0 ** (min(target - level, _CEILING_DB - true_peak_db(audio)) / 20.0) if math.isfinite(level) else 1.0


def _lufs(power: float) -> float:
    return -0.691 + 10.0 * math.log10(power) if power > 0.0 else -math.inf


def _power(lufs: float) -> float:
    return 10.0 ** ((lufs + 0.691) / 10.0)
