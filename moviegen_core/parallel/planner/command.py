"""`moviegen plan`: the mesh, checkpointing and batch for a preset on given GPUs. Torch is imported when it is called."""

import json as json_module
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from moviegen_core.errors import UsageError
from moviegen_core.files import write_bytes
from moviegen_core.parallel.planner.configuration import configuration, to_yaml
from moviegen_core.parallel.planner.devices import Device, find_device

if TYPE_CHECKING:
    from moviegen_core.parallel.planner.search import Plan, Search
    from moviegen_core.parallel.planner.workload import Workload


def plan(
    preset: str,
    *,
    gpus: int,
    gpu: str = "h100-80gb",
    global_batch: int | None = None,
    context_length: int | None = None,
    headroom: float = 0.05,
    reserve_gib: float = 0.0,
    top: int = 5,
    output: str | None = None,
    json: bool = False,
) -> None:
    """Print the best plans that fit, why the first was chosen, and its settings as YAML for a later `--config`.

    Args:
        preset: a preset or a YAML file.
        gpus: all GPUs together.
        gpu: which, e.g. h100-80gb, h200-141gb or a100-80gb.
        global_batch: samples per optimizer step; as the preset would run unless given.
        context_length: tokens of text per sample; the conditioners' `max_tokens` together unless given.
        headroom: share of a GPU's memory, from 0 to below 1, to leave free.
        reserve_gib: GiB to leave on every GPU for what the planner does not know, e.g. text encoders.
        top: plans to list.
        output: file to write the YAML to, instead of printing it.
        json: print a JSON object for scripts.
    """
    device = find_device(gpu)
    _check_numbers(
        gpus, device, global_batch=global_batch, context_length=context_length, headroom=headroom, reserve_gib=reserve_gib, top=top
    )
    # No encoder is downloaded for its size; one that is not on this machine is told of.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from moviegen_core.parallel.planner.explanation import explain
    from moviegen_core.parallel.planner.search import search
    from moviegen_core.parallel.planner.workload import read_workload

    workload = read_workload(preset, context_length=context_length)
    batch = global_batch or workload.global_batch
    if batch is None:
        raise UsageError(f"{preset} was given without --global_batch", "the preset does not say it", "give --global_batch")
    found = search(workload, device, num_gpus=gpus, global_batch=batch, headroom=headroom, reserve_gib=reserve_gib)
    if not found.fitting:
        raise _nothing_fits(preset, gpus, gpu, batch, found)
    config = to_yaml(found.fitting[0].layout, device, title=f"{preset} on {gpus} {gpu}, {batch} samples per step")
    if output is not None:
        write_bytes(output, config.encode())
    if json:
        print(json_module.dumps(_record(workload, device, found, top), indent=2))
        return
    print("\n".join(explain(workload, device, found, top=top)))
    print()
    told = f"run it: moviegen fit --config {preset} --config {output}"
    print(config.rstrip() if output is None else told)


def _check_numbers(gpus: int, device: Device, **given: Any) -> None:
    node = device.gpus_per_node
    if gpus < 1 or (gpus > node and gpus % node):
        raise UsageError(f"--gpus {gpus} was given", f"nodes have {node} GPUs", f"give up to {node}, or a multiple of it")
    for name, least in (("global_batch", 1), ("context_length", 0), ("reserve_gib", 0), ("top", 1)):
        if given[name] is not None and given[name] < least:
            raise UsageError(f"--{name} {given[name]} was given", f"it is {least} or more", "give a larger number")
    if not 0.0 <= given["headroom"] < 1.0:
        raise UsageError(f"--headroom {given['headroom']} was given", "it is a share from 0 to below 1", "give e.g. 0.05")


def _nothing_fits(preset: str, gpus: int, gpu: str, batch: int, found: "Search") -> UsageError:
    from moviegen_core.parallel.planner.explanation import dropped
    from moviegen_core.parallel.planner.memory import GIB

    what = "; ".join(dropped(found)) or "no mesh divides them"
    return UsageError(
        f"{preset} on {gpus} {gpu} with {batch} samples per step was given",
        f"nothing fits into {found.room / GIB:.1f} GiB: {what}",
        "give more GPUs, larger ones, or another --global_batch",
    )


def _record(workload: "Workload", device: Device, found: "Search", top: int) -> dict[str, Any]:
    from moviegen_core.parallel.planner.step_time import utilisation

    def shown(plan: "Plan") -> dict[str, Any]:
        seconds = plan.time.total
        return {
            "layout": asdict(plan.layout),
            "memory_bytes": asdict(plan.memory) | {"total": plan.memory.total},
            "step_s": asdict(plan.time) | {"total": seconds},
            "mfu": utilisation(workload.num_flops, plan.layout, device, seconds),
            "config": configuration(plan.layout, device),
        }

    return {
        "preset": workload.name,
        "latent_shape": list(workload.latent_shape),
        "num_tokens": workload.num_tokens,
        "context_length": workload.context_length,
        "room_bytes": found.room,
        "plans": [shown(plan) for plan in found.fitting[:top]],
        "num_fitting": len(found.fitting),
        "num_too_large": len(found.too_large),
        "refused": dict(found.refused),
        "notes": list(workload.notes),
    }
