"""Videos as mp4 files: H.264 that every player takes, with AAC or Opus sound."""

import io
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from jaxtyping import Float, UInt8
from torch import Tensor

from moviegen_core.files import write_bytes
from moviegen_core.media.sound import require_finite

# ITU-T H.273: BT.709 primaries, transfer and matrix, what players assume where nothing is said.
_BT709 = 1
AudioCodec = Literal["aac", "opus"]
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_CODECS = {"aac": ("aac", _AAC_RATES), "opus": ("libopus", (48000, 24000, 16000, 12000, 8000))}


@dataclass
class Clip:
    """A decoded video file.

    Args:
        video: pixels in [-1, 1] (3, t, h, w).
        fps: frames per second.
        audio: waveform in [-1, 1] (channels, samples), or None.
        audio_hz: its sampling rate, or None.
    """

    video: Float[Tensor, "3 t h w"]
    fps: float
    audio: Float[Tensor, "c n"] | None = None
    audio_hz: int | None = None


def to_uint8(video: Float[Tensor, "3 t h w"]) -> UInt8[np.ndarray, "t h w 3"]:
    """Turn pixels in [-1, 1] into bytes, channels last; what is out of range is clamped and NaN becomes black."""
    if video.ndim != 4 or video.shape[0] != 3:
        raise ValueError(f"a tensor of shape {tuple(video.shape)} was given; a video is (3, t, h, w); pass one sample of the batch")
    pixels = (video.detach().float().nan_to_num(nan=-1.0).clamp(-1.0, 1.0) + 1.0) * 127.5
    return pixels.round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu().numpy()


def write_video(
    path: str | Path,
    video: Float[Tensor, "3 t h w"],
    *,
    fps: float,
    audio: Float[Tensor, "..."] | None = None,
    audio_hz: int | None = None,
    crf: int = 18,
    audio_codec: AudioCodec = "aac",
) -> None:
    """Write an mp4, whole or not at all; arguments and errors are those of `encode_video`.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    write_bytes(path, encode_video(video, fps=fps, audio=audio, audio_hz=audio_hz, crf=crf, audio_codec=audio_codec, name=str(path)))


def encode_video(
    video: Float[Tensor, "3 t h w"],
    *,
    fps: float,
    audio: Float[Tensor, "..."] | None = None,
    audio_hz: int | None = None,
    crf: int = 18,
    audio_codec: AudioCodec = "aac",
    name: str = "a video",
) -> bytes:
    """Encode an mp4 (H.264, 4:2:0, BT.709; AAC or Opus where there is sound).

    A sound that is shorter than the picture is followed by silence to its end. A longer one is kept whole: players go on showing the last
    frame.

    Args:
        video: pixels in [-1, 1]. An odd height or width gains one repeated row or column, because 4:2:0 has even sizes only.
        fps: frames per second, above 0.
        audio: waveform in [-1, 1], (samples,) or (channels, samples) with one or two channels.
        audio_hz: sampling rate of the waveform; rates that the codec lacks are resampled to 48 kHz.
        crf: quality of x264, 0 (lossless) to 51 (worst).
        audio_codec: `aac`, which every player takes, or `opus`, better at the same rate but unknown to older ones.
        name: what the video is called in errors.

    Raises:
        ValueError: a shape or number that cannot be written; as a UsageError, sound that holds NaN or infinite values.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps={fps} was given for {name}; a video has a positive number of frames per second; give one such as 16")
    if (audio is None) != (audio_hz is None):
        raise ValueError(f"audio and its rate come together, for {name} one is missing; give both `audio` and `audio_hz`, or neither")
    frames = _even(to_uint8(video))
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)
        picture = _video_stream(container, frames, rate, crf)
        sound = (
            None
            if audio is None
            else _Sound(container, _lengthened(_channels(audio, name), len(frames) / rate * audio_hz), audio_hz, audio_codec)
        )
        reformatter = VideoReformatter()  # one for all frames: setting it up costs more than using it
        for index, pixels in enumerate(frames):
            container.mux(picture.encode(_frame(pixels, index, 1 / rate, reformatter)))
        container.mux(picture.encode(None))
        if sound is not None:
            sound.write(container)
    return buffer.getvalue()


def copy_with_sound(film: str | Path, audio: Float[Tensor, "..."], audio_hz: int, *, audio_codec: AudioCodec = "aac") -> bytes | None:
    """An mp4 of a video file's picture as it is, neither decoded nor encoded anew, with another sound; None where mp4 cannot hold it.

    Size, rotation, time stamps and quality of the picture stay, and no frame is held in memory. A sound that is shorter than the picture
    is followed by silence.

    Args:
        film: the video file.
        audio: waveform in [-1, 1], as `encode_video` takes it.
        audio_hz: its sampling rate.
        audio_codec: as in `encode_video`.
    """
    buffer = io.BytesIO()
    try:
        with av.open(str(film)) as source, av.open(buffer, mode="w", format="mp4") as container:
            picture = source.streams.video[0]
            if picture.codec_context.name not in container.supported_codecs:
                return None
            copy = container.add_stream_from_template(picture)
            duration_s = float((picture.duration or 0) * picture.time_base)
            sound = _Sound(container, _lengthened(_channels(audio), duration_s * audio_hz), audio_hz, audio_codec)
            first = picture.start_time or 0
            for packet in source.demux(picture):
                if packet.dts is None:  # the empty one at the end
                    continue
                if packet.pts is None:
                    return None
                packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, copy
                container.mux(packet)
            sound.write(container)
    except av.FFmpegError:
        return None
    return buffer.getvalue()


def read_video(path: str | Path) -> Clip:
    """Read a whole video file into memory; for looking at single files, not for training."""
    with av.open(str(path)) as container:
        picture = container.streams.video[0]
        fps = float(picture.average_rate or picture.guessed_rate or 1)
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(picture)])
        sounds = container.streams.audio
        audio_hz = sounds[0].rate if sounds else None
    audio = None
    if audio_hz is not None:
        with av.open(str(path)) as container:
            resampler = AudioResampler(format="fltp")
            parts = [part.to_ndarray() for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        audio = torch.from_numpy(np.concatenate(parts, axis=1)).clamp(-1.0, 1.0)
    video = torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1.0
    return Clip(video=video, fps=fps, audio=audio, audio_hz=audio_hz)


class _Sound:
    """The sound track of a file that is being written."""

    def __init__(
        self, container: av.container.OutputContainer, waveform: Float[np.ndarray, "c n"], hz: int, codec: AudioCodec = "aac"
    ) -> None:
        self.waveform, self.hz = np.ascontiguousarray(waveform), hz
        self.layout = "mono" if waveform.shape[0] == 1 else "stereo"
        name, rates = _CODECS[codec]
        self.stream = container.add_stream(name, rate=hz if hz in rates else 48000, layout=self.layout)

    def write(self, container: av.container.OutputContainer) -> None:
        frame = av.AudioFrame.from_ndarray(self.waveform, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.hz, 0, Fraction(1, self.hz)
        frame_size = self.stream.codec_context.frame_size
        resampler = AudioResampler(
            format=self.stream.codec_context.format.name, layout=self.layout, rate=self.stream.rate, frame_size=frame_size
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(self.stream.encode(part))
        container.mux(self.stream.encode(None))


def _video_stream(container, frames, rate, crf):
    stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
    stream.height, stream.width, stream.pix_fmt, stream.time_base = *frames.shape[1:3], "yuv420p", 1 / rate
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = ColorRange.MPEG
    return stream


def _frame(pixels, index, time_base, reformatter):
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame = reformatter.reformat(frame, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    frame.pts, frame.time_base = index, time_base
    return frame


def _even(frames):
    odd_rows, odd_columns = frames.shape[1] % 2, frames.shape[2] % 2
    return np.pad(frames, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")


def _lengthened(waveform, num_samples):
    missing = math.ceil(num_samples) - waveform.shape[1]
    return np.pad(waveform, ((0, 0), (0, missing))) if missing > 0 else waveform


def _channels(audio, name="a film"):
    require_finite(audio, f"the sound of {name}")
    waveform = audio.detach().float().cpu().numpy()
    waveform = waveform[None] if waveform.ndim == 1 else waveform
    if waveform.ndim != 2 or waveform.shape[0] not in (1, 2) or not waveform.shape[1]:
        raise ValueError(
            f"a waveform of shape {tuple(audio.shape)} was given; mono is (samples,) or (1, samples), stereo (2, samples); pass one sample"
        )
    return np.clip(waveform, -1.0, 1.0)
