"""The norm of gradients that are sharded in different ways."""

from collections import defaultdict

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor


def is_sharded(module: nn.Module) -> bool:
    """True where a parameter is distributed over processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def gradient_norm(module: nn.Module) -> Tensor:
    """The norm of all gradients together, in fp32, the same on every process."""
    # A sum of squares is completed over the mesh dimensions that its gradients are sharded over, and no others.
    groups: dict[tuple[DeviceMesh | None, tuple[int, ...]], list[Tensor]] = defaultdict(list)
    for parameter in module.parameters():
        gradient = parameter.grad
        if isinstance(gradient, DTensor):
            sharded = tuple(dim for dim, placement in enumerate(gradient.placements) if not placement.is_replicate())
            groups[gradient.device_mesh, sharded].append(gradient.to_local())
        elif gradient is not None:
            groups[None, ()].append(gradient)
    total = torch.zeros(())
    for (mesh, dims), gradients in groups.items():
        squares = torch.stack(torch._foreach_norm(gradients, 2, torch.float32)).square().sum()
        for dim in dims:
            assert mesh is not None
            dist.all_reduce(squares, group=mesh.get_group(dim))
        total = total.to(squares.device) + squares
    return total.sqrt()


@torch.no_grad()
def clip_gradients(module: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients so that their norm together is at most `max_norm`; returns the norm before."""
    norm = gradient_norm(module)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter in module.parameters():
        if parameter.grad is not None:
            local = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
            local.mul_(scale.to(local.device))
    return norm
