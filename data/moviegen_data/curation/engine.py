"""Engines: where the parts of the data are worked on. Every engine gives the same result; a lost worker costs its time only."""

import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import astuple, dataclass, field

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
    """

    entered: int = 0
    entered_s: float = 0.0
    left: int = 0
    left_s: float = 0.0
    spent_s: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(mine + yours for mine, yours in zip(astuple(self), astuple(other), strict=True)))


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
    """

    name: str
    function: Callable[[Part], Part]
    resources: Resources = Resources()


class Engine(ABC):
    """Passes parts through operators."""

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
        max_restarts: how often workers that were killed, by a lack of memory say, are replaced.

    Raises:
        UsageError: one of them is negative.
    """

    def __init__(self, *, num_workers: int = 0, max_restarts: int = 3) -> None:
        require_at_least(0, num_workers=num_workers, max_restarts=max_restarts)
        self.num_workers, self.max_restarts = num_workers, max_restarts

    def run(self, operators: Sequence[Operator], parts: Sequence[int]) -> Iterator[int]:
        """See `Engine.run`."""
        if not self.num_workers:
            for number in parts:
                _pass_through(operators, number)
                yield number
            return
        left, restarts = set(parts), 0
        while left:
            try:
                for number in self._run_pool(operators, sorted(left)):
                    left.discard(number)
                    yield number
            except BrokenProcessPool as error:
                restarts += 1
                if restarts > self.max_restarts:
                    raise UsageError(
                        f"{self.num_workers} worker processes were started and killed {restarts} times",
                        "the system kills them, most often for want of memory",
                        "give fewer `engine.init_args.num_workers`; what is done is kept",
                    ) from error

    def _run_pool(self, operators: Sequence[Operator], parts: Sequence[int]) -> Iterator[int]:
        context = multiprocessing.get_context("spawn")  # libraries with threads do not survive a fork
        with ProcessPoolExecutor(self.num_workers, mp_context=context, initializer=_begin, initargs=(tuple(operators),)) as pool:
            futures = {pool.submit(_work, number): number for number in parts}
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


_OPERATORS: tuple[Operator, ...] = ()  # of a worker process; sent once, so that models are loaded once


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
