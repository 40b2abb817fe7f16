"""Waveforms of any form and rate as one channel at the rate that the ears of this package listen at."""

from math import gcd
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from scipy.signal import resample_poly
from torch import Tensor

from moviegen_core.errors import UsageError

HEARING_HZ = 16000
LEAST_HZ = 4000


def as_waveform(audio: np.ndarray | Tensor, audio_hz: int) -> np.ndarray:
    """Mix down to one channel at `HEARING_HZ` (s,); what is not finite becomes silence.

    Args:
        audio: (s,) or (channels, s), any float or integer type; floats are in [-1, 1].
        audio_hz: its samples per second, at least 4000.
    """
    if audio_hz < LEAST_HZ:
        raise UsageError(f"a sound of {audio_hz} samples per second was given", f"listening needs {LEAST_HZ} or more", "resample it first")
    values = audio.detach().cpu().float().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[0] > values.shape[1] > 0):
        given = f"a sound of shape {tuple(values.shape)} was given"
        raise UsageError(given, "a sound is (samples,) or (channels, samples)", "move the axes or pass one sample of the batch")
    scale = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else 1.0
    values = np.nan_to_num(values.astype(np.float64) / scale, nan=0.0, posinf=0.0, neginf=0.0)
    mono = values.mean(0) if values.ndim == 2 else values
    if audio_hz == HEARING_HZ or not len(mono):
        return mono
    shared = gcd(audio_hz, HEARING_HZ)
    return resample_poly(mono, HEARING_HZ // shared, audio_hz // shared)


def read_waveform(path: Path) -> tuple[np.ndarray, int]:
    """Decode the sound of a file, (channels, s) and its rate.

    Raises:
        UsageError: there is no sound in it, or it cannot be read.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise UsageError(f"{path} was given", "it has no sound", "give files with sound")
            stream = container.streams.audio[0]
            resampler = AudioResampler(format="fltp")
            frames = [part for frame in container.decode(stream) for part in resampler.resample(frame)]
            frames += resampler.resample(None)
            parts = [frame.to_ndarray() for frame in frames]
            return np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32), stream.rate
    except av.FFmpegError as error:
        raise UsageError(f"{path} was given", f"it cannot be decoded ({error})", "check the file") from error
