"""Engines: where the parts of the data are worked on. Every engine gives the same result; a lost worker costs its time only."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from moviegen_data.curation.clip import Clip
from moviegen_data.curation.stage import Resources


@dataclass
class Tally:
    """What a stage did to a part, or to all.

    Args:
        entered: clips that it looked at.
        entered_s: their seconds.
        left: clips that it let pass, or made.
        left_s: their seconds.
        spent_s: seconds that it took on one worker.
        kept_scores: the scores that it gave clips it let pass, by the scores' names.
        dropped_scores: those that it gave clips it dropped.
    """

    entered: int = 0
    entered_s: float = 0.0
    left: int = 0
    left_s: float = 0.0
    spent_s: float = 0.0
    kept_scores: dict[str, list[float]] = field(default_factory=dict)
    dropped_scores: dict[str, list[float]] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Count what another one counted."""
        for name in ("entered", "entered_s", "left", "left_s", "spent_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.kept_scores, other.kept_scores), (self.dropped_scores, other.dropped_scores)):
            for name, scores in theirs.items():
                mine.setdefault(name, []).extend(scores)


@dataclass
class Part:
    """A part of the data on its way through operators.

    Args:
        number: which part, from 0.
        clips: its clips.
        tallies: what was done to it, by the stages' names.
    """

    number: int
    clips: list[Clip] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)


@dataclass(frozen=True)
class Operator:
    """A pure function of a part, and what one worker of it takes.

    Args:
        name: what it is called in progress reports.
        function: gives the part as it is afterwards; can be pickled, and done twice without harm.
        resources: what one worker takes.
        uses_gpu: whether a GPU is of use to it.
    """

    name: str
    function: Callable[[Part], Part]
    resources: Resources = Resources()
    uses_gpu: bool = False


class Engine(ABC):
    """Passes parts through operators.

    In a `with` block an engine may keep what takes time to set up, e.g. processes, from one run to the next; behind the block none is left.
    """

    takes_resources = True  # whether it gives a stage what the configuration says under `resources`
    has_workers = True  # whether a medium that crashes a codec kills a process other than the run's own

    @abstractmethod
    def run(self, operators: Sequence[Operator], parts: Sequence[int]) -> Iterator[int]:
        """Pass every part through all operators in their order, and yield the numbers of those that are done, in any order.

        Args:
            operators: the first gets an empty part, the last keeps the result on disk.
            parts: numbers of the parts.
        """

    def __enter__(self) -> Self:
        """Begin to keep what a run has set up for the next one; blocks may lie within blocks."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all that was kept."""
        return None
