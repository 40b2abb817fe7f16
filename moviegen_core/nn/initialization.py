"""Initial weights as a function of the run's seed and a module's name alone: the same on one process and on every mesh of processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from moviegen_core.errors import UsageError
from moviegen_core.parallel.dtensor import shard_like
from moviegen_core.randomness import seed_from


@contextmanager
def seeded(*place: object) -> Iterator[None]:
    """Draw what is drawn within the block from a seed of its own, and leave the global generators as they were."""
    with torch.random.fork_rng(_devices()):
        torch.manual_seed(seed_from(*place))
        yield


@torch.no_grad()
def draw_weights(module: nn.Module, seed: int, *, name: str = "") -> None:
    """Draw the weights of every part that can draw its own, each from the seed and its name.

    A part's sharded parameters are drawn whole, one part at a time, and each process keeps its shard; no process holds a whole model.

    Args:
        module: the model; none of its parameters is on the meta device.
        seed: the run's seed.
        name: the model's name within a larger one.

    Raises:
        UsageError: a part's `reset_parameters` leaves a parameter undrawn.
    """
    with torch.random.fork_rng(_devices()):
        for path, part in module.named_modules(prefix=name):
            own = dict(part.named_parameters(recurse=False))
            if own and hasattr(part, "reset_parameters"):
                torch.manual_seed(seed_from(seed, path))
                _draw(part, own, path)


def _draw(part: nn.Module, own: dict[str, nn.Parameter], path: str) -> None:
    sharded = {name: parameter for name, parameter in own.items() if isinstance(parameter, DTensor)}
    try:
        for name, parameter in sharded.items():
            whole = torch.full(parameter.shape, torch.nan, dtype=parameter.dtype, device=parameter.device)
            part._parameters[name] = nn.Parameter(whole, requires_grad=False)
        part.reset_parameters()
        drawn = dict(part.named_parameters(recurse=False))
    finally:
        part._parameters.update(own)
    for name, target in sharded.items():
        if drawn[name].isnan().any():
            raise UsageError(
                f"{type(part).__name__} at '{path}' was built for a mesh of processes",
                f"its reset_parameters leaves '{name}' undrawn",
                "draw every parameter there, as the constructor does",
            )
        target.copy_(shard_like(drawn[name], target))


def _devices() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []
