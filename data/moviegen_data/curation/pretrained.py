"""Models that stages load from local paths; nothing here reaches for the network, and nothing is unpickled."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from moviegen_core.errors import UsageError, what_exists
from moviegen_core.pretrained import Dtype, load_frozen, load_pretrained
from moviegen_data.faults import SampleError

__all__ = ["Dtype", "at_a_time", "in_equal_batches", "load_network", "load_part", "load_torchscript", "mean_direction", "pick_device"]


def pick_device(device: str | None, *, stage: str) -> torch.device:
    """The device of that name; unless given the GPU where there is one, else the CPU.

    Raises:
        UsageError: there is no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        wanted = torch.device(device or ("cuda" if count else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"device={device!r} was given for {stage}", "devices are cpu, cuda, cuda:1, ...", "correct it") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        raise UsageError(f"device={device!r} was given for {stage}", f"torch sees {count} GPUs here", "give another one, or leave it out")
    return wanted


def load_part(loader: Callable[..., Any], path: str, *, stage: str, wanted: str) -> Any:
    """Call a `from_pretrained` of transformers that is none of a network on a local folder.

    Args:
        loader: the `from_pretrained`.
        path: the folder.
        stage: what asks, for the error.
        wanted: what should be there, for the error.

    Raises:
        UsageError: there is no such folder, it holds something else, or it is damaged.
    """
    return load_pretrained(loader, path, what=stage, wanted=wanted, hub=False, trust_remote_code=False)


def load_network(
    loader: Callable[..., Any], path: str, *, stage: str, wanted: str, dtype: Dtype, device: str | None, **options: Any
) -> nn.Module:
    """Load a network from safetensors, all of whose weights came from the files.

    Args:
        loader: the `from_pretrained`.
        path: the folder.
        stage: what asks, for the error.
        wanted: what should be there, for the error.
        dtype: precision of the network.
        device: where it runs; see `pick_device`.
        options: passed on.

    Raises:
        UsageError: as `load_part`, or a weight is missing.
    """
    place = pick_device(device, stage=stage)
    options |= {"use_safetensors": True, "trust_remote_code": False}
    return load_frozen(loader, path, what=stage, dtype=dtype, wanted=wanted, hub=False, **options).to(place)


def load_torchscript(path: str, *, stage: str, wanted: str, device: str | None) -> nn.Module:
    """Load a TorchScript file: a graph of torch's own operators and its weights, no Python code.

    Raises:
        UsageError: there is no such file, or it is no TorchScript.
    """
    place = pick_device(device, stage=stage)
    file = Path(path).expanduser()
    if not file.exists():
        parent = next(parent for parent in file.absolute().parents if parent.is_dir())
        near = what_exists(file.name, [child.name for child in parent.iterdir()], noun="entry")
        raise UsageError(f"the path {path} was given for {stage}", f"there is nothing; in {parent} {near}", f"give {wanted}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
            network = torch.jit.load(str(file), map_location=place)
    except (RuntimeError, ValueError, OSError) as error:
        first = re.sub(r"\s+", " ", str(error).strip())[:200] or type(error).__name__
        raise UsageError(f"the file {path} was given for {stage}", f"it is no TorchScript ({first})", f"give {wanted}") from error
    return network.eval()


def in_equal_batches(
    network: Callable[[Tensor], Tensor], rows: Shaped[Tensor, "n ..."], *, size: int, device: torch.device
) -> Float[Tensor, "n d"]:
    """Pass rows through a network, always as many at a time, so that a row's answer is the same to the bit whoever it is asked with.

    Matrices of other sizes are summed up in another order.

    Args:
        network: of each row it makes one.
        rows: what it takes.
        size: rows at a time; the last batch is filled up with zeros.
        device: where it runs.
    """
    made = []
    for part in rows.split(size):
        full = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
        made.append(network(full.to(device))[: len(part)].float().cpu())
    return torch.cat(made)


def at_a_time(count: int, device: torch.device) -> int:
    """How many rows to pass at a time; one on a CPU, where more are no faster and a batch that is not full would cost as much."""
    return 1 if device.type == "cpu" else count


def mean_direction(embeddings: Float[Tensor, "n d"]) -> Float[np.ndarray, "d"]:
    """The mean of embeddings of length 1 as a vector of length 1.

    Raises:
        SampleError: they hold NaN or infinite values, or cancel each other out.
    """
    mean = nn.functional.normalize(embeddings, dim=1).mean(0)
    length = mean.norm()
    if not bool(torch.isfinite(length)) or float(length) < 1e-6:
        raise SampleError("cannot be embedded", f"the mean of its frames' embeddings has the length {float(length):g}")
    return (mean / length).numpy()
