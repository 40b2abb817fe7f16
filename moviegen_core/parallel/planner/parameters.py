"""Parameters as they are sharded: which are gathered together, and what of them one process keeps."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from moviegen_core.backbone import Backbone
from moviegen_core.parallel.plan import TENSOR
from moviegen_core.parallel.planner.simulation import fake_plan, fake_processes

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """Parameters that FSDP gathers together, by their shapes on one tensor-parallel process."""

    shapes: tuple[Shape, ...]

    def kept(self, num_shards: int) -> int:
        """Numbers that the fullest of so many processes keeps: FSDP cuts the first dimension."""
        return sum(math.ceil((shape[0] if shape else 1) / num_shards) * math.prod(shape[1:]) for shape in self.shapes)

    def gathered(self, num_shards: int) -> int:
        """Numbers of the unit while it is whole, with the padding of uneven shards."""
        return self.kept(num_shards) * num_shards


@dataclass(frozen=True)
class Parameters:
    """Trained parameters.

    Args:
        root: those gathered throughout a pass.
        blocks: those gathered block by block.
        others: those of networks beside.
        sharded: by FSDP; a network that is not gathers nothing.
    """

    root: Unit
    blocks: tuple[Unit, ...] = ()
    others: tuple[Unit, ...] = ()
    sharded: bool = True

    def kept(self, num_shards: int) -> int:
        """Numbers that one process keeps."""
        return sum(unit.kept(num_shards) for unit in (self.root, *self.blocks, *self.others))

    @property
    def largest(self) -> Unit:
        """The block with most parameters."""
        return max(self.blocks, key=lambda unit: unit.gathered(1), default=Unit(()))


def read_parameters(network: nn.Module) -> Parameters:
    """The units of a network, sharded or not; it may be on the meta device.

    Args:
        network: a module that `ParallelPlan.shard` was applied to, and some of its parts; without any, it is one unit.
    """
    blocks = [module for module in network.modules() if isinstance(module, FSDPModule) and module is not network]
    owned = {id(parameter) for block in blocks for parameter in block.parameters()}
    root = [parameter for parameter in network.parameters() if id(parameter) not in owned]
    return Parameters(_unit(root), tuple(_unit(block.parameters()) for block in blocks), sharded=isinstance(network, FSDPModule))


def shard_parameters(backbone: Backbone, tensor: int) -> Parameters:
    """Shard a backbone that is on the meta device over so many tensor-parallel processes, and read its units.

    Raises:
        UsageError: it cannot be sharded so.
    """
    with fake_processes(tensor):
        backbone.parallelize(fake_plan(1, 1, tensor))
        return read_parameters(backbone)


def _unit(parameters: Iterable[torch.Tensor]) -> Unit:
    return Unit(tuple(_shape(parameter) for parameter in parameters if parameter.requires_grad))


def _shape(parameter: torch.Tensor) -> Shape:
    """The parameter's shape on one tensor-parallel process, before FSDP."""
    shape = list(parameter.shape)
    if isinstance(parameter, DTensor):
        names = parameter.device_mesh.mesh_dim_names or ()
        for dim, placement in enumerate(parameter.placements):
            if placement.is_shard() and names[dim] == TENSOR:
                shape[placement.dim] = math.ceil(shape[placement.dim] / parameter.device_mesh.size(dim))
    return tuple(shape)
