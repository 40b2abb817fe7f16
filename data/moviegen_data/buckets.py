"""Buckets: every batch has one duration, one aspect ratio and one size (paper 3.2.1, Table 2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moviegen_core.errors import UsageError


@dataclass(frozen=True)
class Bucket:
    """One shape of batches, and which samples belong to it.

    Args:
        num_frames: frames of a clip; 1 for pictures.
        height: rows in pixels.
        width: columns in pixels.
        fps: frames per second of a clip; None takes the file's own.
        max_fps: where given, the rate lies between `fps` and this, so that the frames span the whole of a shorter file.
        min_s: shortest file in seconds.
        max_s: files from here on belong elsewhere.
        batch_size: samples in a batch; the data module's own where None.
    """

    num_frames: int
    height: int
    width: int
    fps: float | None = None
    max_fps: float | None = None
    min_s: float = 0.0
    max_s: float = math.inf
    batch_size: int | None = None

    def __post_init__(self) -> None:
        sizes = (self.num_frames, self.height, self.width, self.batch_size or 1)
        rates = [rate for rate in (self.fps, self.max_fps) if rate is not None]
        if min(sizes) < 1 or any(not 0 < rate < math.inf for rate in rates):
            raise UsageError(f"the bucket {self} was given", "sizes are at least 1 and rates above 0", "correct the bucket")
        if self.max_fps is not None and (self.fps is None or self.max_fps < self.fps):
            raise UsageError(f"the bucket {self} was given", "max_fps is the end of a range that begins at fps", "give fps <= max_fps")
        if self.min_s >= self.max_s:
            raise UsageError(f"the bucket {self} was given", "no duration lies in its range", "give min_s < max_s")

    def rate(self, duration_s: float | None) -> float | None:
        """Frames per second for a file of this duration."""
        if self.max_fps is None or not duration_s:
            return self.fps
        return min(max(self.num_frames / duration_s, self.fps), self.max_fps)

    def takes(self, duration_s: float | None) -> bool:
        """True where a file is long enough, and belongs to the range; an unknown duration fits anywhere."""
        if duration_s is None:
            return True
        slack = 0.5 / (self.fps or 24.0)
        enough = self.num_frames == 1 or self.fps is None or duration_s + slack >= self.num_frames / (self.max_fps or self.fps)
        return enough and self.min_s <= duration_s < self.max_s

    def __str__(self) -> str:
        rate = "" if self.fps is None else f"@{self.fps:g}" + ("" if self.max_fps is None else f"-{self.max_fps:g}")
        return f"{self.num_frames}x{self.height}x{self.width}{rate}"


def assign(buckets: Sequence[Bucket], *, height: int, width: int, duration_s: float | None, is_video: bool = True) -> int | None:
    """Choose a bucket: of those the duration fits, the nearest aspect ratio, then the most frames; None where none fits.

    A picture goes to a bucket of single frames only.
    """
    wanted = [number for number, bucket in enumerate(buckets) if is_video or bucket.num_frames == 1]
    fitting = [number for number in wanted if buckets[number].takes(duration_s)]
    if not fitting:
        return None

    def rank(number: int) -> tuple[float, int]:
        bucket = buckets[number]
        return round(abs(math.log(bucket.width * height / (bucket.height * width))), 6), -bucket.num_frames

    return min(fitting, key=rank)


def why_none(buckets: Sequence[Bucket], *, duration_s: float | None, is_video: bool = True) -> str:
    """Why a file has no bucket."""
    if not is_video and all(bucket.num_frames > 1 for bucket in buckets):
        return "a picture, where clips are wanted"
    shortest = min(max(bucket.min_s, bucket.num_frames / (bucket.max_fps or bucket.fps or 24.0)) for bucket in buckets)
    if duration_s is not None and duration_s < shortest:
        return f"shorter than any bucket takes ({shortest:.2f} s)"
    return "between the durations that the buckets take"


def aspect_sizes(area_px: int, *, multiple: int = 16) -> list[tuple[int, int]]:
    """Five (height, width) of about one area: 16:9, 4:3, 1:1, 3:4, 9:16 (the paper names 1024x576, 576x1024 and 768x768 of its five)."""
    ratios = (16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16)

    def snap(value: float) -> int:
        return max(multiple, round(value / multiple) * multiple)

    return [(snap(math.sqrt(area_px / ratio)), snap(math.sqrt(area_px * ratio))) for ratio in ratios]


def paper_buckets(*, area_px: int = 768 * 768) -> list[Bucket]:
    """The five durations of Table 2, each in five aspect ratios.

    Where the table's ranges overlap (10.67 to 12 s) the bucket with more frames takes the file.

    Args:
        area_px: pixels of a frame, 768 x 768 or 256 x 256 in the paper.
    """
    durations = (
        {"num_frames": 256, "fps": 16.0, "min_s": 16.0},
        {"num_frames": 256, "fps": 16.0, "max_fps": 256 / 12, "min_s": 12.0, "max_s": 16.0},
        {"num_frames": 256, "fps": 24.0, "min_s": 256 / 24, "max_s": 12.0},
        {"num_frames": 192, "fps": 16.0, "max_fps": 24.0, "min_s": 8.0, "max_s": 12.0},
        {"num_frames": 128, "fps": 16.0, "max_fps": 32.0, "min_s": 4.0, "max_s": 8.0},
    )
    return [Bucket(height=height, width=width, **duration) for duration in durations for height, width in aspect_sizes(area_px)]
