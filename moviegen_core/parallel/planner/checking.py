"""Whether a model fits the machine it is about to run on, before its weights are built."""

import os
import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from moviegen_core.backbone import Backbone
from moviegen_core.errors import UsageError
from moviegen_core.parallel.planner.layout import Layout
from moviegen_core.parallel.planner.memory import GIB, estimate_memory
from moviegen_core.parallel.planner.parameters import read_parameters

if TYPE_CHECKING:
    from moviegen_core.generator import FlowModel

# Between these shares of the memory an estimate is too close to tell, so the run is warned of and not refused.
REFUSED_ABOVE, WARNED_ABOVE = 1.10, 0.95
FP32 = 4


def check_memory(
    backbone: Backbone,
    layout: Layout,
    *,
    latent_shape: tuple[int, ...],
    context_length: int,
    memory_bytes: int,
    frozen_bytes: int = 0,
    on_gpu: bool = True,
) -> None:
    """Refuse a training with AdamW that cannot fit, and warn of one that may not.

    Args:
        backbone: the network, on the meta device or not; where the layout has several processes, sharded as it says.
        layout: mesh, checkpointing, precision and micro-batch of the run.
        latent_shape: shape (c, t, h, w) of one sample's latent, the largest of the run.
        context_length: tokens of a sample's context.
        memory_bytes: memory of a process's device.
        frozen_bytes: encoders without gradients on each device.
        on_gpu: allow for what CUDA takes beside the tensors.

    Raises:
        UsageError: the estimate is more than a tenth above the memory.
    """
    mesh = {"context": layout.context, "tensor": layout.tensor, "element_bytes": layout.element_bytes}
    try:
        footprint = backbone.footprint(latent_shape, context_length, **mesh)
    except UsageError:  # it does not say what it keeps
        return
    memory = estimate_memory(read_parameters(backbone), footprint, layout, frozen=frozen_bytes)
    memory = memory if on_gpu else replace(memory, allowance=0)
    if memory.total <= WARNED_ABOVE * memory_bytes:
        return
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in asdict(memory).items() if size >= 0.05 * GIB)
    given = f"a training of {layout} was given, with {memory_bytes / GIB:.1f} GiB for each of its {layout.num_gpus} processes"
    exists = f"it needs about {memory.total / GIB:.1f} GiB on each ({parts})"
    if memory.total > REFUSED_ABOVE * memory_bytes:
        most = max(asdict(memory), key=lambda name: asdict(memory)[name])
        raise UsageError(given, exists, f"{_ADVICE[most]}; `moviegen plan PRESET --gpus N` lists what fits")
    warnings.warn(f"{given}; {exists}; it may run out of memory", stacklevel=2)


def check_run(model: "FlowModel", trainer: Any) -> None:
    """`check_memory` for the training that a trainer is about to start; other runs, and precisions it does not know, are let pass.

    Call it where the backbone is sharded and its weights do not exist yet.

    Args:
        model: a generator whose backbone is on the meta device.
        trainer: its trainer; the strategy's mesh is built.

    Raises:
        UsageError: the training cannot fit.
    """
    layout = layout_of(trainer, model.backbone)
    if layout is None or model.factories[2] is None or trainer.state.fn != "fit":
        return
    with torch.device("meta"):
        autoencoder = model.factories[2]()
        autoencoder.configure_model()
    device = trainer.strategy.root_device
    check_memory(
        model.backbone,
        layout,
        latent_shape=tuple(autoencoder.latent_shape(model.num_frames, model.height, model.width)),
        context_length=sum(getattr(conditioner, "max_tokens", 0) for conditioner in model.conditioners.values()),
        memory_bytes=_memory_of(device) // (1 if device.type == "cuda" else max(1, trainer.num_devices)),
        frozen_bytes=sum(parameter.numel() for parameter in autoencoder.parameters()) * FP32,
        on_gpu=device.type == "cuda",
    )


def layout_of(trainer: Any, backbone: Backbone) -> Layout | None:
    """The layout that a trainer will run a backbone in; None where its precision is none that the planner knows."""
    plan = getattr(trainer.strategy, "plan", None)
    policy = plan.fsdp.get("mp_policy") if plan is not None else None
    half = trainer.precision == "bf16-mixed" or (policy is not None and policy.param_dtype == torch.bfloat16)
    if trainer.precision not in ("32-true", "bf16-mixed") or (policy is not None and policy.param_dtype == torch.float16):
        return None
    data, context, tensor = plan.mesh.shape if plan is not None else (1, 1, 1)
    return Layout(
        data=data,
        context=context,
        tensor=tensor,
        checkpointing=getattr(backbone, "activation_checkpointing", "none"),
        kept_activations=getattr(backbone, "kept_activations", 0.5),
        precision="bf16" if half else "fp32",
        micro_batch=getattr(trainer.datamodule, "batch_size", None) or 1,
        accumulate=trainer.accumulate_grad_batches,
    )


def _memory_of(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_SHARD = "shard it over more processes (trainer.strategy: MeshStrategy)"
_SPLIT = "set the backbone's activation_checkpointing to selective or block, or raise context_parallel_size or tensor_parallel_size"
_ADVICE = {
    "parameters": _SHARD,
    "gradients": _SHARD,
    "optimizer": _SHARD,
    "gathered": "raise tensor_parallel_size",
    "activations": _SPLIT,
    "temporary": _SPLIT,
    "edges": _SPLIT,
    "frozen": "precompute what the frozen encoders give, and leave them out",
    "allowance": "use a larger GPU",
}
