"""Which batches will come of samples, before any is made: counted by the plan itself, with everything that no batch takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from moviegen_data.buckets import Bucket, assign, why_none
from moviegen_data.order import SampleOrder
from moviegen_data.plan import BatchStream, BucketPart
from moviegen_data.wording import counted

_EXAMPLES = 3


@dataclass
class Forecast:
    """Samples by the bucket whose batches they are planned for, and those that no batch takes.

    Args:
        buckets: shapes of batches.
        batch_size: samples in a batch on each rank, where the bucket says nothing.
        num_ranks: ranks that share the samples.
        grouped: whether a loader looks at the sizes of all samples before it plans; with one shape for all it plans with every sample, and
            finds those that do not fit when it reads them.
    """

    buckets: Sequence[Bucket]
    batch_size: int
    num_ranks: int
    grouped: bool = True
    planned: list[int] = field(init=False)
    bad: list[int] = field(init=False)
    lost: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.planned, self.bad = [0] * len(self.buckets), [0] * len(self.buckets)

    def bucket_of(self, *, height: int, width: int, duration_s: float | None, is_video: bool) -> tuple[int | None, str]:
        """The number of a sample's bucket, or the reason why it has none."""
        number = assign(self.buckets, height=height, width=width, duration_s=duration_s, is_video=is_video)
        return number, "" if number is not None else why_none(self.buckets, duration_s=duration_s, is_video=is_video)

    def add(self, key: str, bucket: int | None, cause: str = "") -> None:
        """Count a sample for its bucket.

        Args:
            key: the sample's key.
            bucket: the bucket's number; None where none takes it.
            cause: why no batch takes it after all; empty where one does.
        """
        if bucket is None and not self.grouped:
            bucket = 0
        if bucket is not None:
            self.planned[bucket] += 1
            self.bad[bucket] += bool(cause)
        if cause:
            self.lost.setdefault(cause, []).append(key)

    def as_dict(self) -> dict[str, Any]:
        """Plain values: for each bucket its samples and batches of an epoch, what they leave over, and what no batch takes."""
        stream = self._stream()
        rows, total = [], max(1, sum(self.planned) - sum(self.bad))
        for number, bucket in enumerate(self.buckets):
            num_planned, num_batches = self.planned[number], stream.num_batches[number]
            num_samples, used = num_planned - self.bad[number], num_batches * stream.batch_sizes[number] * self.num_ranks
            rows.append({
                "bucket": str(bucket),
                "num_samples": num_samples,
                "num_bad": self.bad[number],
                "share": round(num_samples / total, 4),
                "batch_size": stream.batch_sizes[number],
                "num_batches": num_batches,
                "num_left": max(0, num_planned - used),
                "num_repeated": max(0, used - num_planned),
            })  # fmt: skip
        lost = [{"cause": cause, "num_samples": len(keys), "keys": keys} for cause, keys in self.lost.items()]
        return {
            "batches": rows,
            "num_batches": sum(row["num_batches"] for row in rows),
            "lost": sorted(lost, key=lambda row: -row["num_samples"]),
        }

    def _stream(self) -> BatchStream:
        parts = [[BucketPart(0, SampleOrder([count]), 1.0)] if count else [] for count in self.planned]
        return BatchStream(self.buckets, parts, batch_size=self.batch_size, world_size=self.num_ranks)


def forecast_lines(answer: dict[str, Any], num_ranks: int) -> list[str]:
    """A forecast for people."""
    rows = answer["batches"]
    ranks = "" if num_ranks == 1 else f" on each of {num_ranks} ranks"
    lines = [f"  batches of an epoch{ranks} (frames x rows x columns):"]
    for row in rows:
        ends = f", {row['num_left']} left for the next epoch" if row["num_left"] else ""
        ends = f", {counted(row['num_repeated'], 'comes', 'come')} twice: fewer than a step needs" if row["num_repeated"] else ends
        ends += f", others in the place of {counted(row['num_bad'], 'bad one')}" if row["num_bad"] else ""
        made = f"{_batches(row['num_batches'])} of {row['batch_size']}{ends}" if row["num_batches"] else "none"
        lines.append(f"    bucket {row['bucket']}: {counted(row['num_samples'], 'sample')} ({row['share']:.1%}), {made}")
    left, taken = sum(row["num_left"] for row in rows), sum(row["num_samples"] for row in rows)
    over = f"of which {counted(left, 'opens', 'open')} the next epoch"
    lines.append(f"    together {_batches(answer['num_batches'])} of {counted(taken, 'sample')}, {over}")
    if answer["lost"]:
        lines.append(f"  {counted(sum(row['num_samples'] for row in answer['lost']), 'sample is', 'samples are')} in no batch:")
    for row in answer["lost"]:
        more = f" and {row['num_samples'] - _EXAMPLES} more" if row["num_samples"] > _EXAMPLES else ""
        lines.append(f"    {row['num_samples']} x {row['cause']}: {', '.join(row['keys'][:_EXAMPLES])}{more}")
    return lines


def _batches(number: int) -> str:
    return counted(number, "batch", "batches")
