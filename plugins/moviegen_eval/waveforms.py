"""Waveforms of any form and rate as one channel at the rate that the ears of this package listen at."""

from math import gcd

import numpy as np
from scipy.signal import resample_poly
from torch import Tensor

from moviegen_core.errors import UsageError

HEARING_HZ = 16000
LEAST_HZ = 4000


def as_waveform(audio: np.ndarray | Tensor, audio_hz: int) -> np.ndarray:
    """Mix down to one channel at `HEARING_HZ` (s,).

    Args:
        audio: (s,) or (channels, s), any float or integer type; floats are in [-1, 1].
        audio_hz: its samples per second, at least 4000.

    Raises:
        UsageError: the rate is too low, the shape is of no sound, or it holds NaN or infinite values, which nobody can hear.
    """
    if audio_hz < LEAST_HZ:
        raise UsageError(f"a sound of {audio_hz} samples per second was given", f"listening needs {LEAST_HZ} or more", "resample it first")
    values = audio.detach().cpu().float().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[0] > values.shape[1] > 0):
        given = f"a sound of shape {tuple(values.shape)} was given"
        raise UsageError(given, "a sound is (samples,) or (channels, samples)", "move the axes or pass one sample of the batch")
    scale = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else 1.0
    values = values.astype(np.float64) / scale
    if not np.isfinite(values).all():
        given = f"a sound of shape {tuple(values.shape)} was given"
        raise UsageError(given, "it holds NaN or infinite values", "look at the model or the file that it comes from")
    mono = values.mean(0) if values.ndim == 2 else values
    if audio_hz == HEARING_HZ or not len(mono):
        return mono
    shared = gcd(audio_hz, HEARING_HZ)
    return resample_poly(mono, HEARING_HZ // shared, audio_hz // shared)
