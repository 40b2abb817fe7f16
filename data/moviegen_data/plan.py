"""The plan of batches: which samples make which batch on which rank, known before anything is read.

A plan is endless: batch number n of a rank is a pure function of (seed, n, rank, number of ranks). Epoch e is the batches e·m to (e+1)·m, m
being the same on every rank. Workers take no part in it: they fetch whole batches in the plan's order, so their number changes nothing.

Training plans carry on: what does not fill the last batch of an epoch opens the next, no sample comes twice before every other came once,
and ranks have equally many batches. Fixed plans (validation, prediction) show every sample in every epoch; where the samples do not divide
by the ranks, the last ranks repeat a few.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch.utils.data import DistributedSampler

from moviegen_data.buckets import Bucket
from moviegen_data.mixing import Shares, apportion_round, batch_counts, num_images_before
from moviegen_data.order import SampleOrder


@dataclass(frozen=True)
class BatchPlan:
    """One batch to be.

    Args:
        number: the batch's number in its stream's endless order.
        stream: which stream it belongs to: 0 videos, 1 images.
        bucket: its bucket's number in the stream.
        samples: (source, sample number) of each sample.
        draws: seeds of the random choices within each sample (where a clip starts).
        repeated: true for samples that only fill up the last rank's share of a fixed plan; writers of files leave them out.
    """

    number: int
    stream: int
    bucket: int
    samples: tuple[tuple[int, int], ...]
    draws: tuple[int, ...]
    repeated: tuple[bool, ...]


@dataclass(frozen=True)
class BucketPart:
    """The samples of one source in one bucket.

    Args:
        source: the source's number.
        order: their endless order.
        weight: their share of the bucket, relative to the other parts.
    """

    source: int
    order: SampleOrder
    weight: float


class BatchStream:
    """An endless stream of batches of one kind (videos or images).

    Args:
        buckets: shapes of batches.
        parts: for each bucket the parts it is drawn from; a bucket without parts never comes.
        batch_size: samples in a batch where the bucket says nothing.
        stream: the stream's number, part of what the plans say.
        seed: root of all randomness.
        rank: this process's number among those that see different data.
        world_size: how many such processes there are.
        carry: true for training plans, false for fixed ones.
        batch_weights: how many batches come of each bucket, relative to the others; as many as its samples make unless given.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        parts: Sequence[Sequence[BucketPart]],
        *,
        batch_size: int,
        stream: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        carry: bool = True,
        batch_weights: Sequence[float] | None = None,
    ) -> None:
        assert 0 <= rank < world_size and len(buckets) == len(parts)
        self.buckets, self.parts = list(buckets), [list(some) for some in parts]
        self.stream, self.seed, self.rank, self.world_size, self.carry = stream, seed, rank, world_size, carry
        self.batch_sizes = [bucket.batch_size or batch_size for bucket in buckets]
        self.num_samples = [sum(part.order.num_samples for part in some) for some in parts]
        self.num_batches = [self._count(bucket) for bucket in range(len(buckets))]
        if batch_weights is not None:
            self.num_batches = batch_counts(sum(self.num_batches), batch_weights)
        self.round_length = sum(self.num_batches)
        self._sequence: tuple[int, np.ndarray, np.ndarray] | None = None
        self._filled: dict[int, tuple[int, np.ndarray]] = {}
        self._given: dict[int, tuple[int, Shares]] = {}

    def identity(self) -> str:
        """SHA-256 over all that decides the batches, but for the rank."""
        parts = [[(part.source, part.weight, part.order.identity()) for part in some] for some in self.parts]
        settings = (self.buckets, parts, self.batch_sizes, self.num_batches, self.stream, self.seed, self.world_size, self.carry)
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    def batch(self, number: int) -> BatchPlan:
        """Batch `number` of the stream on this rank."""
        round_, position = divmod(number, self.round_length)
        buckets, occurrences = self._order(round_)
        return self._plan(number, int(buckets[position]), round_, int(occurrences[position]))

    def following(self, plan: BatchPlan) -> Iterator[tuple[tuple[int, int], int]]:
        """Samples (with their draws) of the same bucket that come after a batch, one round of them; they stand in for bad ones."""
        round_, position = divmod(plan.number, self.round_length)
        occurrence = int(self._order(round_)[1][position])
        for step in range(1, 2 * self.num_batches[plan.bucket] + 1):
            further, index = divmod(occurrence + step, self.num_batches[plan.bucket])
            later = self._plan(plan.number, plan.bucket, round_ + further if self.carry else 0, index)
            yield from zip(later.samples, later.draws, strict=True)

    def _count(self, bucket: int) -> int:
        samples, size = self.num_samples[bucket], self.batch_sizes[bucket] * self.world_size
        if not samples:
            return 0
        return max(1, samples // size) if self.carry else -(-samples // size)

    def _share(self, bucket: int) -> int:
        """Samples of a bucket on each rank in a fixed plan."""
        return -(-self.num_samples[bucket] // self.world_size)

    def _order(self, round_: int) -> tuple[np.ndarray, np.ndarray]:
        """Buckets of a round's batches, and which of its bucket's batches each one is; equal on every rank."""
        if self._sequence is None or self._sequence[0] != round_:
            buckets = np.repeat(np.arange(len(self.buckets)), self.num_batches)
            if self.carry:
                buckets = np.random.default_rng((self.seed, self.stream, round_, 1)).permutation(buckets)
            occurrences = np.empty_like(buckets)
            for bucket in range(len(self.buckets)):
                occurrences[buckets == bucket] = np.arange(self.num_batches[bucket])
            self._sequence = (round_, buckets, occurrences)
        return self._sequence[1:]

    def _plan(self, number: int, bucket: int, round_: int, occurrence: int) -> BatchPlan:
        size = self.batch_sizes[bucket]
        rows = self._fill(bucket, round_)[occurrence * size : (occurrence + 1) * size]
        samples = tuple((int(source), int(sample)) for source, sample in rows)
        first = (round_ * self.num_batches[bucket] + occurrence) * size * self.world_size + self.rank * size
        draws = tuple(range(first, first + len(samples))) if self.carry else (0,) * len(samples)
        place = self.rank * self._share(bucket) + occurrence * size
        repeated = tuple(not self.carry and place + row >= self.num_samples[bucket] for row in range(len(samples)))
        return BatchPlan(number, self.stream, bucket, samples, draws, repeated)

    def _fill(self, bucket: int, round_: int) -> np.ndarray:
        """(source, sample) of every place in this rank's batches of a bucket in a round."""
        if bucket not in self._filled or self._filled[bucket][0] != round_:
            self._filled[bucket] = (round_, self._carried(bucket, round_) if self.carry else self._fixed(bucket))
        return self._filled[bucket][1]

    def _carried(self, bucket: int, round_: int) -> np.ndarray:
        parts = self.parts[bucket]
        places = self.num_batches[bucket] * self.batch_sizes[bucket]
        before, counts = apportion_round(round_, places, [part.weight for part in parts], known=self._given.get(bucket))
        self._given[bucket] = (round_, (before, counts))
        rows = []
        for part, earlier, count in zip(parts, before.tolist(), counts.tolist(), strict=True):
            first = self.world_size * earlier + self.rank * count
            rows.append(_rows(part.source, part.order.take(first, first + count)))
        joined = np.concatenate(rows)
        if len(parts) > 1:
            joined = np.random.default_rng((self.seed, self.stream, bucket, round_, self.rank)).permutation(joined)
        return joined

    def _fixed(self, bucket: int) -> np.ndarray:
        rows = np.concatenate([_rows(part.source, part.order.take(0, part.order.num_samples)) for part in self.parts[bucket]])
        share = self._share(bucket)
        return rows[np.arange(self.rank * share, (self.rank + 1) * share) % len(rows)]


class PlanSampler(DistributedSampler):
    """Hands out the plans of an epoch's batches.

    It is a `DistributedSampler` because it already splits by rank, and Lightning then leaves it in place.

    Args:
        videos: the stream of videos (or whatever is read).
        images: the stream of images, or None.
        image_share: share of the batches that are images.
        batches_per_epoch: batches of an epoch on every rank; one round of the videos' samples unless given.
    """

    def __init__(
        self,
        videos: BatchStream,
        images: BatchStream | None = None,
        image_share: Fraction = Fraction(0),
        batches_per_epoch: int | None = None,
    ) -> None:
        self.streams = [videos] if images is None else [videos, images]
        self.image_share = image_share if images is not None else Fraction(0)
        self.num_batches = batches_per_epoch or max(1, round(videos.round_length / (1 - self.image_share)))
        self.num_replicas, self.rank = videos.world_size, videos.rank
        self.epoch = 0
        self.first_batch = 0

    def batch(self, number: int) -> BatchPlan:
        """Batch `number` of the endless order on this rank."""
        before, after = num_images_before(number, self.image_share), num_images_before(number + 1, self.image_share)
        return self.streams[1].batch(before) if after > before else self.streams[0].batch(number - before)

    def __iter__(self) -> Iterator[BatchPlan]:
        first = self.epoch * self.num_batches if self.streams[0].carry else 0
        # The range is fixed now, not when the first plan is asked for: the loader resets `first_batch` in between.
        return (self.batch(number) for number in range(first + self.first_batch, first + self.num_batches))

    def __len__(self) -> int:
        return self.num_batches

    def identity(self) -> str:
        """SHA-256 over all that decides the batches of every epoch, but for the rank."""
        settings = ([stream.identity() for stream in self.streams], self.image_share, self.num_batches)
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration hands out."""
        self.epoch = epoch


def _rows(source: int, samples: np.ndarray) -> np.ndarray:
    return np.stack([np.full_like(samples, source), samples], axis=1)
