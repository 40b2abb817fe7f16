"""The norm of gradients that are sharded in different ways."""

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor


def is_sharded(module: nn.Module) -> bool:
    """True where a parameter is distributed over processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def gradient_norm(module: nn.Module) -> Tensor:
    """The norm of all gradients together, the same on every process."""
    groups: dict[DeviceMesh | None, list[Tensor]] = defaultdict(list)
    for parameter in module.parameters():
        if parameter.grad is not None:
            groups[parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None].append(parameter.grad)
    norms = [torch.nn.utils.get_total_norm(gradients) for gradients in groups.values()]
    return torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()


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
