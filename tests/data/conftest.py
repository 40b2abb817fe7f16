"""Small media made on the spot."""

import io
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from moviegen_data.shards import ShardWriter

sys.path.insert(0, str(Path(__file__).parent))
from bombs import bombs, large_picture, long_video  # noqa: E402, F401 - fixtures


def encode_clip(
    frames: np.ndarray,
    *,
    fps: float = 8,
    pixel_format: str = "yuv420p",
    codec: str = "libx264",
    container: str = "mp4",
    rotation: int = 0,
    times: list[float] | None = None,
    crf: int = 1,
    keyframe_every: int = 12,
    aspect: Fraction | None = None,
) -> bytes:
    """Encode frames (t, h, w, 3) of bytes; `times` gives them their own timestamps in seconds."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        stream.options = {"crf": str(crf), "preset": "veryfast", "g": str(keyframe_every)} if codec == "libx264" else {}
        stream.codec_context.time_base = Fraction(1, 1000) if times else 1 / stream.average_rate
        if rotation:
            stream.set_display_rotation(rotation)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if times:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def grey_steps(num_frames: int, *, height: int = 32, width: int = 32, step: int = 10) -> np.ndarray:
    """Frame number n is a plain grey of 20 + n·step, so that a decoded frame tells its number."""
    values = (20 + step * np.arange(num_frames)).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (num_frames, height, width, 3)).copy()


def numbers_of(video, step: int = 10) -> list[int]:
    """Frame numbers of a decoded clip of `grey_steps` (3, t, h, w)."""
    grey = (video.mean((0, 2, 3)) + 1) * 127.5
    return [round(float(value - 20) / step) for value in grey]


def encode_sound(
    audio: np.ndarray,
    hz: int,
    *,
    container: str = "wav",
    codec: str = "pcm_s16le",
    layout: str | None = None,
    frames: np.ndarray | None = None,
    fps: int = 10,
    late_s: float = 0.0,
    late_picture_s: float = 0.0,
) -> bytes:
    """Encode a waveform (c, n), with frames (t, h, w, 3) where given; either may begin late on the file's clock."""
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[len(audio)]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        picture = None
        if frames is not None:
            picture = file.add_stream("libx264", rate=fps)
            picture.height, picture.width, picture.pix_fmt = *frames.shape[1:3], "yuv420p"
            picture.options = {"crf": "1", "preset": "veryfast", "bf": "0"}
        stream = file.add_stream(codec, rate=hz, layout=layout)
        if codec in ("aac", "libopus", "libmp3lame"):
            stream.bit_rate = 128_000 * len(audio)
        if picture is not None:
            for number, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts, frame.time_base = number + round(late_picture_s * fps), Fraction(1, fps)
                file.mux(picture.encode(frame))
            file.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio, dtype=np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = hz, 0, Fraction(1, hz)
        context = stream.codec_context
        if not context.is_open:
            context.open()
        resampler = av.AudioResampler(format=context.format.name, layout=layout, rate=hz, frame_size=context.frame_size)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            part.pts = (part.pts or 0) + round(late_s * hz)
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def click(hz: int, duration_s: float, at_s: float, *, channels: int = 1) -> np.ndarray:
    """A smooth bump of 2 ms whose middle is at a time, so that a codec keeps its place."""
    time = np.arange(round(duration_s * hz)) / hz
    wave = 0.8 * np.exp(-0.5 * ((time - at_s) / 0.001) ** 2) * np.cos(2 * np.pi * 1000 * (time - at_s))
    return np.repeat(wave[None], channels, 0).astype(np.float32)


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """Write a set of shards of tiny clips and return its folder."""

    def make(
        name: str = "shards",
        *,
        num_samples: int = 12,
        max_samples: int = 5,
        num_frames: int = 8,
        kind: str = "mp4",
        bad: tuple[int, ...] = (),
    ) -> Path:
        folder = tmp_path / name
        clip = encode_clip(grey_steps(num_frames), fps=8) if kind == "mp4" else b""
        with ShardWriter(folder, max_samples=max_samples) as writer:
            for number in range(num_samples):
                record = {
                    "caption": f"clip {number}",
                    "fps": 8.0,
                    "frames": num_frames,
                    "height": 32,
                    "width": 32,
                    "duration_s": num_frames / 8,
                }
                media = clip or picture_bytes(number)
                writer.write(f"{name}-{number:04d}", {"json": record, kind: b"not a film" if number in bad else media})
        return folder

    return make


@pytest.fixture(scope="session")
def media_maker() -> SimpleNamespace:
    """Functions that make media; a fixture, because test folders are no packages."""
    return SimpleNamespace(
        encode_clip=encode_clip,
        grey_steps=grey_steps,
        numbers_of=numbers_of,
        picture_bytes=picture_bytes,
        encode_sound=encode_sound,
        click=click,
    )


def picture_bytes(number: int = 0, *, height: int = 24, width: int = 32) -> bytes:
    """A plain png."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (number * 7 % 256, 90, 200)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def sound_shards(tmp_path, media_maker):
    """Makes shards of sounds, see `audio_shards.sound_shards_in`."""
    from audio_shards import sound_shards_in

    return sound_shards_in(tmp_path, media_maker)
