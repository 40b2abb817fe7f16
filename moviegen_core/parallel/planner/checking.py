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
from moviegen_core.parallel.planner.workload import DEFAULT_CONTEXT_LENGTH
from moviegen_core.parallel.precision import compute_dtype_of

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
    refuse: bool = True,
    weight_bytes: int = FP32,
) -> None:
    """Refuse a training with AdamW that cannot fit, and warn of one that may not.

    Args:
        backbone: the network, on the meta device or not; where the layout has several processes, sharded as it says.
        layout: mesh, checkpointing, precision and micro-batch of the run.
        latent_shape: shape (c, t, h, w) of one sample's latent, (c, t) of a sound, the largest of the run.
        context_length: tokens of a sample's context.
        memory_bytes: memory of a process's device.
        frozen_bytes: encoders without gradients on each device.
        on_gpu: allow for what CUDA takes beside the tensors.
        refuse: false warns where it would be refused.
        weight_bytes: bytes of a weight, a gradient and a moment as they are kept.

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
    for name in ("parameters", "gradients", "optimizer"):
        memory = replace(memory, **{name: getattr(memory, name) * weight_bytes // FP32})
    if memory.total <= WARNED_ABOVE * memory_bytes:
        return
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in asdict(memory).items() if size >= 0.05 * GIB)
    given = f"a training of {layout} was given, with {memory_bytes / GIB:.1f} GiB for each of its {layout.num_gpus} processes"
    exists = f"it needs about {memory.total / GIB:.1f} GiB on each ({parts})"
    if refuse and memory.total > REFUSED_ABOVE * memory_bytes:
        most = max(asdict(memory), key=lambda name: asdict(memory)[name])
        more = "`moviegen plan PRESET --gpus N` lists what fits; `--model.check_memory false` tries it all the same"
        raise UsageError(given, exists, f"{_ADVICE[most]}; {more}")
    warnings.warn(f"{given}; {exists}; it may run out of memory", stacklevel=2)


def check_run(model: "FlowModel", trainer: Any) -> None:
    """`check_memory` for the training that a trainer is about to start; what cannot be told beforehand is let pass.

    Sizes are those of the data's buckets, or of the data itself (`FlowModel.training_shapes`). Where it does not say, as with cached
    latents of any size, those of generated samples are taken, and the run is not refused but warned of.

    Args:
        model: a generator whose backbone is on the meta device, sharded where the strategy shards.
        trainer: its trainer; the strategy's mesh is built.

    Raises:
        UsageError: the training cannot fit.
    """
    layout = layout_of(trainer, model.backbone)
    offloads = getattr(trainer.strategy, "cpu_offload", False)
    if layout is None or offloads or model.factories[2] is None or trainer.state.fn != "fit":
        return
    with torch.device("meta"):
        autoencoder = model.factories[2]()
        autoencoder.configure_model()
    device = trainer.strategy.root_device
    shapes = model.training_shapes(autoencoder, trainer.datamodule)
    check_memory(
        model.backbone,
        layout,
        latent_shape=max(shapes or [model.sample_shape(autoencoder)], key=model.backbone.num_tokens),
        context_length=len(model.factories[1]) * DEFAULT_CONTEXT_LENGTH,  # conditioners are built later
        memory_bytes=_memory_of(device) // (1 if device.type == "cuda" else max(1, trainer.num_devices)),
        frozen_bytes=sum(parameter.numel() for parameter in autoencoder.parameters()) * FP32,
        on_gpu=device.type == "cuda",
        refuse=bool(shapes),
        weight_bytes=2 if str(trainer.precision).endswith("16-true") else FP32,
    )


def sizes_of(data: Any) -> list[tuple[int, int, int]]:
    """Frames, rows and columns of the clips a data module trains on; empty where it does not say."""
    if getattr(data, "latents", False) and not getattr(data, "bucketed", False):
        return []
    buckets = getattr(data, "buckets", None) or [data]
    sizes = [tuple(getattr(bucket, name, None) for name in ("num_frames", "height", "width")) for bucket in buckets]
    return [(int(t), int(h), int(w)) for t, h, w in sizes if t and h and w]


def layout_of(trainer: Any, backbone: Backbone) -> Layout | None:
    """The layout that a trainer will run a backbone in; None where its precision is none that the planner knows."""
    plan = getattr(trainer.strategy, "plan", None)
    dtype = compute_dtype_of(trainer)
    if dtype == torch.float64:
        return None
    data, context, tensor = plan.mesh.shape if plan is not None else (1, 1, 1)
    return Layout(
        data=data,
        context=context,
        tensor=tensor,
        checkpointing=getattr(backbone, "activation_checkpointing", "none"),
        kept_activations=getattr(backbone, "kept_activations", 0.5),
        precision="fp32" if dtype == torch.float32 else "bf16",
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
