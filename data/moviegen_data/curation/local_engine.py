"""This machine as the engine: the run's own process, or some worker processes beside it."""

import pickle
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Self

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.engine import Engine, Operator, Part
from moviegen_data.curation.worker import CannotBegin, Worker, WorkerDied, end
from moviegen_data.faults import logger


class LocalEngine(Engine):
    """This machine, without anything to set up.

    Workers start when there is work for them. In a `with` block they go on from one run to the next, without the models of the last one.

    Args:
        num_workers: processes; 0 does all in this one. Each loads the models of all stages, on a GPU as well.
        max_restarts: how often the worker of one part is replaced when the system kills it, for want of memory say.

    Raises:
        UsageError: one of them is negative.
    """

    takes_resources = False

    def __init__(self, *, num_workers: int = 0, max_restarts: int = 8) -> None:
        require_at_least(0, num_workers=num_workers, max_restarts=max_restarts)
        self.num_workers, self.max_restarts, self.has_workers = num_workers, max_restarts, num_workers > 0
        self._num_blocks, self._idle = 0, list[Worker]()

    def __enter__(self) -> Self:
        """See `Engine`."""
        self._num_blocks += 1
        return self

    def __exit__(self, *_: object) -> None:
        """See `Engine`."""
        self._num_blocks -= 1
        if not self._num_blocks:
            idle, self._idle = self._idle, []
            end(idle)

    def run(self, operators: Sequence[Operator], parts: Sequence[int]) -> Iterator[int]:
        """See `Engine.run`."""
        passage = Passage(tuple(operators))
        if not self.num_workers:
            for number in parts:
                yield passage(number)
            return
        function = passage.pickled()
        tell_of_copies(operators, min(self.num_workers, len(parts)))
        workers, self._idle = self._idle, []
        try:
            yield from self._hand_out(function, parts, workers)
            if self._num_blocks:
                for worker in workers:
                    worker.forget()
                self._idle, workers = workers, self._idle  # there are some already where two runs took turns
        finally:
            end(workers)

    def _hand_out(self, function: bytes, parts: Sequence[int], workers: list[Worker]) -> Iterator[int]:
        """Have the workers call a function of every part; replace those that die."""
        left, deaths = deque(parts), Counter[int]()
        for worker in [worker for worker in workers if not worker.is_alive()]:  # killed while it was at no part
            workers.remove(worker)
            end([worker])
        while left or any(worker.number is not None for worker in workers):
            idle = [worker for worker in workers if worker.number is None]
            for _ in range(min(len(left) - len(idle), self.num_workers - len(workers))):
                workers.append(Worker())
                idle.append(workers[-1])
            for worker in idle[: len(left)]:
                worker.give(function, left.popleft())
            busy = {worker.pipe: worker for worker in workers if worker.number is not None}
            for pipe in wait(list(busy)):
                worker = busy[pipe]
                try:
                    done = worker.answer()
                except CannotBegin as error:
                    raise self._cannot_begin(error) from error
                except WorkerDied as death:
                    self._judge(worker.number, death, deaths)
                    left.appendleft(worker.number)
                    workers.remove(worker)
                    end([worker])
                    continue
                if done is not None:
                    yield done

    def _cannot_begin(self, error: CannotBegin) -> UsageError:
        return UsageError(
            f"num_workers={self.num_workers} was given",
            f"no worker process could begin ({error})",
            "in a script of your own, call curate below `if __name__ == '__main__':`, and define stages in a module",
        )

    def _judge(self, number: int, death: WorkerDied, deaths: Counter[int]) -> None:
        """Count a death; tell the user where another worker would die as well."""
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

    def pickled(self) -> bytes:
        """The passage as it is sent to workers.

        Raises:
            UsageError: an operator cannot be sent.
        """
        for operator in self.operators:
            try:
                pickle.dumps(operator)
            except Exception as error:  # a stranger's stage may raise anything
                raise UsageError(
                    f"the stages {operator.name} were given with worker processes",
                    f"they cannot be sent to these ({type(error).__name__}: {error})",
                    "keep plain arguments in a stage's constructor, load the rest in a `functools.cached_property`, or give no num_workers",
                ) from error
        return pickle.dumps(self)


def tell_of_copies(operators: Sequence[Operator], num_workers: int) -> None:
    """Warn where several workers will each load the same models onto one GPU.

    Args:
        operators: what they do.
        num_workers: how many there will be.
    """
    names = ", ".join(operator.name for operator in operators if operator.uses_gpu)
    if not names or num_workers < 2:
        return
    import torch

    if torch.cuda.is_available():
        whose = "each of the %d workers loads its own models of %s, onto the first GPU where a stage's `device` says nothing else"
        advice = (
            "where they do not fit, give fewer `--engine.num_workers`, or `--engine RayEngine`: there a GPU has one worker of such stages"
        )
        logger.warning(f"{whose}; {advice}", num_workers, names)
