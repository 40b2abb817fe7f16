"""Opus as the yardstick: code a sound at a bit rate, decode it, and count the bits."""

import io
from dataclasses import dataclass

import av
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_core.errors import UsageError

RATES_HZ = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True)
class OpusResult:
    """A sound after Opus.

    Args:
        audio: what is decoded (a, s), as long as the original and aligned with it.
        bits_per_second: bits of all packets over the sound's duration, the container left out.
    """

    audio: Float[Tensor, "a s"]
    bits_per_second: float


def code_with_opus(audio: Float[Tensor, "a s"], *, sample_rate: int = 48000, bit_rate: int = 64000) -> OpusResult:
    """Code a sound with libopus and decode it.

    Args:
        audio: the sound in [-1, 1], mono or stereo.
        sample_rate: samples per second, one of those that Opus knows.
        bit_rate: bits per second to aim at (Opus takes 500 to 512000 per channel).

    Raises:
        UsageError: a rate or the channels are not Opus's, the sound is empty, or libav was built without libopus.
    """
    channels, length = audio.shape
    if sample_rate not in RATES_HZ or channels not in (1, 2) or not length:
        raise UsageError(
            f"a sound of {channels} channels and {length} samples at {sample_rate} Hz was given to Opus",
            f"it takes one or two channels at {', '.join(map(str, RATES_HZ))} Hz",
            "resample or mix it down first",
        )
    if not 500 <= bit_rate <= 512_000 * channels:
        raise UsageError(f"bit_rate={bit_rate} was given", "Opus takes 500 to 512000 bits per second and channel", "give e.g. 24000")
    if "libopus" not in av.codecs_available:
        raise UsageError("a sound was given to Opus", "this libav has no libopus", "install PyAV from its own wheels")
    file, num_bytes = _encode(audio, sample_rate, bit_rate)
    decoded = _decode(file, sample_rate, channels)[:, :length]
    decoded = np.pad(decoded, ((0, 0), (0, length - decoded.shape[1])))
    return OpusResult(torch.from_numpy(decoded), 8.0 * num_bytes * sample_rate / length)


def _encode(audio: Tensor, sample_rate: int, bit_rate: int) -> tuple[bytes, int]:
    layout = "mono" if audio.shape[0] == 1 else "stereo"
    interleaved = audio.detach().float().cpu().clamp(-1.0, 1.0).T.contiguous().numpy().reshape(1, -1)
    output, num_bytes = io.BytesIO(), 0
    with av.open(output, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=sample_rate, layout=layout)
        stream.bit_rate = bit_rate
        stream.options = {"vbr": "constrained"}
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate = sample_rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            num_bytes += packet.size
            container.mux(packet)
    return output.getvalue(), num_bytes


def _decode(file: bytes, sample_rate: int, channels: int) -> np.ndarray:
    """Samples (a, s); the demuxer drops what the coder put before them."""
    resampler = av.AudioResampler(format="fltp", layout="mono" if channels == 1 else "stereo", rate=sample_rate)
    with av.open(io.BytesIO(file)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1).astype(np.float32)
