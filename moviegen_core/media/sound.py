"""Sounds as wav files and as spectrograms."""

import io
import wave

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

_FLOOR_DB = -80.0


def wav_bytes(audio: Float[Tensor, "c n"], hz: int) -> bytes:
    """Encode a waveform in [-1, 1] as 16-bit wav."""
    samples = (audio.detach().float().nan_to_num().clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16).cpu()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(2)
        file.setframerate(hz)
        file.writeframes(samples.T.contiguous().numpy().tobytes())
    return buffer.getvalue()


def spectrogram(audio: Float[Tensor, "c n"], *, window: int = 1024) -> Image.Image:
    """Draw the level in dB (80 dB from black to white) over time (left to right) and frequency (up, linear); channels are averaged."""
    mono = audio.detach().float().nan_to_num().mean(0).cpu()
    mono = torch.nn.functional.pad(mono, (0, max(0, window - mono.numel())))
    spectrum = torch.stft(mono, window, window // 4, window=torch.hann_window(window), return_complex=True).abs()
    level = 20.0 * torch.log10(spectrum / spectrum.max().clamp_min(1e-8) + 1e-8)
    picture = ((level.clamp_min(_FLOOR_DB) / -_FLOOR_DB + 1.0) * 255.0).round().to(torch.uint8)
    return Image.fromarray(picture.flip(0).contiguous().numpy())
