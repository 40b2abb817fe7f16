"""Says in plain lines why a plan was chosen, what limits it, and what the others lack."""

from collections.abc import Iterator
from dataclasses import asdict

from moviegen_core.parallel.planner.devices import Device
from moviegen_core.parallel.planner.memory import GIB, Memory
from moviegen_core.parallel.planner.search import Plan, Search
from moviegen_core.parallel.planner.step_time import utilisation
from moviegen_core.parallel.planner.workload import Workload

_HEADER = f"{'data':>6}{'context':>8}{'tensor':>7}  {'checkpointing':<15}{'type':<6}{'batch':<11}{'GiB':>6}{'s/step':>11}{'MFU':>5}"


def explain(workload: Workload, device: Device, search: Search, *, top: int) -> Iterator[str]:
    """The lines that `moviegen plan` prints before the configuration."""
    sides = " x ".join(map(str, workload.latent_shape[1:]))
    total = sum(parameter.numel() for parameter in workload.backbone.parameters())
    size = f"{total / 1e9:.1f} B" if total >= 1e9 else f"{total / 1e6:.1f} M"
    yield (
        f"{workload.name}: backbone of {size} parameters, latents of {sides}, "
        f"{workload.num_tokens:,} tokens, {workload.context_length} tokens of context"
    )
    yield _HEADER
    for plan in search.fitting[:top]:
        yield _row(workload, device, plan)
    best = search.fitting[0]
    yield ""
    yield f"chosen: {best.layout}"
    yield f"  memory of a GPU, GiB: {_parts(best.memory)}; room {search.room / GIB:.1f} of {device.memory_gib:g}"
    yield f"  seconds of a step: {_seconds(best)}"
    yield f"  {_reason(search)}"
    if len(search.fitting) > 1:
        yield f"  {_runner_up(search)}"
    for line in dropped(search):
        yield f"  {line}"
    for note in workload.notes:
        yield f"  note: {note}"


def dropped(search: Search) -> Iterator[str]:
    """What was left out, and why."""
    if search.too_large:
        faster = [plan for plan in search.too_large if search.fitting and plan.time.total < search.fitting[0].time.total]
        smallest = search.too_large[0]
        line = f"dropped: {len(search.too_large)} plans do not fit; the smallest, {smallest.layout}, "
        line += f"needs {smallest.memory.total / GIB:.1f} GiB"
        if faster:
            nearest = min(faster, key=lambda plan: plan.memory.total)
            line += f"; {len(faster)} would be faster, of which {nearest.layout} comes nearest with {nearest.memory.total / GIB:.1f} GiB"
        yield line
    for reason, count in search.refused.most_common():
        yield f"dropped: {count} meshes because {reason}"


def _row(workload: Workload, device: Device, plan: Plan) -> str:
    layout, seconds = plan.layout, plan.time.total
    kept = f" {layout.kept_activations:g}" if layout.checkpointing == "selective" else ""
    batch = f"{layout.micro_batch} x {layout.accumulate}"
    used = utilisation(workload.num_flops, layout, device, seconds)
    mesh = f"{layout.data:>6}{layout.context:>8}{layout.tensor:>7}  {layout.checkpointing + kept:<15}{layout.precision:<6}{batch:<11}"
    return f"{mesh}{plan.memory.total / GIB:>6.1f}{_shown(seconds):>11}{used:>5.0%}"


def _parts(memory: Memory) -> str:
    parts = [f"{name} {size / GIB:.1f}" for name, size in asdict(memory).items() if size >= 0.05 * GIB]
    return ", ".join([*parts, f"together {memory.total / GIB:.1f}"])


def _seconds(plan: Plan) -> str:
    names = {"again": "computed again", "shards": "FSDP not hidden", "tensor": "tensor parallelism", "context": "context parallelism"}

    parts = [
        f"{names.get(name, name)} {_shown(seconds)}" for name, seconds in asdict(plan.time).items() if seconds >= 0.002 * plan.time.total
    ]
    return ", ".join([*parts, f"together {_shown(plan.time.total)}"])


def _shown(seconds: float) -> str:
    return f"{seconds:,.2f}" if seconds >= 1.0 else f"{seconds:.2g}"


def _reason(search: Search) -> str:
    best = search.fitting[0]
    others = {name: seconds for name, seconds in asdict(best.time).items() if name != "products"}
    limit = max(others, key=lambda name: others[name])
    what = {
        "again": "computing activations a second time",
        "moves": "memory bandwidth",
        "tensor": "exchanges of tensor parallelism",
        "context": "exchanges of keys and values",
        "shards": "gathering parameters",
        "starts": "starting short kernels",
        "optimizer": "the optimizer",
    }[limit]
    share = others[limit] / best.time.total
    line = (
        f"why: the shortest step of {len(search.fitting)} plans that fit; beside the model's own products most goes to {what} ({share:.0%})"
    )
    if limit == "again" and any(_mesh(plan) == _mesh(best) and plan.time.again < best.time.again for plan in search.fitting):
        line += ", while parameters are gathered, so keeping more would gain little"
    return line


def _runner_up(search: Search) -> str:
    best = search.fitting[0]
    second = next((plan for plan in search.fitting[1:] if _mesh(plan) != _mesh(best)), search.fitting[1])
    slower = second.time.total / best.time.total - 1.0
    return f"runner-up on another mesh: {second.layout}, {slower:+.1%} time, {second.memory.total / GIB:.1f} GiB"


def _mesh(plan: Plan) -> tuple[int, int, int]:
    return plan.layout.data, plan.layout.context, plan.layout.tensor
