"""Mixing: several weighted sources in one stream, and images among videos (paper 3.2.2: 1 : 10; 3.1.1: 1 batch in 4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from moviegen_core.errors import UsageError
from moviegen_data.urls import shown


@dataclass(frozen=True)
class Source:
    """Some of the shards, with a weight among the others.

    Args:
        urls: folder, glob, brace range or path of shards, or a list of them.
        weight: share of the samples, relative to the other sources' weights; above 0.
    """

    urls: str | list[str]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise UsageError(
                f"the weight {self.weight} was given for {shown(self.urls)}",
                "weights are above 0",
                "give a weight, or leave the source out",
            )


@dataclass(frozen=True)
class ImageMix:
    """Images among the videos; a batch holds the one or the other.

    Args:
        urls: shards of pictures, or of videos of which single frames are taken.
        images: how many images ...
        videos: ... come to how many videos; 1 and 10 in joint training, 1 and 3 (by batch) for the autoencoder.
        by: whether the two numbers count samples or batches.
        batch_size: images in a batch; the data module's own where None.
    """

    urls: str | list[str] | list[Source]
    images: int = 1
    videos: int = 10
    by: Literal["sample", "batch"] = "sample"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.images < 1 or self.videos < 1 or (self.batch_size or 1) < 1:
            raise UsageError(f"{self} was given", "images, videos and batch_size are at least 1", "leave `images` out for no images")

    def batch_share(self, image_batch_size: int, video_batch_size: float) -> Fraction:
        """Share of the batches that hold images."""
        images, videos = Fraction(self.images), Fraction(self.videos)
        if self.by == "sample":
            images, videos = images / image_batch_size, videos / Fraction(video_batch_size).limit_denominator(1000)
        return images / (images + videos)


def apportion(total: int, weights: Sequence[float]) -> np.ndarray:
    """Divide a total by weights into whole numbers that add up to it (largest remainders)."""
    shares = np.asarray(weights, dtype=np.float64) / np.sum(weights) * total
    counts = np.floor(shares + 1e-9).astype(np.int64)
    order = np.argsort(-(shares - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


Shares = tuple[np.ndarray, np.ndarray]


def apportion_round(round_: int, total: int, weights: Sequence[float], *, known: tuple[int, Shares] | None = None) -> Shares:
    """What each weight got in the rounds before this one, and what it gets in it.

    A round divides its total into whole numbers; what a weight lost by that is owed to it later, so that over the rounds none gets too
    little, and one whose share of a round is far below one still gets its turn.

    Args:
        round_: the round, from 0 on.
        total: what a round divides.
        weights: by what.
        known: an earlier round and what this function said of it, from where it counts on; the work grows with the rounds between.
    """
    shares = np.asarray(weights, dtype=np.float64) / np.sum(weights) * total
    first, (before, counts) = 0, (np.zeros(len(shares), dtype=np.int64), apportion(total, weights))
    if np.allclose(shares, counts, rtol=0, atol=1e-9):
        return counts * round_, counts
    if known is not None and known[0] <= round_:
        first, (before, counts) = known
    for number in range(first + 1, round_ + 1):
        before = before + counts
        due = np.maximum(shares * (number + 1) - before, 0.0)
        counts = apportion(total, due)
    return before, counts


def batch_counts(total: int, weights: Sequence[float]) -> list[int]:
    """Divide about `total` batches by weights: exactly, where they are ratios of small numbers; none of a positive weight goes empty."""
    ratios = [Fraction(weight).limit_denominator(1000) for weight in weights]
    scale = math.lcm(*(ratio.denominator for ratio in ratios))
    parts = [int(ratio * scale) for ratio in ratios]
    parts = [part // math.gcd(*parts) for part in parts]
    if sum(parts) <= max(total, 100) and all(part or not weight for part, weight in zip(parts, weights, strict=True)):
        return [part * max(1, round(total / sum(parts))) for part in parts]
    return [max(int(weight > 0), int(count)) for weight, count in zip(weights, apportion(total, weights), strict=True)]


def num_images_before(number: int, share: Fraction) -> int:
    """How many of the first `number` batches hold images, spread evenly."""
    return int(number * share)
