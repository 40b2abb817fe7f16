"""What a device can do at most, what its memory holds, and how long is left, in words."""

import resource
import sys
import time
from collections.abc import Iterable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

_GIB = 2**30


def measure_peak_tflops(device: torch.device, dtype: torch.dtype, *, repeats: int = 5) -> float:
    """Time a large product of square matrices and return its TFLOP/s, the best of a few; the random state stays as it was.

    Args:
        device: where; on a CPU the matrices are small, so that it takes a fraction of a second.
        dtype: element type of the matrices.
        repeats: products that are timed, after one that is not.
    """
    size = 8192 if device.type == "cuda" else 1024
    generator = torch.Generator(device).manual_seed(0)
    one, other = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    best_s = float("inf")
    with torch.no_grad():
        for _ in range(repeats + 1):
            _synchronize(device)
            start = time.perf_counter()
            one @ other
            _synchronize(device)
            best_s = min(best_s, time.perf_counter() - start)
    return 2 * size**3 / best_s / 1e12


def memory_gib(trainer: Trainer, module: LightningModule) -> dict[str, float]:
    """Peak memory of this process's device, and its present parts: parameters, gradients, optimizer state, and all the rest of the peak."""
    device = trainer.strategy.root_device
    parameters = list(module.parameters())
    states = (value for optimizer in trainer.optimizers for state in optimizer.state.values() for value in state.values())
    parts = {
        "parameters": _bytes(parameters, device),
        "gradients": _bytes((parameter.grad for parameter in parameters if parameter.grad is not None), device),
        "optimizer": _bytes((value for value in states if isinstance(value, Tensor)), device),
    }
    peak = _peak_bytes(device)
    parts["rest"] = max(0, peak - sum(parts.values()))
    return {"memory_gib": peak / _GIB, **{f"memory_{name}_gib": size / _GIB for name, size in parts.items()}}


def readable_time(seconds: float) -> str:
    """A length of time in its two largest units, e.g. `2 d 3 h` or `4 min 10 s`."""
    rest = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or parts or unit == "s":
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count or len(parts) == 1)


def _bytes(tensors: Iterable[Tensor], device: torch.device) -> int:
    """Bytes of this process's shares that lie on a device."""
    local = (tensor._local_tensor if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return sum(tensor.numel() * tensor.element_size() for tensor in local if tensor.device.type == device.type)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts kibibytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
