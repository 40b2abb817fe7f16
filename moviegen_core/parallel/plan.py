"""What a model needs to know to shard itself: the mesh, and how FSDP treats parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from moviegen_core.errors import UsageError
from moviegen_core.parallel.sequence import ContextMethod

DATA, CONTEXT, TENSOR = "data_parallel", "context_parallel", "tensor_parallel"
_SHARDS = "shards"


@dataclass(frozen=True)
class ParallelPlan:
    """A mesh of processes, data x context x tensor, and the settings of FSDP over data x context.

    Args:
        mesh: three dimensions, named as above; tensor-parallel neighbours have consecutive ranks.
        device: where parameters are kept.
        context_method: how self-attention sees the whole sequence: `gather` collects keys and values; `all_to_all` exchanges tokens for
            heads, less to send where the heads of a process divide by the context.
        fsdp: further keyword arguments of `torch.distributed.fsdp.fully_shard`.
    """

    mesh: DeviceMesh
    device: torch.device = torch.device("cpu")
    context_method: ContextMethod = "gather"
    fsdp: dict[str, Any] = field(default_factory=dict)

    # Once and for all: compiled blocks tell one mesh object from another.
    @cached_property
    def context(self) -> DeviceMesh:
        """The processes that share a sequence."""
        return self.mesh[CONTEXT]

    @cached_property
    def tensor(self) -> DeviceMesh:
        """The processes that share each matrix."""
        return self.mesh[TENSOR]

    @cached_property
    def shards(self) -> DeviceMesh:
        """The processes over which FSDP shards parameters: data x context."""
        return self.mesh[DATA, CONTEXT]._flatten(_SHARDS)

    def require_heads(self, num_heads: int) -> None:
        """Refuse attention whose heads cannot be shared out.

        Raises:
            UsageError: the heads do not divide by the processes that share them.
        """
        tensor, context = self.tensor.size(), self.context.size() if self.context_method == "all_to_all" else 1
        if num_heads % (tensor * context):
            fitting = [str(size) for size in range(1, num_heads + 1) if num_heads % size == 0]
            given = f"tensor_parallel_size={tensor}" + (f" x context_parallel_size={context} with all_to_all" if context > 1 else "")
            raise UsageError(
                f"{given} was given for {num_heads} attention heads",
                "every process holds whole heads, as many as the others",
                f"the product must be one of {', '.join(fitting)}" if context > 1 else f"give one of {', '.join(fitting)}",
            )

    def require_divisible(self, name: str, size: int) -> None:
        """Refuse a size that the tensor-parallel processes cannot share evenly.

        Raises:
            UsageError: they cannot.
        """
        if size % self.tensor.size():
            raise UsageError(
                f"tensor_parallel_size={self.tensor.size()} was given for {name}={size}",
                "every process holds an equal share of each matrix",
                f"give a {name} that divides, e.g. {size + -size % self.tensor.size()}, or another tensor_parallel_size",
            )

    def shard(self, module: nn.Module, methods: Sequence[str] = ()) -> None:
        """Shard a module's parameters, gathered around its forward pass and around `methods`."""
        fully_shard(module, mesh=self.shards, **self.fsdp)
        assert isinstance(module, FSDPModule)
        for method in methods:
            register_fsdp_forward_method(module, method)
