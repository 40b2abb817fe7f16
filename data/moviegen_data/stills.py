"""Single pictures of a video at given times, upright and as a player shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from moviegen_data.faults import SampleError
from moviegen_data.media_files import fault, opened
from moviegen_data.video import VideoDecoder, decoded_frames, pixel_aspect, quarter_turns

_FAR_S = 2.0  # what is this far ahead is sought; nearer, decoding on is as fast


def read_stills(
    source: bytes | str | Path, times_s: Sequence[float], *, max_side: int | None = None, num_threads: int = 1
) -> UInt8[np.ndarray, "n h w 3"]:
    """The pictures that are on the screen at some times.

    Args:
        source: the video file, or its bytes.
        times_s: seconds from its first frame, in rising order; what lies behind the end gives the last picture.
        max_side: pixels of the longer side at most; the file's own size unless given.
        num_threads: threads of the codec.

    Raises:
        SampleError: the file cannot be opened or decoded, or has no video.
        ValueError: times fall, or one is negative or not finite.
    """
    times = np.asarray(times_s, dtype=np.float64)
    if times.size and not (np.isfinite(times).all() and times[0] >= 0 and (np.diff(times) >= 0).all()):
        raise ValueError(f"times_s={list(times_s)} was given; times are 0 or more and rise; sort them")
    reformatter, stills = VideoReformatter(), []
    with opened(source) as container:
        cursor = _Cursor(container, VideoDecoder(num_threads=num_threads).stream_of(container))
        for time_s in times:
            frame = cursor.at(float(time_s))
            repeats = bool(stills) and frame is cursor.before
            stills.append(stills[-1] if repeats else _picture(reformatter, frame, pixel_aspect(cursor.stream), max_side))
            cursor.before = frame
    return np.stack(stills) if stills else np.empty((0, 0, 0, 3), np.uint8)


class _Cursor:
    """Walks through a video's frames, and jumps where that is shorter."""

    def __init__(self, container: Any, stream: VideoStream) -> None:
        self.container, self.stream = container, stream
        self.origin = float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
        self.lead = 0.1 / max(float(stream.average_rate or 25.0), 1.0)  # rounded time stamps must not give the frame before
        self.before: VideoFrame | None = None  # what was handed out last
        self._start(-np.inf)

    def at(self, time_s: float) -> VideoFrame:
        """The frame on the screen."""
        target = self.origin + time_s + self.lead
        if target - self._clock > _FAR_S:
            self._seek(target)
        frame = self._walk(target)
        if frame is None and self._begun > -np.inf:  # a jump behind the end; the last frame is found on foot
            self._seek(-np.inf)
            frame = self._walk(target)
        if frame is None:
            raise SampleError("cannot be decoded", f"no frame in its {self.stream.codec_context.name} stream")
        return frame

    def _start(self, begun: float) -> None:
        self._frames, self._begun, self._clock = decoded_frames(self.container, self.stream), begun, max(begun, self.origin)
        self._held: VideoFrame | None = None
        self._following: VideoFrame | None = None

    def _walk(self, target: float) -> VideoFrame | None:
        while True:
            self._following = self._following or next(self._frames, None)
            if self._following is None or (self._held is not None and _time_of(self._following, self._clock) > target):
                return self._held
            self._held, self._following = self._following, None
            self._clock = _time_of(self._held, self._clock)

    def _seek(self, target: float) -> None:
        where = self.origin if target == -np.inf else target
        try:
            self.container.seek(int(where / self.stream.time_base), stream=self.stream, backward=True, any_frame=False)
        except av.FFmpegError as error:
            raise fault(self.container, "cannot be decoded", error, where=f"on the way to {where:.2f} s") from error
        self._start(target)


def _time_of(frame: VideoFrame, otherwise: float) -> float:
    return otherwise if frame.time is None else float(frame.time)


def _picture(reformatter: VideoReformatter, frame: VideoFrame, aspect: float, max_side: int | None) -> UInt8[np.ndarray, "h w 3"]:
    height, width = frame.height, max(1, round(frame.width * aspect))
    scale = 1.0 if max_side is None else min(1.0, max_side / max(height, width))
    picture = reformatter.reformat(
        frame,
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
        format="rgb24",
        src_color_range=int(frame.color_range),
        dst_color_range=ColorRange.JPEG,
        threads=1,  # by default there are as many as cores, and starting them takes longer than all else
    )
    return np.ascontiguousarray(np.rot90(picture.to_ndarray(), quarter_turns(frame)))
