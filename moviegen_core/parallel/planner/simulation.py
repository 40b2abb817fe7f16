"""A training step without memory: the sharded backbone under fake tensors and a fake process group, watched by torch's own tracker.

What the tracker sees is every tensor that PyTorch allocates, on rank 0. What it does not see: buffers within kernels and NCCL, the CUDA
context, and what the caching allocator loses to fragments; `memory.py` allows for them.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed._tools.mod_tracker import ModTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import _dispatch, _sharding_prop
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import _disable_current_modes

from moviegen_core.backbone import Backbone
from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.parallel.plan import CONTEXT, DATA, TENSOR, ParallelPlan
from moviegen_core.parallel.planner.layout import Layout


def simulate_step(build: Callable[[], Backbone], layout: Layout, latent_shape: tuple[int, ...], context_length: int) -> int:
    """Run forward, backward and AdamW of one micro-batch and return the most bytes that tensors of rank 0 held.

    Args:
        build: builds the backbone, with the activation checkpointing that the layout names.
        layout: mesh, precision and micro-batch.
        latent_shape: shape (c, t, h, w) of one latent, (c, t) of a sound.
        context_length: tokens of the context; 0 for none.

    Raises:
        UsageError: this process is one of several already.
    """
    with fake_processes(layout.data * layout.context * layout.tensor), _like_cuda(), _without_shadows():
        plan = _plan(layout)
        with torch.device("meta"):
            backbone = build()
        backbone.parallelize(plan)
        with FakeTensorMode(allow_non_fake_inputs=True):
            backbone.to_empty(device="cpu")
            optimizer = _adamw(backbone)
            if layout.checkpointing == "selective":
                _forward(backbone, layout.micro_batch, latent_shape, context_length)  # it chooses what it keeps
            tracker = _WholeTracker()
            tracker.track_external(backbone, optimizer)
            with tracker:
                _forward(backbone, layout.micro_batch, latent_shape, context_length).backward()
                optimizer.step()
                optimizer.zero_grad()
    return tracker.peak


@contextlib.contextmanager
def fake_processes(world_size: int) -> Iterator[None]:
    """Make this process rank 0 of many that are not there: collectives return at once, with their outputs' shapes and no data.

    Raises:
        UsageError: this process is one of several already.
    """
    if dist.is_initialized():
        raise UsageError(
            "a plan was asked for within a process group", "planning pretends to be one", "run `moviegen plan` as a process of its own"
        )
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()
        _clear_sharding_prop_cache()  # it holds meshes, which compare equal to those of the next group


def fake_plan(data: int, context: int, tensor: int, **fsdp: Any) -> ParallelPlan:
    """A plan over fake processes; its meshes are all made, which fake tensors would not allow later."""
    mesh = init_device_mesh("cpu", (data, context, tensor), mesh_dim_names=(DATA, CONTEXT, TENSOR))
    plan = ParallelPlan(mesh, fsdp=fsdp)
    assert plan.shards is not None and plan.context is not None and plan.tensor is not None
    return plan


def _plan(layout: Layout) -> ParallelPlan:
    fsdp: dict[str, Any] = {"reshard_after_forward": True}
    if layout.precision == "bf16":
        fsdp["mp_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    return fake_plan(layout.data, layout.context, layout.tensor, **fsdp)


def _adamw(backbone: Backbone) -> torch.optim.Optimizer:
    """The optimizer as it is from the second step on."""
    optimizer = torch.optim.AdamW(backbone.parameters(), foreach=True)
    for parameter in backbone.parameters():
        moments = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        optimizer.state[parameter] = {"step": torch.tensor(1.0), **moments}
    return optimizer


def _forward(backbone: Backbone, size: int, latent_shape: tuple[int, ...], context_length: int) -> Tensor:
    x_t, context, mask = torch.randn(size, *latent_shape), None, None
    if context_length:
        context = torch.randn(size, context_length, backbone.width, requires_grad=True)
        mask = torch.ones(size, context_length, dtype=torch.bool)
    channels = torch.randn(size, backbone.extra_channels, *latent_shape[1:]) if backbone.extra_channels else None
    velocity = backbone(x_t, torch.rand(size), Conditioning(context=context, context_mask=mask, channels=channels))
    return (velocity.float() - x_t).square().mean()


class _NoModules(ModTracker):
    """Follows no module: its hooks would hold the gradients of a block's inputs until those of what all blocks share are complete."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: Any) -> None:
        pass

    def register_user_hooks(self, *args: Any, **kwargs: Any) -> None:
        pass


class _WholeTracker(MemTracker):
    """The tracker without its accounts by module, which take memory and most of the time in a deep network."""

    def __init__(self) -> None:
        super().__init__()
        self._mod_tracker = _NoModules()
        self.peak = 0

    def _update_peak_stats(self, peak_state: Any) -> None:
        self.peak = max(self.peak, *(snapshot["Total"] for snapshot in self._curr_mem_snap.values()), 0)


class _FusedRMSNorm(torch.autograd.Function):
    """Holds what the kernel for CUDA holds, the input and a number per token; on a CPU torch keeps copies in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x, x[..., :1].float())
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.empty_like(ctx.saved_tensors[0])


@contextlib.contextmanager
def _like_cuda() -> Iterator[None]:
    """Let fake CPU tensors be normalised as CUDA would; attention on a CPU keeps what the flash kernel for CUDA keeps."""
    with mock.patch.object(F, "rms_norm", lambda x, *args, **kwargs: _FusedRMSNorm.apply(x)):
        yield


@contextlib.contextmanager
def _without_shadows() -> Iterator[None]:
    """Let sharded tensors find the shapes of results out of the tracker's sight, and once for each operation, as on real devices."""
    propagator = _sharding_prop.ShardingPropagator
    find_shapes = propagator._propagate_tensor_meta_non_cached

    def out_of_sight(self: Any, schema: Any) -> Any:
        with _disable_current_modes():
            return find_shapes(self, schema)

    with (
        mock.patch.object(propagator, "_propagate_tensor_meta_non_cached", out_of_sight),
        mock.patch.object(_sharding_prop, "_are_we_tracing", lambda: False, create=True),  # other torch versions have it elsewhere
        mock.patch.object(_dispatch, "_are_we_tracing", lambda: False, create=True),
    ):
        yield
