"""The record that curation is about: a stretch of a medium, and all that is known of it."""

import base64
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from moviegen_core.errors import UsageError

PART = "+"  # between a medium's key and a clip's number; no medium's key holds it
FILE_FACTS = (
    "frames", "fps", "duration_s", "width", "height", "codec", "pixel_format", "rotation", "bytes",
    "has_audio", "audio_hz", "num_channels", "audio_problem",
)  # fmt: skip
TAKEN = frozenset({"schema", "key", "caption", "source", "scores", "cut", *FILE_FACTS})  # have a meaning of their own in shards
_MAX_TOLD = 1000


@dataclass(frozen=True)
class Drop:
    """Why a clip was left out.

    Args:
        stage: name of the stage in the configuration.
        reason: a short class of reasons, the same words for the same reason, e.g. `too short`; clips are counted by it.
        measured: what was seen, e.g. `2.1 s`.
        wanted: what would have passed, e.g. `4 s to 120 s`.
    """

    stage: str
    reason: str
    measured: str = ""
    wanted: str = ""

    @property
    def detail(self) -> str:
        """What was measured and wanted, as far as it is known."""
        return ", ".join(filter(None, (self.measured, f"wanted {self.wanted}" if self.wanted else "")))

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Clip:
    """A stretch of a medium, and all that is known of it. Stages return changed copies.

    Args:
        key: unique name; that of a clip within a video is the video's and a number.
        source: path of the medium, relative to the folder that is curated.
        start_s: where it begins in the medium, in seconds.
        end_s: where it ends; None is the medium's end.
        facts: what the medium is: `width`, `height` (as shown), `fps`, `duration_s`, `has_audio`, ...; in the shard's json.
        scores: what stages measured, by name; in the shard's json under `scores`.
        annotations: what stages found out, by name (`camera_motion`, `tags`, ...); in the shard's json.
        caption: what is to be seen and heard; empty while nobody said.
        vectors: embeddings for stages that compare clips; never in the shards.
        drop: why it was left out; None while it was not.
    """

    key: str
    source: str
    start_s: float = 0.0
    end_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    annotations: Mapping[str, Any] = field(default_factory=dict)
    caption: str = ""
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    drop: Drop | None = None

    @property
    def duration_s(self) -> float:
        """Its length in seconds; infinite while the end is not known."""
        end_s = self.facts.get("duration_s") if self.end_s is None else self.end_s
        return math.inf if end_s is None else float(end_s) - self.start_s

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole medium."""
        return self.start_s == 0.0 and self.end_s is None

    def scored(self, **scores: float) -> Self:
        """A copy with further scores.

        Raises:
            ValueError: one is not a finite number, which no threshold could judge.
        """
        for name, score in scores.items():
            if not math.isfinite(score):
                raise ValueError(f"the score {name}={score} of {self.key!r} is not finite; drop the clip with a reason instead")
        return replace(self, scores={**self.scores, **{name: round(float(score), 6) for name, score in scores.items()}})

    def described(self, **facts: Any) -> Self:
        """A copy with further facts about the medium.

        Raises:
            UsageError: one is called as an annotation, which would be lost in the shards.
        """
        self._require_apart(self.annotations, facts)
        return replace(self, facts={**self.facts, **facts})

    def annotated(self, **annotations: Any) -> Self:
        """A copy with further annotations.

        Raises:
            UsageError: one is called as a fact, or as another field of the shards' json.
        """
        self._require_apart(annotations, TAKEN.union(self.facts))
        return replace(self, annotations={**self.annotations, **annotations})

    def _require_apart(self, annotations: Iterable[str], others: Collection[str]) -> None:
        both = sorted(set(annotations).intersection(others))
        if both:
            exists = "a clip's facts and annotations become one record, in which this name means something else"
            raise UsageError(f"the annotation {both[0]!r} of {self.key!r} was given", exists, "let the stage call it otherwise")

    def embedded(self, **vectors: np.ndarray) -> Self:
        """A copy with further embeddings, kept in half precision.

        Raises:
            ValueError: one is no vector, or holds numbers that half precision has not.
        """
        with np.errstate(over="ignore"):
            halves = {name: np.asarray(vector, np.float16) for name, vector in vectors.items()}
        for name, half in halves.items():
            if half.ndim != 1 or not np.isfinite(half).all():
                told = f"the embedding {name} of {self.key!r} has the shape {half.shape}, or numbers that half precision has not"
                raise ValueError(f"{told}; embeddings are vectors of at most 65504; scale it, or drop the clip with a reason")
        return replace(self, vectors={**self.vectors, **halves})

    def part(self, number: int, start_s: float, end_s: float) -> Self:
        """A stretch of it as a clip of its own, with the same facts and no scores."""
        return replace(
            self, key=f"{self.key}{PART}{number:03d}", start_s=round(start_s, 6), end_s=round(end_s, 6), scores={}, vectors={}, drop=None
        )

    def dropped(self, reason: str, *, measured: str = "", wanted: str = "", stage: str = "") -> Self:
        """A copy that is left out; the engine fills in the stage's name.

        Args:
            reason: short class of reasons.
            measured: what was seen.
            wanted: what would have passed.
            stage: name of the stage, where it is not the one that is running.
        """
        return replace(self, drop=Drop(stage, *(_told(text) for text in (reason, measured, wanted))))

    def to_json(self) -> str:
        """One line of json; equal clips give equal lines."""
        record: dict[str, Any] = {name: getattr(self, name) for name in ("key", "source", "start_s", "end_s", "caption")}
        record |= {name: dict(getattr(self, name)) for name in ("facts", "scores", "annotations")}
        record["vectors"] = {name: base64.b64encode(vector.astype("<f2").tobytes()).decode() for name, vector in self.vectors.items()}
        record["drop"] = None if self.drop is None else vars(self.drop)
        return json.dumps(record, ensure_ascii=False, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The clip of a line that `to_json` wrote."""
        return cls.from_record(json.loads(line))

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """The clip of a line that was read."""
        vectors = {name: np.frombuffer(base64.b64decode(text), "<f2") for name, text in record.pop("vectors").items()}
        drop = record.pop("drop")
        return cls(**record, vectors=vectors, drop=None if drop is None else Drop(**drop))


def _told(text: str) -> str:
    """A text that UTF-8 can hold, cut where an error message has no end."""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _MAX_TOLD else text[:_MAX_TOLD] + "..."
