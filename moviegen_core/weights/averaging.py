"""Model averaging: one model from several finetuning runs (paper 3.3)."""

import glob
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from moviegen_core.errors import UsageError
from moviegen_core.weights.reading import WeightsFile, open_weights
from moviegen_core.weights.versions import lasting_metadata
from moviegen_core.weights.writing import (
    progress,
    refuse_existing,
    save_checkpoint,
    save_safetensors,
)


def average(paths: list[str], output: str, *, weights: list[float] | None = None) -> None:
    """Average the weights of several checkpoints of one model, tensor by tensor.

    Floating-point tensors are averaged in float64 and keep their type; whole numbers and flags are the first checkpoint's. The rest of
    the first checkpoint (its hyper-parameters) goes along, optimizer states do not: start a further training from `init_checkpoint`.

    Args:
        paths: two checkpoints or more; `*` matches several.
        output: file to write; the suffix `.safetensors` or `.ckpt` chooses the format.
        weights: one weight of at least 0 for each checkpoint, made to sum to 1; equal unless given.

    Raises:
        UsageError: fewer than two checkpoints, different models, or weights that do not fit.
    """
    files = [open_weights(path) for path in _expand(paths)]
    fractions = _fractions(weights, len(files))
    for other in files[1:]:
        _check_same(files[0], other)
    target = Path(output).expanduser()
    refuse_existing(target, [file.path for file in files])
    if target.suffix == ".safetensors":
        save_safetensors(target, files[0].infos, _averager(files, fractions))
    elif target.suffix == ".ckpt":
        mean = _averager(files, fractions)
        state = {name: mean(name) for name in progress(files[0].infos, "average")}
        save_checkpoint(target, {**lasting_metadata(files[0]), "state_dict": state})
    else:
        raise UsageError(
            f"the output {output} was given", "the formats are .safetensors and .ckpt", "give a name with one of these suffixes"
        )
    print(f"averaged {len(files)} checkpoints of {len(files[0])} tensors into {target}")


def _averager(files: Sequence[WeightsFile], fractions: Sequence[float]) -> Callable[[str], Tensor]:
    def mean(name: str) -> Tensor:
        first = files[0][name]
        if not first.is_floating_point():
            return first.clone()
        total = torch.zeros(first.shape, dtype=torch.float64)
        for file, fraction in zip(files, fractions, strict=True):
            total.add_(file[name].double(), alpha=fraction)
        return total.to(first.dtype)

    return mean


def _expand(paths: Sequence[str]) -> list[str]:
    expanded = [match for path in paths for match in (sorted(glob.glob(path)) if "*" in path else [path])]
    if len(expanded) < 2:
        raise UsageError(f"{' '.join(paths) or 'nothing'} was given to average", f"that is {len(expanded)} checkpoints", "give two or more")
    return expanded


def _fractions(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1.0 / count] * count
    total = math.fsum(weights)
    if len(weights) != count or not all(weight >= 0.0 for weight in weights) or not 0.0 < total < math.inf:
        raise UsageError(
            f"weights {list(weights)} were given",
            f"there are {count} checkpoints, and a weight is a number of at least 0 with a positive sum",
            f"give {count} such numbers, or leave them out for equal ones",
        )
    return [weight / total for weight in weights]


def _check_same(first: WeightsFile, other: WeightsFile) -> None:
    only_first, only_other = sorted(first.keys() - other.keys()), sorted(other.keys() - first.keys())
    reshaped = [name for name in first if name in other.infos and first.infos[name].shape != other.infos[name].shape]
    if not (only_first or only_other or reshaped):
        return
    example = (only_first or only_other or reshaped)[0]
    raise UsageError(
        f"{first.path} and {other.path} were given to average",
        f"{len(only_first)} tensors are only in the first, {len(only_other)} only in the second, {len(reshaped)} differ in shape, "
        f"e.g. '{example}'",
        "average checkpoints of one model and size only; `moviegen weights inspect` lists what a file holds",
    )
