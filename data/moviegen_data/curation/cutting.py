"""Cutting a stretch out of a video file, as an mp4 of its own, frame by frame: memory does not grow with its length."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from moviegen_data.audio import AudioDecoder
from moviegen_data.faults import SampleError
from moviegen_data.media_files import fault, opened
from moviegen_data.video import VideoDecoder, decoded_frames, pixel_aspect, quarter_turns

_CLOCK = Fraction(1, 90000)


def cut_video(path: str | Path, start_s: float, end_s: float, *, crf: int = 16, preset: str = "veryfast", sound: bool = True) -> bytes:
    """An mp4 (H.264, 4:2:0; AAC) of a stretch; equal files give equal bytes. Frames keep their own times.

    Args:
        path: the video file.
        start_s: where the stretch begins, in seconds from the first frame.
        end_s: where it ends; the frame on the screen then is not in it.
        crf: quality of x264, 0 (lossless) to 51 (worst).
        preset: x264's trade of time for size.
        sound: keep the sound, where there is one that can be used.

    Raises:
        SampleError: the file cannot be decoded, or the stretch holds no frame.
    """
    buffer = io.BytesIO()
    try:
        with opened(path) as source, av.open(buffer, mode="w", format="mp4") as container:
            stream = VideoDecoder().stream_of(source)
            writer: _Picture | None = None
            track = _Track(container, path, start_s, end_s) if sound and source.streams.audio else None
            for frame, time_s in _stretch(source, stream, start_s, end_s):
                writer = writer or _Picture(container, stream, frame, crf, preset)
                writer.add(frame, time_s - start_s)
            if writer is None:
                raise SampleError("too short", f"no frame between {start_s:.3f} s and {end_s:.3f} s")
            writer.finish()
            if track is not None:
                track.write()
    except av.FFmpegError as error:
        raise fault(path, "cannot be cut", error) from error
    return buffer.getvalue()


def _stretch(source: Any, stream: Any, start_s: float, end_s: float) -> Any:
    """The frames of a stretch and their times from the file's first frame."""
    origin = float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
    lead = 0.1 / max(float(stream.average_rate or 25.0), 1.0)  # time stamps are rounded
    if start_s > 0.0:
        try:
            source.seek(int((origin + start_s) / stream.time_base), stream=stream, backward=True, any_frame=False)
        except av.FFmpegError as error:
            raise fault(source, "cannot be decoded", error, where=f"on the way to {start_s:.2f} s") from error
    time_s = start_s
    for frame in decoded_frames(source, stream):
        time_s = float(frame.time) - origin if frame.time is not None else time_s
        if time_s >= end_s - lead:
            return
        if time_s >= start_s - lead:
            yield frame, max(time_s, start_s)


class _Picture:
    """The picture's stream of the file that is being written."""

    def __init__(self, container: Any, source: Any, frame: VideoFrame, crf: int, preset: str) -> None:
        self.container, self.reformatter, self.turns = container, VideoReformatter(), quarter_turns(frame)
        self.size = (_even(max(1, round(frame.width * pixel_aspect(source)))), _even(frame.height))
        width, height = self.size[::-1] if self.turns % 2 else self.size
        # One thread: with more, x264's bytes may depend on the machine. No macroblock tree: its bytes differ from call to call.
        options = {"crf": str(crf), "preset": preset, "threads": "1", "x264-params": "threads=1:mbtree=0"}
        self.stream = container.add_stream("libx264", rate=Fraction(source.average_rate or 25), options=options)
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        self.stream.time_base = self.stream.codec_context.time_base = _CLOCK
        context = self.stream.codec_context
        for name in ("color_primaries", "color_trc", "colorspace", "color_range"):  # colours stay as they are, and are called the same
            setattr(context, name, getattr(source.codec_context, name))
        self.last = -1

    def add(self, frame: VideoFrame, time_s: float) -> None:
        """Append a frame."""
        width, height = self.size
        how = {"width": width, "height": height, "src_color_range": int(frame.color_range), "dst_color_range": int(frame.color_range)}
        made = self.reformatter.reformat(frame, format="yuv420p", threads=1, **how)
        if self.turns:
            made = _turned(made, self.turns)
        self.last = max(self.last + 1, round(time_s / _CLOCK))
        made.pts, made.time_base, made.pict_type = self.last, _CLOCK, 0
        self.container.mux(self.stream.encode(made))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self.container.mux(self.stream.encode(None))


def _turned(frame: VideoFrame, quarter_turns: int) -> VideoFrame:
    """A 4:2:0 frame turned counter-clockwise, plane by plane."""
    width, height = (frame.height, frame.width) if quarter_turns % 2 else (frame.width, frame.height)
    turned = VideoFrame(width, height, "yuv420p")
    for source, target in zip(frame.planes, turned.planes, strict=True):
        pixels = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)[: source.height, : source.width]
        rows = np.zeros((target.height, target.line_size), np.uint8)
        rows[:, : target.width] = np.rot90(pixels, quarter_turns)
        target.update(rows)
    return turned


class _Track:
    """The sound's stream."""

    def __init__(self, container: Any, path: str | Path, start_s: float, end_s: float) -> None:
        self.container, self.stream = container, None
        try:
            info = AudioDecoder().probe(path)
            hz = info.audio_hz if info.audio_hz in (48000, 44100, 32000, 24000, 22050, 16000) else 48000
            channels = 1 if info.num_channels == 1 else 2
            self.sound = AudioDecoder(audio_hz=hz, channels=channels).decode(path, start_s=start_s, duration_s=end_s - start_s)
        except SampleError:  # the picture is worth keeping; Probe has told of the sound
            return
        if self.sound.valid_s <= 0.0:
            return
        self.stream = container.add_stream("aac", rate=hz, layout="mono" if channels == 1 else "stereo")

    def write(self) -> None:
        """Write it whole."""
        if self.stream is None:
            return
        valid = round(self.sound.valid_s * self.sound.audio_hz)  # what follows is added silence
        waveform = np.ascontiguousarray(self.sound.audio[:, :valid].numpy().clip(-1.0, 1.0))
        hz, size = self.sound.audio_hz, self.stream.codec_context.frame_size or 1024
        for first in range(0, waveform.shape[1], size):
            part = np.ascontiguousarray(waveform[:, first : first + size])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=self.stream.layout.name)
            frame.sample_rate, frame.pts, frame.time_base = hz, first, Fraction(1, hz)
            self.container.mux(self.stream.encode(frame))
        self.container.mux(self.stream.encode(None))


def _even(size: int) -> int:
    return size + size % 2
