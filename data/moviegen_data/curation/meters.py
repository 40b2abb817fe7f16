"""What measures one frame after the other; `measures.py` puts them together. Each is given every frame of a video, in order."""

from fractions import Fraction
from typing import Any

import numpy as np
from av import VideoFormat
from av.error import BlockingIOError as NotYetError
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from moviegen_data.curation.optional import optional

CONTENT_SIDE_PX = 256  # PySceneDetect's own working size
CELLS = 16
_LEAST_SIDE_PX = 64  # scdet reads beyond the rows of narrower pictures, up to 64 px
_ESTIMATE_SIDE_PX = 360
_ESTIMATE = "method=epzs:mb_size=16:search_param=16"


class MotionMeter:
    """FFmpeg's `vmafmotion` and `scdet`.

    Args:
        width: stored columns of the video.
        height: stored rows.
        side_px: the shorter side is brought to this size; smaller videos and None keep their own.
    """

    def __init__(self, *, width: int, height: int, side_px: int | None) -> None:
        self._scaled = _Scaled(width, height, side_px)
        self._graph = _graph(self._scaled, ("vmafmotion", None), ("scdet", None))

    def __call__(self, frame: VideoFrame) -> tuple[float, float]:
        """The motion score, and the scene score (0 to 100), against the frame before."""
        self._graph.push(self._scaled(frame))
        metadata = self._graph.pull().metadata
        return float(metadata["lavfi.vmafmotion.score"]), float(metadata["lavfi.scd.score"])


class ContentMeter:
    """What PySceneDetect's ContentDetector computes, mean luma, and a tiny picture.

    The size and the way of scaling are PySceneDetect's too, so that its thresholds mean the same here.

    Raises:
        UsageError: OpenCV is not installed.
    """

    def __init__(self) -> None:
        self._cv2, self._reformatter, self._before = optional("cv2", what="measuring a video"), VideoReformatter(), None

    def __call__(self, frame: VideoFrame) -> tuple[float, float, UInt8[np.ndarray, "h w"]]:
        """Mean change of hue, saturation and value (0 to 255; 0 at first), mean luma (0 to 255), and the luma of 16 cells a side."""
        cv2 = self._cv2
        scale = min(1.0, CONTENT_SIDE_PX / max(frame.width, frame.height))
        size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        # By default it starts as many threads as there are cores, which takes longer than a short film.
        picture = self._reformatter.reformat(frame, *size, "bgr24", interpolation=Interpolation.FAST_BILINEAR, threads=1).to_ndarray()
        colours = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
        change = 0.0
        if self._before is not None and self._before.shape == colours.shape:
            change = sum(cv2.mean(cv2.absdiff(colours, self._before))) / 3.0
        self._before = colours
        luma = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        return change, float(luma.mean()), cv2.resize(luma, _cells(*size), interpolation=cv2.INTER_AREA)


class ExportedVectors:
    """Motion vectors as the codec used them."""

    name = "exported"

    def __call__(self, frame: VideoFrame) -> float:
        """Mean length in stored pixels, NaN without vectors. Blocks count by their area, so that finely split ones weigh no more."""
        vectors = _vectors_of(frame)
        if vectors is None:
            return np.nan
        scale = vectors["motion_scale"].astype(np.float32)
        if not scale.all():  # a codec that says whole pixels only
            return _mean_length(vectors)
        lengths = np.hypot(vectors["motion_x"], vectors["motion_y"], dtype=np.float32) / scale
        area = vectors["w"].astype(np.float32) * vectors["h"]
        return float(np.average(lengths, weights=area))

    def rest(self) -> list[float]:
        """Nothing is held back."""
        return []


class EstimatedVectors:
    """Motion vectors by FFmpeg's `mestimate`, for codecs that export none: blocks of 16 px in a picture of 360 px, whole pixels.

    It needs the frame after, so that each answer is about the frame before the one given.

    Args:
        width: stored columns of the video.
        height: stored rows.
    """

    name = "estimated"

    def __init__(self, *, width: int, height: int) -> None:
        self._scaled = _Scaled(width, height, _ESTIMATE_SIDE_PX)
        self._graph = _graph(self._scaled, ("mestimate", _ESTIMATE))
        self._enlarged = min(width / self._scaled.size[0], height / self._scaled.size[1])
        self._last: VideoFrame | None = None

    def __call__(self, frame: VideoFrame) -> float | None:
        """Mean length in stored pixels of the frame before; None for the first one given."""
        self._last = self._scaled(frame)
        return self._push()

    def rest(self) -> list[float]:
        """What is held back when the last frame was given."""
        if self._last is None:
            return []
        self._last.pts = self._scaled.next_pts()
        length = self._push()
        return [] if length is None else [length]

    def _push(self) -> float | None:
        self._graph.push(self._last)
        try:
            vectors = _vectors_of(self._graph.pull())
        except NotYetError:
            return None
        vectors = None if vectors is None else vectors[vectors["source"] < 0]  # those that point to the frame before
        return np.nan if vectors is None or not len(vectors) else _mean_length(vectors) * self._enlarged


class _Scaled:
    """Brings frames to one size and format, and numbers them: files may have neither steady sizes nor sound time stamps."""

    def __init__(self, width: int, height: int, side_px: int | None) -> None:
        scale = 1.0 if side_px is None else min(1.0, side_px / min(width, height))
        self.size = _even(width * scale), _even(height * scale)
        self._reformatter, self._count = VideoReformatter(), 0

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        picture = self._reformatter.reformat(frame, *self.size, "yuv420p", interpolation=Interpolation.AREA, threads=1)
        picture.pts, picture.time_base = self.next_pts(), Fraction(1, 1000)
        return picture

    def next_pts(self) -> int:
        self._count += 1
        return self._count


def _graph(scaled: _Scaled, *filters: tuple[str, str | None]) -> Graph:
    graph = Graph()
    graph.threads = 1
    width, height = scaled.size
    nodes = [graph.add_buffer(width=width, height=height, format=VideoFormat("yuv420p"), time_base=Fraction(1, 1000))]
    nodes += [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


def _vectors_of(frame: VideoFrame) -> Any:
    vectors = frame.side_data.get(Type.MOTION_VECTORS)
    return None if vectors is None or not len(vectors) else vectors.to_ndarray()


def _mean_length(vectors: Any) -> float:
    across = vectors["dst_x"].astype(np.float32) - vectors["src_x"]
    down = vectors["dst_y"].astype(np.float32) - vectors["src_y"]
    return float(np.hypot(across, down).mean())


def _even(length: float) -> int:
    return max(_LEAST_SIDE_PX, 2 * round(length / 2))


def _cells(width: int, height: int) -> tuple[int, int]:
    scale = CELLS / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
