"""Which share of the samples a process sees."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataPlace:
    """A process's place among those that see different samples.

    Args:
        rank: its number among them, from 0.
        count: how many there are.
        leads: true on one process of those that see the same samples; this one writes files.
    """

    rank: int = 0
    count: int = 1
    leads: bool = True


def data_place(trainer: Any) -> DataPlace:
    """The place of this process in a trainer's strategy; that of the only one where there is no trainer."""
    strategy = getattr(trainer, "strategy", None)
    split = getattr(strategy, "distributed_sampler_kwargs", None)
    if not split:
        return DataPlace()
    return DataPlace(split["rank"], split["num_replicas"], getattr(strategy, "leads_replica", True))
