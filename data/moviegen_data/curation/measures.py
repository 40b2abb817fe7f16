"""What is measured of every frame of a video, in one pass that several stages share: change, motion, motion vectors, brightness."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, Self

import av
import numpy as np
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8

from moviegen_data.curation.meters import ContentMeter, EstimatedVectors, ExportedVectors, MotionMeter
from moviegen_data.faults import SampleError
from moviegen_data.media_files import opened
from moviegen_data.video import VideoDecoder, decoded_frames, pixel_aspect, quarter_turns, shown_for

SIDE_PX = 480
_AGAINST_BEFORE = ("scene_score", "motion", "vector_px", "content")
_MPEG = {"h261", "h263", "h263i", "h263p", "h264", "mpeg1video", "mpeg2video", "mpeg4", "mpegvideo"}
_EXPORTING = _MPEG | {"flv1", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "rv10", "rv20", "wmv1", "wmv2"}  # whose decoders in libavcodec tell
_EPSILON_S = 1e-4  # times are kept to the microsecond


@dataclass(frozen=True)
class Measures:
    """One row per frame. What compares a frame with the one before is NaN in the first row, which has none.

    Args:
        times_s: when each frame comes, in seconds from the medium's first frame; never falling.
        end_s: when the stretch ends, likewise.
        start_s: when the stretch begins.
        width: columns as shown.
        height: rows as shown.
        vectors: whether the codec told the motion vectors or they were estimated.
        scene_score: change of a cut, FFmpeg's `scdet` (0 to 100); NaN for the medium's second frame too, which it cannot judge.
        motion: FFmpeg's `vmafmotion`: mean change of blurred luma (0 to 255).
        vector_px: mean length of the motion vectors in the file's own pixels; NaN where a frame has none (key frames).
        content: PySceneDetect's frame score: mean change of hue, saturation and value (0 to 255).
        luma: mean brightness, 0 (black) to 255.
        cells: luma of a tiny picture, 16 px on the longer side, as stored (not turned upright).
    """

    times_s: Float[np.ndarray, "n"]
    end_s: float
    start_s: float
    width: int
    height: int
    vectors: Literal["exported", "estimated"]
    scene_score: Float[np.ndarray, "n"]
    motion: Float[np.ndarray, "n"]
    vector_px: Float[np.ndarray, "n"]
    content: Float[np.ndarray, "n"]
    luma: Float[np.ndarray, "n"]
    cells: UInt8[np.ndarray, "n h w"]

    @property
    def duration_s(self) -> float:
        """Length of the stretch in seconds."""
        return self.end_s - self.start_s

    def __len__(self) -> int:
        return len(self.times_s)

    def between(self, start_s: float, end_s: float | None = None) -> Self:
        """The frames that are on the screen in a stretch; the first of them is compared with nothing, as where a medium begins.

        Args:
            start_s: where the stretch begins, in seconds.
            end_s: where it ends; the medium's end unless given.

        Raises:
            SampleError: the stretch lies outside, or is empty.
        """
        stop_s = self.end_s if end_s is None else min(end_s, self.end_s)
        if not self.start_s - _EPSILON_S <= start_s < stop_s:
            told = f"{start_s:g} s to {stop_s:g} s, of frames from {self.start_s:g} s to {self.end_s:g} s"
            raise SampleError("no such stretch", told)
        first = max(0, int(np.searchsorted(self.times_s, start_s + _EPSILON_S, "right")) - 1)
        rows = slice(first, max(first + 1, int(np.searchsorted(self.times_s, stop_s - _EPSILON_S, "left"))))
        cut = {field.name: getattr(self, field.name)[rows] for field in fields(self) if isinstance(getattr(self, field.name), np.ndarray)}
        return replace(self, start_s=start_s, end_s=stop_s, **_without_first(cut))


def measure(path: str | Path, *, side_px: int | None = SIDE_PX) -> Measures:
    """Measure a video in one pass. A frame leaves less than a kilobyte behind, however large its picture.

    Scores of motion and of cuts are taken at `side_px` on the shorter side, in order that 4K costs little more than its decoding and that
    scores of small and large files compare; against the own size of 720p files, motion is some 5 % lower. Smaller files keep their size.
    Vectors are always in the file's own pixels.

    Args:
        path: the file.
        side_px: pixels of the shorter side that motion and cuts are measured at; None is the file's own size.

    Raises:
        SampleError: it cannot be decoded to its end, or has no picture.
        UsageError: OpenCV is not installed.
    """
    measures = _measured(path, side_px, estimate=False)
    if measures.vectors == "exported" and len(measures) > 1 and np.isnan(measures.vector_px).all():
        return _measured(path, side_px, estimate=True)  # key frames only, though the codec could have vectors
    return measures


def _measured(path: str | Path, side_px: int | None, *, estimate: bool) -> Measures:
    with opened(path) as container:
        stream = VideoDecoder().stream_of(container)
        stream.codec_context.options = {"flags2": "+export_mvs"}
        table = _Table(stream, side_px, estimate or stream.codec_context.name not in _EXPORTING)
        try:
            for frame in decoded_frames(container, stream):
                table.add(frame)
        except av.FFmpegError as error:  # a filter's; the decoder's are SampleErrors already
            raise SampleError("cannot be measured", f"{type(error).__name__} after {len(table.times)} frames") from error
        return table.done()


class _Table:
    """The rows so far."""

    def __init__(self, stream: VideoStream, side_px: int | None, estimate: bool) -> None:
        self.stream, self.side_px, self.estimate = stream, side_px, estimate
        self.times: list[float] = []
        self.motion: list[tuple[float, float]] = []
        self.content: list[tuple[float, float]] = []
        self.cells: list[np.ndarray] = []
        self.lengths: list[float] = []
        self.end = 0.0

    def add(self, frame: av.VideoFrame) -> None:
        if not self.times:
            self._begin(frame)
        time = self.end if frame.time is None else float(frame.time) - self.origin
        self.times.append(max(time, self.times[-1] if self.times else 0.0))
        self.end = max(self.end, self.times[-1] + shown_for(frame, self.stream))
        change, luma, cells = self.content_meter(frame)
        self.content.append((change, luma))
        self.cells.append(cells if not self.cells or cells.shape == self.cells[0].shape else self.cells[-1])  # the stream changed its shape
        length = self.vector_meter(frame)
        if length is not None:
            self.lengths.append(length)
        self.motion.append(self.motion_meter(frame))  # last, since it may number the frame itself anew

    def _begin(self, frame: av.VideoFrame) -> None:
        self.origin = 0.0 if frame.time is None else float(frame.time)
        size = {"width": frame.width, "height": frame.height}
        self.motion_meter, self.content_meter = MotionMeter(**size, side_px=self.side_px), ContentMeter()
        self.vector_meter = EstimatedVectors(**size) if self.estimate else ExportedVectors()
        shown = max(1, round(frame.width * pixel_aspect(self.stream))), frame.height
        self.shown = shown[::-1] if quarter_turns(frame) % 2 else shown

    def done(self) -> Measures:
        if not self.times:
            raise SampleError("cannot be decoded", f"no frame in its {self.stream.codec_context.name} stream")
        lengths = [*self.lengths, *self.vector_meter.rest()]
        lengths += [np.nan] * (len(self.times) - len(lengths))
        motion, content = np.array(self.motion, np.float32), np.array(self.content, np.float32)
        motion[1:2, 1] = np.nan  # scdet compares each change with the one before, and takes 0 for the first: any movement would be a cut
        columns = {
            "motion": motion[:, 0],
            "scene_score": motion[:, 1],
            "vector_px": np.array(lengths, np.float32),
            "content": content[:, 0],
            "luma": content[:, 1],
        }
        return Measures(
            times_s=np.array(self.times),
            start_s=0.0,
            end_s=self.end,
            width=self.shown[0],
            height=self.shown[1],
            vectors=self.vector_meter.name,
            cells=np.stack(self.cells),
            **_without_first(columns),
        )


def _without_first(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    blanked = {name: columns[name].copy() for name in _AGAINST_BEFORE}
    for column in blanked.values():
        column[0] = np.nan
    return {**columns, **blanked}
