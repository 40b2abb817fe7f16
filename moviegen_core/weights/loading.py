"""Copy a state dict into a module, or say in what the two differ."""

from collections import ChainMap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moviegen_core.errors import UsageError, nearest
from moviegen_core.parallel.dtensor import shard_like
from moviegen_core.weights.reading import WeightsFile


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str | Path = "the given weights",
    prefixes: Iterable[str] = (),
    without: Iterable[str] = (),
    strict: bool = True,
) -> None:
    """Copy weights into a module's parameters and buffers; sharded parameters take their own shard.

    Args:
        module: where to; its parameters must be materialised.
        state: tensors by the module's own names; an open file is read tensor by tensor.
        source: where they come from, for the error.
        prefixes: load only names that begin with one of these; all unless given.
        without: neither ask for nor load names that begin with one of these.
        strict: refuse missing and unexpected names. A wrong shape is always refused.

    Raises:
        UsageError: the weights are those of another model.
    """
    wanted, left_out = tuple(prefixes) or ("",), tuple(without)

    def chosen(tensors: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tensor for name, tensor in tensors.items() if name.startswith(wanted) and not name.startswith(left_out)}

    # `keep_vars` skips detaching; hooks of the module may leave tensors out of its state, and then they are not asked for.
    own, given = chosen(module.state_dict(keep_vars=True)), chosen(_infos_of(state))
    require_same_model(own, given, source=source, module=module, strict=strict)
    with torch.no_grad():
        for name, target in own.items():
            if name in given:
                assert not target.is_meta, f"{name} is on the meta device; materialise the module before loading into it"
                target.copy_(shard_like(state[name].to(device=target.device, dtype=target.dtype), target))


def _infos_of(state: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """What has a shape, by name; tensors of a file are not read for it."""
    if isinstance(state, WeightsFile):
        return state.infos
    if isinstance(state, ChainMap):
        return {name: info for part in reversed(state.maps) for name, info in _infos_of(part).items()}
    return state


def require_same_model(
    own: Mapping[str, Any], given: Mapping[str, Any], *, source: str | Path, module: nn.Module, strict: bool = True
) -> None:
    """Compare names and shapes of a module's tensors with given ones, anything that has a `shape`.

    Raises:
        UsageError: the given ones are those of another model; a wrong shape is refused even where `strict` is false.
    """
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    reshaped = [name for name in own if name in given and tuple(own[name].shape) != tuple(given[name].shape)]
    if reshaped or not given or (strict and (missing or unexpected)):
        raise UsageError(*_difference(own, given, missing, unexpected, reshaped, source=source, module=module))


def _difference(
    own: Mapping[str, Any],
    given: Mapping[str, Any],
    missing: list[str],
    unexpected: list[str],
    reshaped: list[str],
    *,
    source: str | Path,
    module: nn.Module,
) -> tuple[str, str, str]:
    told = [
        *([f"{len(missing)} of its {len(own)} tensors are missing ({_some(missing)})"] if missing else []),
        *([f"{len(unexpected)} are unexpected ({_some(unexpected)})"] if unexpected else []),
        *([f"{len(reshaped)} have another shape ({_shapes(reshaped, own, given)})"] if reshaped else []),
    ]
    return (
        f"weights from {source} were given for {type(module).__name__}",
        "; ".join(told) or "they are empty",
        _advice(missing, unexpected, source),
    )


def _some(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _shapes(names: list[str], own: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    lines = [f"{name}: {tuple(given[name].shape)} given, {tuple(own[name].shape)} wanted" for name in names[:3]]
    return "; ".join(lines) + ("; ..." if len(names) > 3 else "")


def _advice(missing: list[str], unexpected: list[str], source: str | Path) -> str:
    if missing and unexpected:
        for name in unexpected:
            # A component inside a whole model's checkpoint, or the other way round.
            if name.endswith("." + missing[0]):
                prefix = name.removesuffix(missing[0]).rstrip(".")
                return f"take the component out first: `moviegen weights export {source} OUTPUT --component {prefix}`"
            if missing[0].endswith("." + name):
                prefix = missing[0].removesuffix(name).rstrip(".")
                return f"put the component in its place first: `moviegen weights import {source} OUTPUT --component {prefix}`"
        near = nearest(missing[0], unexpected)
        hint = f"the nearest to '{missing[0]}' is '{near[0]}'; " if near else ""
        return f"{hint}give the checkpoint of this very model, or compare with `moviegen weights inspect {source}`"
    return f"give the checkpoint of this very model and size, or compare with `moviegen weights inspect {source}`"
