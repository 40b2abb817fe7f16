"""Which batches will come of samples, before any is made: counted by the plan itself, with everything that no batch takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from moviegen_data.buckets import Bucket, assign
from moviegen_data.order import SampleOrder
from moviegen_data.plan import BatchStream, BucketPart

_EXAMPLES = 3


@dataclass
class Forecast:
    """Samples by the bucket that takes them, and those that none takes.

    Args:
        buckets: shapes of batches.
        batch_size: samples in a batch on each rank, where the bucket says nothing.
        num_ranks: ranks that share the samples.
    """

    buckets: Sequence[Bucket]
    batch_size: int
    num_ranks: int
    taken: list[int] = field(init=False)
    lost: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taken = [0] * len(self.buckets)

    def add(self, key: str, *, height: int, width: int, duration_s: float | None, is_video: bool) -> None:
        """Count a sample for its bucket, or for the reason why it has none."""
        number = assign(self.buckets, height=height, width=width, duration_s=duration_s)
        if number is None:
            self.lose(key, why_none(self.buckets, duration_s))
        elif self.buckets[number].num_frames > 1 and not is_video:
            self.lose(key, "a picture, where clips are wanted")
        else:
            self.taken[number] += 1

    def lose(self, key: str, cause: str) -> None:
        """Count a sample that no batch takes."""
        self.lost.setdefault(cause, []).append(key)

    def as_dict(self) -> dict[str, Any]:
        """Plain values: for each bucket its samples and batches of an epoch, what they leave over, and what no batch takes."""
        stream = self._stream()
        rows, total = [], max(1, sum(self.taken))
        for number, bucket in enumerate(self.buckets):
            num_samples, num_batches = self.taken[number], stream.num_batches[number]
            used = num_batches * stream.batch_sizes[number] * self.num_ranks
            rows.append({
                "bucket": str(bucket),
                "num_samples": num_samples,
                "share": round(num_samples / total, 4),
                "batch_size": stream.batch_sizes[number],
                "num_batches": num_batches,
                "num_left": max(0, num_samples - used),
                "num_repeated": max(0, used - num_samples),
            })  # fmt: skip
        lost = [{"cause": cause, "num_samples": len(keys), "keys": keys} for cause, keys in self.lost.items()]
        return {
            "batches": rows,
            "num_batches": sum(row["num_batches"] for row in rows),
            "lost": sorted(lost, key=lambda row: -row["num_samples"]),
        }

    def _stream(self) -> BatchStream:
        parts = [[BucketPart(0, SampleOrder([count]), 1.0)] if count else [] for count in self.taken]
        return BatchStream(self.buckets, parts, batch_size=self.batch_size, world_size=self.num_ranks)


def why_none(buckets: Sequence[Bucket], duration_s: float | None) -> str:
    """Why a file of some length has no bucket."""
    shortest = min(max(bucket.min_s, bucket.num_frames / (bucket.max_fps or bucket.fps or 24.0)) for bucket in buckets)
    if duration_s is not None and duration_s < shortest:
        return f"shorter than any bucket takes ({shortest:.2f} s)"
    return "between the durations that the buckets take"


def forecast_lines(answer: dict[str, Any], num_ranks: int) -> list[str]:
    """A forecast for people."""
    rows = answer["batches"]
    ranks = "" if num_ranks == 1 else f" on each of {num_ranks} ranks"
    lines = [f"  batches of an epoch{ranks} (frames x rows x columns):"]
    for row in rows:
        ends = f", {row['num_left']} left for the next epoch" if row["num_left"] else ""
        ends = f", {row['num_repeated']} come twice: fewer than a step needs" if row["num_repeated"] else ends
        made = f"{row['num_batches']} batches of {row['batch_size']}{ends}" if row["num_samples"] else "none"
        lines.append(f"    bucket {row['bucket']}: {row['num_samples']} samples ({row['share']:.1%}), {made}")
    left, taken = sum(row["num_left"] for row in rows), sum(row["num_samples"] for row in rows)
    lines.append(f"    together {answer['num_batches']} batches of {taken} samples, of which {left} open the next epoch")
    if answer["lost"]:
        lines.append(f"  {sum(row['num_samples'] for row in answer['lost'])} samples are in no batch:")
    for row in answer["lost"]:
        more = f" and {row['num_samples'] - _EXAMPLES} more" if row["num_samples"] > _EXAMPLES else ""
        lines.append(f"    {row['num_samples']} x {row['cause']}: {', '.join(row['keys'][:_EXAMPLES])}{more}")
    return lines
