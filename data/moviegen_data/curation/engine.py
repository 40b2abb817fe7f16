"""Engines: where the parts of the data are worked on. Every engine gives the same result; a lost worker costs its time only."""

import multiprocessing
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from moviegen_core.errors import UsageError, require_at_least
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
    """Passes parts through operators."""

    takes_resources = True  # whether it gives a stage what the configuration says under `resources`

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
        self.num_workers, self.max_restarts = num_workers, max_restarts

    def run(self, operators: Sequence[Operator], parts: Sequence[int]) -> Iterator[int]:
        """See `Engine.run`."""
        if not self.num_workers:
            for number in parts:
                _pass_through(operators, number)
                yield number
            return
        left, deaths = deque(parts), Counter[int]()
        workers = [_start(operators) for _ in range(min(self.num_workers, len(parts)))]
        busy: dict[Future[int], tuple[ProcessPoolExecutor, int]] = {}
        try:
            while left or busy:
                while left and workers:
                    worker, number = workers.pop(), left.popleft()
                    busy[worker.submit(_work, number)] = worker, number
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    worker, number = busy.pop(future)
                    try:
                        yield future.result()
                    except BrokenProcessPool as error:
                        deaths[number] += 1
                        if deaths[number] > self.max_restarts:
                            raise self._gave_up(number, deaths[number]) from error
                        worker.shutdown(wait=False)
                        worker = _start(operators)
                        left.appendleft(number)
                    workers.append(worker)
        finally:
            for worker in [*workers, *(worker for worker, _ in busy.values())]:
                worker.shutdown(wait=False, cancel_futures=True)

    def _gave_up(self, number: int, times: int) -> UsageError:
        return UsageError(
            f"part {number} was given to a worker process {times} times",
            "the system killed it each time, most often for want of memory",
            "give fewer `engine.init_args.num_workers`, or lower the limits of `Probe`; what is done is kept",
        )


_OPERATORS: tuple[Operator, ...] = ()  # of a worker process; sent once, so that models are loaded once


def _start(operators: Sequence[Operator]) -> ProcessPoolExecutor:
    """A pool of one worker, so that one that is killed takes no other's part with it."""
    context = multiprocessing.get_context("spawn")  # libraries with threads do not survive a fork
    return ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(tuple(operators),))


def _begin(operators: tuple[Operator, ...]) -> None:
    global _OPERATORS
    _OPERATORS = operators


def _work(number: int) -> int:
    return _pass_through(_OPERATORS, number)


def _pass_through(operators: Sequence[Operator], number: int) -> int:
    part = Part(number)
    for operator in operators:
        part = operator.function(part)
    return part.number
