"""What can be wrong with a sample, and the report that keeps it from disappearing silently."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger("moviegen.data")


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
        lines = [f"{len(self.skips)} samples were skipped:"]
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
