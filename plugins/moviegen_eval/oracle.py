"""The toy world's oracle: reads colour, shape, size, motion, number and ground back from pixels, without ever seeing the prompt.

Classical image processing only; nothing here is trained. It scores generated clips, so it has to survive blur, noise and compression, and
to say "none" rather than guess when there is nothing to read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np
from torch import Tensor

from moviegen_core.errors import UsageError
from moviegen_data.toyworld import COLOURS, MOTIONS, SHAPES, ObjectSpec, SceneSpec
from moviegen_eval.attributes import read_ground, read_motion, read_shape, read_size
from moviegen_eval.segmentation import Segment, segment

ATTRIBUTES = ("colour", "shape", "motion")


@dataclass(frozen=True)
class ObjectReading:
    """What the oracle reads of one object; "none" where it cannot tell.

    Args:
        colour: a name of the palette.
        shape: a shape.
        size: "small" or "large".
        motion: a motion; "none" for fewer than four frames.
        confidence: how sure each answer is, "none" included, 0 to 1 by attribute.
        track: centre x, centre y in pixels and area in pixels, frame by frame (t, 3).
    """

    colour: str = "none"
    shape: str = "none"
    size: str = "none"
    motion: str = "none"
    confidence: Mapping[str, float] = field(default_factory=dict)
    track: np.ndarray | None = None


@dataclass(frozen=True)
class Reading:
    """What the oracle reads of a clip; colour, shape, size and motion are those of its largest object.

    Args:
        objects: the objects, largest first.
        num_objects: how many there are, those too alike to tell apart included.
        ground: a kind of ground, or "none".
        confidence: how sure each answer is, "none" included, 0 to 1 by attribute.
    """

    objects: tuple[ObjectReading, ...]
    num_objects: int
    ground: str
    confidence: Mapping[str, float]

    @property
    def main(self) -> ObjectReading:
        """The largest object; all "none" where there is none."""
        return self.objects[0] if self.objects else ObjectReading()

    @property
    def colour(self) -> str:
        """Colour of the largest object."""
        return self.main.colour

    @property
    def shape(self) -> str:
        """Shape of the largest object."""
        return self.main.shape

    @property
    def size(self) -> str:
        """Size of the largest object."""
        return self.main.size

    @property
    def motion(self) -> str:
        """Motion of the largest object."""
        return self.main.motion


@dataclass(frozen=True)
class OracleScore:
    """Fractions of objects whose attribute was read as the scene says.

    Args:
        colour: fraction in [0, 1].
        shape: fraction in [0, 1].
        motion: fraction in [0, 1].
        all: fraction of objects with colour, shape and motion right at once.
        num_objects: fraction of clips with the right number of objects.
        num_scored: how many objects were scored.
    """

    colour: float
    shape: float
    motion: float
    all: float
    num_objects: float
    num_scored: int

    def to_dict(self) -> dict[str, float]:
        """The three fractions that reports quote."""
        return {name: getattr(self, name) for name in ATTRIBUTES}


class Oracle:
    """Reads toy clips. It holds no state and no settings."""

    def read(self, video: np.ndarray | Tensor) -> Reading:
        """Read one clip.

        Args:
            video: uint8 in 0..255 or float in [-1, 1]; (t, h, w, 3) or (3, t, h, w).
        """
        frames = as_frames(video)
        side = min(frames.shape[1:3])
        segments, free = segment(frames)
        objects = tuple(_describe(item, side) for item in segments)
        ground, ground_confidence = read_ground(frames, free)
        confidence = dict(objects[0].confidence) if objects else dict.fromkeys(("colour", "shape", "size", "motion"), 1.0)
        return Reading(objects, len(objects) + sum(item.twins for item in segments), ground, {**confidence, "ground": ground_confidence})

    def score(self, videos: Sequence[np.ndarray | Tensor], specs: Sequence[SceneSpec]) -> OracleScore:
        """Read every clip, then compare with what it should show; two objects are matched the way that agrees best.

        Args:
            videos: clips, each as `read` takes it.
            specs: what each should show.
        """
        if len(videos) != len(specs) or not len(videos):
            given = f"{len(videos)} videos and {len(specs)} scenes were given"
            raise UsageError(given, "each video has its scene", "give as many of both, at least one")
        hits: list[tuple[bool, ...]] = []
        counted = 0
        for video, spec in zip(videos, specs, strict=True):
            reading = self.read(video)
            counted += reading.num_objects == len(spec.objects)
            hits += match(reading, spec)
        table = np.array(hits)
        colour, shape, motion = table.mean(0)
        together = float(table.all(1).mean())
        return OracleScore(float(colour), float(shape), float(motion), together, counted / len(videos), len(table))


def match(reading: Reading, spec: SceneSpec) -> list[tuple[bool, bool, bool]]:
    """For each object of the scene, whether colour, shape and motion are right, under the best assignment of readings to objects."""
    size = len(spec.objects)
    readings = [*reading.objects, *[ObjectReading()] * size]
    # One object is wanted: the largest one must be it, however many others a clip shows.
    candidates = readings[:1] if size == 1 else readings
    orders = permutations(candidates, size)
    choices = [[_compare(found, wanted) for found, wanted in zip(order, spec.objects, strict=True)] for order in orders]
    return max(choices, key=lambda rows: sum(map(sum, rows)))


def chance() -> dict[str, float]:
    """Fractions that a uniform guess of an object gets right."""
    return {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "motion": 1 / len(MOTIONS)}


def as_frames(video: Any) -> np.ndarray:
    """Any accepted clip as float32 (t, h, w, 3) in 0..255."""
    frames = video.detach().cpu().float().numpy() if isinstance(video, Tensor) and video.is_floating_point() else np.asarray(video)
    if frames.ndim != 4 or 3 not in (frames.shape[-1], frames.shape[0]):
        given = f"a clip of shape {tuple(frames.shape)} was given"
        raise UsageError(given, "the oracle reads (t, h, w, 3) or (3, t, h, w)", "move the axes first")
    is_float = np.issubdtype(frames.dtype, np.floating)
    if frames.shape[-1] != 3:
        frames = np.moveaxis(frames, 0, -1)
    frames = np.nan_to_num(frames.astype(np.float32))
    return np.clip((frames + 1) * 127.5, 0, 255) if is_float else frames


def _describe(item: Segment, side: int) -> ObjectReading:
    shape, shape_confidence = read_shape(item)
    size, size_confidence = read_size(item, shape, side)
    motion, motion_confidence = read_motion(item, side)
    confidence = {"colour": item.colour_confidence, "shape": shape_confidence, "size": size_confidence, "motion": motion_confidence}
    return ObjectReading(item.colour, shape, size, motion, confidence, np.column_stack([item.centre, item.area]))


def _compare(found: ObjectReading, wanted: ObjectSpec) -> tuple[bool, bool, bool]:
    return found.colour == wanted.colour, found.shape == wanted.shape, found.motion == wanted.motion
