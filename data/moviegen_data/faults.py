"""What can be wrong with a sample, and the report that keeps it from disappearing silently."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moviegen_data.wording import counted

logger = logging.getLogger("moviegen.data")


# What helps where most samples are skipped for a cause, by how this begins.
_ADVICE = {
    "no text embeddings": "write them with `moviegen predict` and TextShardWriter, or leave `text` out",
    "no cached latent": "give shards that LatentShardWriter has written, or leave `latents` out",
    "latent of a clip of another size": "give the sizes that the latents were made with, or make them anew",
    "no caption": "caption the samples, or leave `require_caption` out",
    "unknown camera motion": "correct `camera_motion` in the samples' json, or leave `camera_prefix` out",
    "no sound": "give shards with sounds",
    "no video or picture": "give shards with videos or pictures",
    "a picture, where clips are wanted": "give shards with videos, or buckets of one frame",
    "shorter than any bucket": "correct the buckets, or give longer clips",
    "between the durations": "correct the buckets",
    "too short": "ask for fewer frames, another rate or shorter sounds",
    "too large": "give `limits` that let them in, or smaller media",
    "too many frames": "give `limits` that let them in, or smaller media",
    "too long": "give `limits` that let them in, or smaller media",
}
_ADVICE_ELSE = "correct the shards"


def advice_for(counts: Mapping[str, int]) -> str:
    """What to do where no sample can be used.

    Args:
        counts: numbers of skipped samples by cause; the most frequent one decides.
    """
    cause = max(counts, key=lambda name: counts[name], default="")
    return next((advice for beginning, advice in _ADVICE.items() if cause.startswith(beginning)), _ADVICE_ELSE)


def _escaped(record: logging.LogRecord) -> bool:
    """Have a record say what any terminal takes: names of files, and what libraries say of them, may be no text."""
    record.msg, record.args = record.getMessage().encode(errors="backslashreplace").decode(), ()
    return True


logger.addFilter(_escaped)


class SampleError(Exception):
    """One sample cannot be used; the run goes on without it.

    Args:
        cause: a short class of failures, the same words for the same failure, e.g. `cannot be opened`; samples are counted by it.
        detail: what was seen in this one.
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(cause, detail)
        self.cause = cause
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.cause}: {self.detail}" if self.detail else self.cause


class SourceError(ValueError):
    """A whole source of samples cannot be used; the run ends."""


@dataclass(frozen=True)
class Skip:
    """One thing that was left out.

    Args:
        place: the shard or file.
        key: the sample's key or the member's name.
        cause: short class of failures.
        detail: what was seen.
    """

    place: str
    key: str
    cause: str
    detail: str = ""


@dataclass
class SkipReport:
    """Skipped samples, each once however often it was met; new ones are logged as they come.

    Args:
        skips: what was skipped, by place and key.
    """

    skips: dict[tuple[str, str], Skip] = field(default_factory=dict)

    def add(self, skip: Skip) -> None:
        """Count a skip and log it when it is new."""
        name = (skip.place, skip.key)
        if name not in self.skips:
            self.skips[name] = skip
            logger.warning("skipped %s of %s: %s%s", skip.key, skip.place, skip.cause, f" ({skip.detail})" if skip.detail else "")

    @property
    def counts(self) -> dict[str, int]:
        """Number of skipped samples by cause, the most frequent first."""
        return dict(Counter(skip.cause for skip in self.skips.values()).most_common())

    def summary(self, *, examples: int = 3) -> str:
        """Readable lines: a count and a few names for each cause; an empty text where nothing was skipped."""
        if not self.skips:
            return ""
        lines = [f"{counted(len(self.skips), 'sample was', 'samples were')} skipped:"]
        for cause, count in self.counts.items():
            names = [f"{skip.key} of {skip.place}" for skip in self.skips.values() if skip.cause == cause]
            more = f" and {count - examples} more" if count > examples else ""
            lines.append(f"  {count} x {cause}: {', '.join(names[:examples])}{more}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return {"num_skipped": len(self.skips), "by_cause": self.counts, "skips": [vars(skip) for skip in self.skips.values()]}

    def __len__(self) -> int:
        return len(self.skips)
