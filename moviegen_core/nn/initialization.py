"""Initial weights as a function of the run's seed and a module's name alone: the same on one process and on every mesh of processes.

They are drawn on the CPU, so that they do not depend on the device either.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from moviegen_core.errors import UsageError
from moviegen_core.parallel.dtensor import shard_like
from moviegen_core.randomness import seed_from


@contextmanager
def seeded(*place: object) -> Iterator[None]:
    """Draw what is drawn within the block on the CPU from a seed of its own, and leave the CPU's generator as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed_from(*place))
        yield


@torch.no_grad()
def draw_weights(module: nn.Module, seed: int, *, name: str = "") -> None:
    """Draw the parameters and buffers of every part by its `reset_parameters`, each part from the seed and its name.

    A part is drawn whole on the CPU, one at a time, and each process keeps its shards; no process holds a whole model.

    Args:
        module: the model; nothing of it is on the meta device.
        seed: the run's seed.
        name: the model's name within a larger one.

    Raises:
        UsageError: a part leaves a parameter or buffer undrawn.
    """
    for path, part in module.named_modules(prefix=name):
        if part._parameters or part._buffers:
            with seeded(seed, path):
                _draw(part, path)


def _draw(part: nn.Module, path: str) -> None:
    parameters = {name: tensor for name, tensor in part._parameters.items() if tensor is not None}
    buffers = {name: tensor for name, tensor in part._buffers.items() if tensor is not None}
    try:
        part._parameters.update({name: nn.Parameter(_undrawn(tensor), requires_grad=False) for name, tensor in parameters.items()})
        part._buffers.update({name: _undrawn(tensor) for name, tensor in buffers.items()})
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
        drawn = {name: tensor for name, tensor in (*part._parameters.items(), *part._buffers.items()) if tensor is not None}
    finally:
        part._parameters.update(parameters)
        part._buffers.update(buffers)
    for name, target in (*parameters.items(), *buffers.items()):
        if drawn[name].is_floating_point() and drawn[name].isnan().any():
            raise UsageError(
                f"{type(part).__name__} at '{path}' was built without memory",
                f"its reset_parameters leaves '{name}' undrawn",
                "draw every parameter and buffer there, as the constructor does, or leave the backbone's builds_on_meta false",
            )
        target.copy_(shard_like(drawn[name].to(target.device), target))


def _undrawn(like: Tensor) -> Tensor:
    empty = torch.zeros(like.shape, dtype=like.dtype, device="cpu")
    return empty.fill_(torch.nan) if like.is_floating_point() else empty
