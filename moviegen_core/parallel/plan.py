"""What a model needs to know to shard itself: the mesh, and how FSDP treats parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

DATA, CONTEXT, TENSOR = "data_parallel", "context_parallel", "tensor_parallel"
_SHARDS = "shards"


@dataclass(frozen=True)
class ParallelPlan:
    """A mesh of processes, data x context x tensor, and the settings of FSDP over data x context.

    Args:
        mesh: three dimensions, named as above; tensor-parallel neighbours have consecutive ranks.
        device: where parameters are kept.
        fsdp: further keyword arguments of `torch.distributed.fsdp.fully_shard`.
    """

    mesh: DeviceMesh
    device: torch.device = torch.device("cpu")
    fsdp: dict[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> DeviceMesh:
        """The processes that share a sequence."""
        return self.mesh[CONTEXT]

    @property
    def tensor(self) -> DeviceMesh:
        """The processes that share each matrix."""
        return self.mesh[TENSOR]

    @cached_property
    def shards(self) -> DeviceMesh:
        """The processes over which FSDP shards parameters: data x context."""
        return self.mesh[DATA, CONTEXT]._flatten(_SHARDS)

    def shard(self, module: nn.Module, methods: Sequence[str] = ()) -> None:
        """Shard a module's parameters, gathered around its forward pass and around `methods`."""
        fully_shard(module, mesh=self.shards, **self.fsdp)
        assert isinstance(module, FSDPModule)
        for method in methods:
            register_fsdp_forward_method(module, method)
