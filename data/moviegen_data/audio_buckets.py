"""Durations of sounds: every batch has one, and either all of its sounds come with a picture or none does (6.1.6, 6.2.3, 6.2.4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moviegen_core.errors import UsageError
from moviegen_data.buckets import Bucket

# A file may be this much shorter than what is asked for: codecs pad and cut their ends.
SLACK_S = 0.02


@dataclass(frozen=True)
class AudioBucket(Bucket):
    """One shape of batches of sounds; the sizes of the base class are those of the frames beside them, 1 where there are none.

    Args:
        duration_s: seconds of sound.
        with_picture: true where every sample brings frames or visual features.
    """

    duration_s: float = 10.0
    with_picture: bool = False

    def __str__(self) -> str:
        return f"{self.duration_s:g} s of sound" + (f" with {super().__str__()}" if self.with_picture else "")


def fitting(durations: Sequence[float], duration_s: float | None, *, min_share: float, every: bool) -> list[int]:
    """Which of the durations a sound of some length can fill.

    Args:
        durations: seconds of a chunk.
        duration_s: seconds of the sound; None, unknown, can fill the shortest only.
        min_share: share of a chunk that has to be sound; the rest is added silence.
        every: all that can be filled; otherwise the longest that is filled whole, or else the shortest where its share is enough.
    """
    shortest = min(range(len(durations)), key=durations.__getitem__)
    if duration_s is None:
        return [shortest]
    enough = [number for number, wanted in enumerate(durations) if duration_s + SLACK_S >= wanted * min_share]
    if every:
        return enough
    whole = [number for number in enough if duration_s + SLACK_S >= durations[number]]
    if whole:
        return [max(whole, key=durations.__getitem__)]
    return [number for number in enough if number == shortest]


def check_durations(durations: Sequence[float], weights: Sequence[float] | None, batch_sizes: Sequence[int] | None) -> None:
    """Refuse durations that no chunk can have, and weights or batch sizes that do not belong to them."""
    if not durations or len(set(durations)) < len(durations) or any(not 0 < duration < math.inf for duration in durations):
        raise UsageError(f"durations={list(durations)} was given", "chunks have different lengths above 0 s", "give e.g. [10, 30]")
    for name, values in (("duration_weights", weights), ("batch_sizes", batch_sizes)):
        if values is None:
            continue
        if len(values) != len(durations) or any(not 0 < value < math.inf for value in values):
            raise UsageError(
                f"{name}={list(values)} was given for durations={list(durations)}", "there is one above 0 for each", f"correct {name}"
            )
