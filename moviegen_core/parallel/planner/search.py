"""Enumerates layouts, drops what cannot run or does not fit, and ranks the rest."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from moviegen_core.errors import UsageError
from moviegen_core.parallel.planner.devices import Device
from moviegen_core.parallel.planner.layout import Checkpointing, Layout, Precision
from moviegen_core.parallel.planner.memory import GIB, Memory, estimate_memory
from moviegen_core.parallel.planner.step_time import StepTime, estimate_time
from moviegen_core.parallel.planner.workload import Workload

KEPT: list[tuple[Checkpointing, float]] = [("none", 1.0), *(("selective", share / 4) for share in (4, 3, 2, 1)), ("block", 0.0)]
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")
MAX_CONTEXT, MAX_MICRO_BATCH = 32, 64
# Estimates this close are equal, and the plan that leaves more memory wins.
TIE = 0.01


@dataclass(frozen=True)
class Plan:
    """A layout and its estimates."""

    layout: Layout
    memory: Memory
    time: StepTime


@dataclass
class Search:
    """What was found.

    Args:
        fitting: plans that fit, best first.
        too_large: plans that do not, smallest first.
        refused: reasons for which meshes were dropped before they were estimated, and how many.
        room: bytes that a plan may take.
    """

    room: int
    fitting: list[Plan] = field(default_factory=list)
    too_large: list[Plan] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def search(
    workload: Workload, device: Device, *, num_gpus: int, global_batch: int, headroom: float = 0.05, reserve_gib: float = 0.0
) -> Search:
    """Estimate every layout for so many GPUs.

    Args:
        workload: what is trained.
        device: the GPU.
        num_gpus: all of them are used.
        global_batch: samples per optimizer step.
        headroom: share of the memory in [0, 1) to leave free.
        reserve_gib: memory to leave on every GPU for what the planner does not know.
    """
    found = Search(room=int((device.memory_gib * (1.0 - headroom) - reserve_gib) * GIB))
    for layout in _layouts(workload, device, num_gpus, global_batch, found.refused):
        parameters, footprint = workload.parameters(layout.tensor), workload.footprint(layout)
        memory = estimate_memory(parameters, footprint, layout, frozen=workload.frozen)
        time = estimate_time(workload.num_flops, parameters, footprint, layout, device)
        (found.fitting if memory.total <= found.room else found.too_large).append(Plan(layout, memory, time))
    found.fitting.sort(key=lambda plan: (plan.time.total, plan.memory.total))
    if found.fitting:
        best = found.fitting[0].time.total
        equal = [plan for plan in found.fitting if plan.time.total <= best * (1.0 + TIE)]
        found.fitting[: len(equal)] = sorted(equal, key=lambda plan: plan.memory.total)
    found.too_large.sort(key=lambda plan: plan.memory.total)
    return found


def _layouts(workload: Workload, device: Device, num_gpus: int, global_batch: int, refused: Counter[str]) -> Iterator[Layout]:
    for data, context, tensor in _meshes(workload, device, num_gpus, refused):
        if global_batch % data:
            refused[f"a batch of {global_batch} does not divide by the data-parallel size"] += 1
            continue
        each = global_batch // data
        for micro_batch in (size for size in range(1, min(each, MAX_MICRO_BATCH) + 1) if each % size == 0):
            for precision in PRECISIONS:
                for checkpointing, kept in KEPT:
                    yield Layout(data, context, tensor, checkpointing, kept, precision, micro_batch, each // micro_batch)


def _meshes(workload: Workload, device: Device, num_gpus: int, refused: Counter[str]) -> Iterator[tuple[int, int, int]]:
    """Meshes that use every GPU; tensor parallelism stays within a node."""
    for tensor in _divisors(num_gpus, device.gpus_per_node):
        for context in _divisors(num_gpus // tensor, min(MAX_CONTEXT, workload.num_tokens)):
            try:
                workload.parameters(tensor)
                workload.footprint(Layout(context=context, tensor=tensor))
            except UsageError as error:
                if context * tensor == 1:  # a backbone that cannot be planned at all
                    raise
                refused[f"{error.given}: {error.exists}"] += 1
                continue
            yield num_gpus // (context * tensor), context, tensor


def _divisors(number: int, largest: int) -> list[int]:
    return [size for size in range(1, min(number, largest) + 1) if number % size == 0]
