"""Engines: where the parts of the data are worked on. Every engine gives the same result; a lost worker costs its time only."""

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.stage import Resources
from moviegen_data.curation.worker import Worker, WorkerDied


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
    """Passes parts through operators."""

    takes_resources = True  # whether it gives a stage what the configuration says under `resources`
    has_workers = True  # whether a medium that crashes a codec kills a process other than the run's own

    @abstractmethod
    def run(self, operators: Sequence[Operator], parts: Sequence[int]) -> Iterator[int]:
        """Pass every part through all operators in their order, and yield the numbers of those that are done, in any order.

        Args:
            operators: the first gets an empty part, the last keeps the result on disk.
            parts: numbers of the parts.
        """


class LocalEngine(Engine):
    """This machine, without anything to set up.

    Args:
        num_workers: processes; 0 does all in this one.
        max_restarts: how often the worker of one part is replaced when the system kills it, for want of memory say.

    Raises:
        UsageError: one of them is negative.
    """

    takes_resources = False

    def __init__(self, *, num_workers: int = 0, max_restarts: int = 8) -> None:
        require_at_least(0, num_workers=num_workers, max_restarts=max_restarts)
        self.num_workers, self.max_restarts, self.has_workers = num_workers, max_restarts, num_workers > 0

    def run(self, operators: Sequence[Operator], parts: Sequence[int]) -> Iterator[int]:
        """See `Engine.run`."""
        passage = Passage(tuple(operators))
        if not self.num_workers:
            for number in parts:
                yield passage(number)
            return
        left, deaths, workers = deque(parts), Counter[int](), list[Worker]()
        try:
            while left or any(worker.number is not None for worker in workers):
                workers += [Worker(passage) for _ in range(min(len(left), self.num_workers - len(workers)))]
                for worker in workers:
                    if left and worker.number is None:
                        worker.give(left.popleft())
                busy = {worker.pipe: worker for worker in workers if worker.number is not None}
                for pipe in wait(list(busy)):
                    worker = busy[pipe]
                    try:
                        done = worker.answer()
                    except WorkerDied as death:
                        self._judge(worker.number, death, deaths)
                        left.appendleft(worker.number)
                        workers.remove(worker)
                        worker.end()
                        continue
                    if done is not None:
                        yield done
        finally:
            for worker in workers:
                worker.end()

    def _judge(self, number: int, death: WorkerDied, deaths: Counter[int]) -> None:
        """Count a death; tell the user where another worker would die as well."""
        if not death.killed and not death.begun:
            raise UsageError(
                f"num_workers={self.num_workers} was given",
                f"no worker process could begin ({death.how}); what it printed tells why",
                "in a script of your own, call curate below `if __name__ == '__main__':`, and define stages in a module",
            ) from death
        deaths[number] += 1
        if deaths[number] > self.max_restarts:
            raise UsageError(
                f"part {number} was given to a worker process {deaths[number]} times",
                f"each of them died, the last by {death.how}; SIGKILL means want of memory most often",
                "give fewer `--engine.num_workers`, or lower the limits of `Probe`; what is done is kept",
            ) from death


@dataclass(frozen=True)
class Passage:
    """Passes the part of a number through operators.

    Args:
        operators: the operators in their order.
    """

    operators: tuple[Operator, ...]

    def __call__(self, number: int) -> int:
        """Work on a part."""
        part = Part(number)
        for operator in self.operators:
            part = operator.function(part)
        return part.number
