"""Sounds as wav and flac files, and as pictures: waveforms and spectrograms."""

import io
import math
import wave
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from moviegen_core.errors import UsageError
from moviegen_core.files import write_bytes

Scale = Literal["linear", "log", "mel"]

_FLOOR_DB = -80.0
_LOWEST_HZ = 20.0  # of the logarithmic scale: what is deeper is not heard


def write_audio(path: str | Path, audio: Float[Tensor, "..."], hz: int) -> None:
    """Write a waveform in [-1, 1], (samples,) or (channels, samples), as 16-bit wav or 24-bit flac, whole or not at all.

    Raises:
        UsageError: the name ends in neither `.wav` nor `.flac`, or the waveform holds NaN or infinite values.
        OSError: the disk is full, or the folder may not be written to.
    """
    encode = {".wav": wav_bytes, ".flac": flac_bytes}.get(Path(path).suffix.lower())
    if encode is None:
        raise UsageError(f"the sound {path} was given to be written", "there are .wav and .flac", "give a name that ends in one of them")
    require_finite(audio, f"the sound {path}")
    write_bytes(path, encode(torch.atleast_2d(audio), hz))


def require_finite(audio: Float[Tensor, "..."], name: str) -> None:
    """Refuse a waveform that no file and no picture can show.

    Args:
        audio: waveform of any shape.
        name: what it is called in the error.

    Raises:
        UsageError: it holds NaN or infinite values.
    """
    if not bool(audio.isfinite().all()):
        raise UsageError(f"{name} was given to be written", "it holds NaN or infinite values", "look at where it comes from")


def wav_bytes(audio: Float[Tensor, "c n"], hz: int) -> bytes:
    """Encode a waveform in [-1, 1] as 16-bit wav; NaN is refused."""
    samples = (_clean(audio) * 32767.0).round().to(torch.int16)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(2)
        file.setframerate(hz)
        file.writeframes(samples.T.contiguous().numpy().tobytes())
    return buffer.getvalue()


def flac_bytes(audio: Float[Tensor, "c n"], hz: int) -> bytes:
    """Encode a waveform in [-1, 1] of one or two channels as 24-bit flac; NaN is refused."""
    layouts = {1: "mono", 2: "stereo"}
    if len(audio) not in layouts or not audio.shape[1]:
        raise ValueError(f"a waveform of shape {tuple(audio.shape)} was given; flac is written of (1, samples) or (2, samples)")
    samples = (_clean(audio).double() * (2**23 - 1)).round().to(torch.int32) * 256
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as file:
        stream = file.add_stream("flac", rate=hz, layout=layouts[len(audio)], options={"compression_level": "5"})
        stream.codec_context.format = "s32"
        frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).contiguous().numpy(), format="s32", layout=layouts[len(audio)])
        frame.sample_rate = hz
        resampler = av.AudioResampler(format="s32", frame_size=4096)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def waveform(audio: Float[Tensor, "c n"], *, width: int = 800, height: int = 120) -> Image.Image:
    """Draw the range of the samples in every column, one band for each channel, black on white with a line at zero."""
    sound = _clean(audio)
    picture = np.full((height * len(sound), width), 255, dtype=np.uint8)
    edges = np.linspace(0, sound.shape[1], width + 1).astype(int)
    for channel, samples in enumerate(sound.numpy()):
        band = picture[channel * height : (channel + 1) * height]
        band[height // 2] = 190
        for column, (first, last) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            piece = samples[first : max(last, first + 1)]
            if len(piece):
                top, bottom = (round((1.0 - float(value)) / 2.0 * (height - 1)) for value in (piece.max(), piece.min()))
                band[top : bottom + 1, column] = 0
    return Image.fromarray(picture)


def spectrogram(audio: Float[Tensor, "c n"], *, window: int = 1024, scale: Scale = "linear", hz: int | None = None) -> Image.Image:
    """Draw the level in dB (80 dB from black to white) over time (left to right) and frequency (up); channels are averaged.

    Args:
        audio: waveform.
        window: samples of a column; columns are a quarter of it apart.
        scale: rows by frequency (`linear`), by octaves from 20 Hz (`log`), or by the ear's mel scale (`mel`).
        hz: sampling rate of the waveform, which the last two need.
    """
    require_finite(audio, "a sound")
    mono = audio.detach().float().mean(0).cpu()
    mono = torch.nn.functional.pad(mono, (0, max(0, window - mono.numel())))
    spectrum = torch.stft(mono, window, window // 4, window=torch.hann_window(window), return_complex=True).abs()
    if scale != "linear":
        if hz is None:
            raise ValueError(f"scale={scale!r} was given without hz; its rows are frequencies; give the sampling rate")
        spectrum = _rows(scale, hz, num_bins=len(spectrum)) @ spectrum
    level = 20.0 * torch.log10(spectrum / spectrum.max().clamp_min(1e-8) + 1e-8)
    picture = ((level.clamp_min(_FLOOR_DB) / -_FLOOR_DB + 1.0) * 255.0).round().to(torch.uint8)
    return Image.fromarray(picture.flip(0).contiguous().numpy())


def frequency_of_row(row: float, num_rows: int, hz: int, scale: Scale) -> float:
    """Frequency in hertz of a row of a spectrogram, counted from its lower edge."""
    top, share = hz / 2.0, row / (num_rows - 1)
    if scale == "mel":
        return 700.0 * (10.0 ** (share * math.log10(1.0 + top / 700.0)) - 1.0)
    if scale == "log":
        return _LOWEST_HZ * (top / _LOWEST_HZ) ** share
    return share * top


def _rows(scale: Scale, hz: int, *, num_bins: int, num_rows: int = 160) -> Float[Tensor, "rows bins"]:
    """Triangles around each row's frequency, as wide as its neighbours and at least as wide as a bin."""
    bins = torch.arange(num_bins) * (hz / 2.0) / (num_bins - 1)
    width = float(bins[1])
    rows = []
    for row in range(num_rows):
        below, centre, above = (frequency_of_row(place, num_rows, hz, scale) for place in (row - 1, row, row + 1))
        rising = (bins - min(below, centre - width)) / max(centre - below, width)
        falling = (max(above, centre + width) - bins) / max(above - centre, width)
        triangle = torch.minimum(rising, falling).clamp_min(0.0)
        rows.append(triangle / triangle.sum().clamp_min(1e-8))
    return torch.stack(rows)


def _clean(audio: Tensor) -> Tensor:
    require_finite(audio, "a sound")
    return audio.detach().float().clamp(-1.0, 1.0).cpu()
