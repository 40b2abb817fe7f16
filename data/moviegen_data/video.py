"""Decoding videos: only the wanted frames, at the wanted rate and size, as a player would show them.

Shapes: pixels are float in [-1, 1], (3, t, h, w). A frame is the one on the screen at its time, whatever the file's own rate, so variable
rates need no special care.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Shaped
from torch import Tensor

from moviegen_data.faults import SampleError
from moviegen_data.limits import MediaLimits
from moviegen_data.media_files import fault, opened
from moviegen_data.transforms import Placement, cover, write_pixels

_ATTACHED_PICTURE = 0x0400


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its first video stream.

    Args:
        width: columns as shown, rotation and pixel aspect honoured.
        height: rows as shown.
        fps: average frames per second.
        duration_s: seconds; None where the file does not say.
        num_frames: frames by the header; None where the file does not say.
        rotation: degrees counter-clockwise that a player turns the stored picture by: 0, 90, 180 or 270.
        codec: name of the codec.
        pixel_format: ffmpeg's name of the stored format.
        num_video_streams: video streams in the file.
        num_audio_streams: audio streams in the file.
    """

    width: int
    height: int
    fps: float
    duration_s: float | None
    num_frames: int | None
    rotation: int
    codec: str
    pixel_format: str
    num_video_streams: int
    num_audio_streams: int


@dataclass(frozen=True)
class Span:
    """What was decoded.

    Args:
        start_s: when the clip starts in the file.
        fps: frames per second of the clip.
    """

    start_s: float
    fps: float


class VideoDecoder:
    """Decodes clips; keeps one colour converter, which is where a naive PyAV loop loses its time.

    Args:
        num_threads: threads of the codec; workers do the parallel work, so 1 is best in training.
        limits: the largest videos that are decoded.
    """

    def __init__(self, *, num_threads: int = 1, limits: MediaLimits | None = None) -> None:
        self.num_threads = num_threads
        self.limits = limits or MediaLimits()
        self._reformatter = VideoReformatter()
        self._last_placement: tuple[tuple[int, ...], Placement] | None = None

    def probe(self, source: bytes | str | Path) -> VideoInfo:
        """Read headers and one frame.

        Raises:
            SampleError: the file cannot be opened, has no video, or its first frame cannot be decoded.
        """
        with opened(source) as container:
            stream = self.stream_of(container)
            frame = next(decoded_frames(container, stream, self.limits), None)
            if frame is None:
                raise SampleError("cannot be decoded", f"no frame in its {stream.codec_context.name} stream")
            return _describe(container, stream, frame)

    def count(self, source: bytes | str | Path) -> tuple[int, float]:
        """Decode everything; return the number of frames and the duration in seconds.

        Raises:
            SampleError: the file cannot be decoded to its end.
        """
        with opened(source) as container:
            stream = self.stream_of(container)
            count, first, end = 0, None, 0.0
            for frame in decoded_frames(container, stream, self.limits):
                time = frame.time if frame.time is not None else end
                first, end = time if first is None else first, max(end, time + shown_for(frame, stream))
                count += 1
            if not count:
                raise SampleError("cannot be decoded", f"no frame in its {stream.codec_context.name} stream")
            return count, end - first

    def decode(
        self,
        source: bytes | str | Path,
        out: Shaped[Tensor, "3 t h w"],
        *,
        fps: float | None = None,
        position: float = 0.0,
        hold_last: bool = False,
        middles: bool = False,
    ) -> Span:
        """Fill `out` with a clip.

        Args:
            source: the file, or its bytes.
            out: pixels (3, t, h, w), floats or bytes; says how many frames and which size are wanted.
            fps: frames per second of the clip; the file's own average unless given.
            position: where in the file, 0 (its beginning) to 1 (as late as the clip fits).
            hold_last: show the last frame for the rest of the clip where the file is too short.
            middles: take what is on the screen in the middle of each of the clip's frames, not at its beginning; beside a sound that starts
                between two frames, or at another rate than the file's, pictures then are late as often as early.

        Raises:
            SampleError: the file cannot be used: unreadable, without video, broken on the way, or too short.
        """
        with opened(source) as container:
            stream = self.stream_of(container)
            rate = fps or _rate(stream)
            duration, length = _duration(container, stream), (out.shape[1] - 1) / rate
            slack = max(0.0, (duration or 0.0) - length - 1.0 / min(rate, _rate(stream)))
            start = slack * position
            # A frame belongs to a time a little before its own, so that rounded timestamps do not shift a clip by a frame.
            lead = 0.5 / rate if middles else 0.1 / max(rate, _rate(stream))
            shown = self._fill(container, stream, out, start, rate, lead)
        if shown < out.shape[1] and start > 0.0:
            # The header promised more than there is; the beginning is the longest stretch the file has.
            return self.decode(source, out, fps=fps, position=0.0, hold_last=hold_last, middles=middles)
        if 0 < shown < out.shape[1] and hold_last:
            out[:, shown:] = out[:, shown - 1 : shown]
        elif shown < out.shape[1]:
            raise SampleError("too short", f"{shown} of {out.shape[1]} frames at {rate:g} fps")
        return Span(start_s=start, fps=rate)

    def stream_of(self, container: Any) -> VideoStream:
        """The picture's stream, made ready for decoding.

        Raises:
            SampleError: there is none, or none that can be decoded.
        """
        streams = [stream for stream in container.streams.video if not int(stream.disposition) & _ATTACHED_PICTURE]
        if not streams:
            raise SampleError("no video stream", f"{len(container.streams)} other streams")
        stream = streams[0]
        if stream.codec_context is None:
            raise SampleError("cannot be decoded", "its codec is unknown")
        self.limits.check_size(stream.height, stream.width)
        # Headers may leave the number out; what they do not say is counted while decoding.
        self.limits.check_frames(max(stream.frames or 0, 0.5 * (_duration(container, stream) or 0.0) * _rate(stream)))
        stream.codec_context.options = {"max_pixels": str(self.limits.max_pixels)}  # where a frame is larger than its header says
        if self.num_threads == 1:
            stream.thread_type = "SLICE"
        stream.codec_context.thread_count = self.num_threads
        return stream

    def _fill(self, container: Any, stream: VideoStream, out: Tensor, start: float, rate: float, lead: float) -> int:
        origin = float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
        targets = origin + start + lead + np.arange(out.shape[1]) / rate
        if start > 0.0:
            try:
                container.seek(int((origin + start) / stream.time_base), stream=stream, backward=True, any_frame=False)
            except av.FFmpegError as error:
                raise fault(container, "cannot be decoded", error, where=f"on the way to {start:.2f} s") from error
        shown, held, time, aspect = 0, None, 0.0, pixel_aspect(stream)
        for frame in decoded_frames(container, stream, self.limits):
            before, time = time, frame.time
            if time is None:
                time = 0.0 if held is None else before + shown_for(held, stream)
            while held is not None and shown < len(targets) and targets[shown] < time:
                shown = self._show(held, out, shown, targets, time, aspect)
            if shown == len(targets):
                return shown
            held = frame
        if held is not None and shown < len(targets):
            shown = self._show(held, out, shown, targets, time + shown_for(held, stream) + lead, aspect)
        return shown

    def _show(self, frame: VideoFrame, out: Tensor, shown: int, targets: np.ndarray, until: float, aspect: float) -> int:
        first = shown
        self._convert(frame, out[:, first], aspect)
        shown += 1
        while shown < len(targets) and targets[shown] < until:
            out[:, shown] = out[:, first]
            shown += 1
        return shown

    def _placement(self, *sizes: int) -> Placement:
        """Where frames of one size go; most are as large as the one before."""
        if self._last_placement is None or self._last_placement[0] != sizes:
            placement = cover(*sizes)
            self.limits.check_scaled(placement.scaled_height, placement.scaled_width)
            self._last_placement = (sizes, placement)
        return self._last_placement[1]

    def _convert(self, frame: VideoFrame, out: Shaped[Tensor, "3 h w"], aspect: float) -> None:
        turns = quarter_turns(frame)
        turned = turns % 2 == 1
        height, width = out.shape[1:] if not turned else out.shape[:0:-1]
        placement = self._placement(frame.height, max(1, round(frame.width * aspect)), height, width)
        picture = self._reformatter.reformat(
            frame,
            width=placement.scaled_width,
            height=placement.scaled_height,
            format="gbrp",
            src_color_range=int(frame.color_range),
            dst_color_range=ColorRange.JPEG,
            threads=self.num_threads,
        )
        planes = [_plane(picture.planes[index], placement) for index in (2, 0, 1)]
        write_pixels(planes, out, turns)


def decoded_frames(container: Any, stream: VideoStream, limits: MediaLimits | None = None) -> Iterator[VideoFrame]:
    """The frames from where the container is.

    Raises:
        SampleError: one cannot be decoded, or there are more than the limits allow.
    """
    limits, count = limits or MediaLimits(), 0
    try:
        for frame in container.decode(stream):
            yield frame
            count += 1
            limits.check_frames(count)
    except (av.FFmpegError, ValueError) as error:
        raise fault(container, "cannot be decoded", error, where=f"after {count} frames") from error


def _rate(stream: VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return min(max(float(rate), 1e-3), 1000.0) if rate else 25.0


def shown_for(frame: VideoFrame, stream: VideoStream) -> float:
    """Seconds that a frame is on the screen, by the file."""
    duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
    return duration if duration > 0.0 else 1.0 / _rate(stream)


def _duration(container: Any, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration and container.duration > 0 else None


def pixel_aspect(stream: VideoStream) -> float:
    """Width of a pixel over its height."""
    aspect = stream.sample_aspect_ratio
    return float(aspect) if aspect and 0.1 < aspect < 10 else 1.0


def quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns by which a player turns the picture."""
    return round(frame.rotation / 90) % 4


def _plane(plane: Any, placement: Placement) -> np.ndarray:
    rows = np.frombuffer(plane, dtype=np.uint8, count=plane.line_size * placement.scaled_height).reshape(-1, plane.line_size)
    return rows[placement.top : placement.top + placement.height, placement.left : placement.left + placement.width]


def _describe(container: Any, stream: VideoStream, frame: VideoFrame) -> VideoInfo:
    turns = quarter_turns(frame)
    height, width = frame.height, max(1, round(frame.width * pixel_aspect(stream)))
    return VideoInfo(
        width=height if turns % 2 else width,
        height=width if turns % 2 else height,
        fps=_rate(stream),
        duration_s=_duration(container, stream),
        num_frames=stream.frames or None,
        rotation=turns * 90,
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        num_video_streams=len(container.streams.video),
        num_audio_streams=len(container.streams.audio),
    )
