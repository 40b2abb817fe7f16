"""Models that stages load from local paths; nothing here reaches for the network, and nothing is unpickled."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from moviegen_core.errors import UsageError, what_exists
from moviegen_data.faults import SampleError

Dtype = Literal["float32", "bfloat16", "float16"]


def pick_device(device: str | None, *, stage: str) -> torch.device:
    """The device of that name; unless given the GPU where there is one, else the CPU.

    Raises:
        UsageError: there is no such device.
    """
    has_gpu = torch.cuda.is_available()
    try:
        wanted = torch.device(device or ("cuda" if has_gpu else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"device={device!r} was given for {stage}", "devices are cpu, cuda, cuda:1, ...", "correct it") from error
    if wanted.type == "cuda" and not has_gpu:
        raise UsageError(f"device={device!r} was given for {stage}", "torch sees no GPU here", "give device cpu, or leave it out")
    return wanted


def require_path(path: str, *, stage: str, what: str) -> Path:
    """The path, where there is something.

    Args:
        path: file or folder.
        stage: what asks, for the error.
        what: what should be there, for the error.

    Raises:
        UsageError: there is nothing.
    """
    place = Path(path).expanduser()
    if not place.exists():
        parent = next(parent for parent in place.absolute().parents if parent.is_dir())
        near = what_exists(place.name, [child.name for child in parent.iterdir()], noun="entry")
        raise UsageError(f"the path {path} was given for {stage}", f"there is nothing; in {parent} {near}", f"give {what}")
    return place


def load_pretrained(loader: Callable[..., Any], path: str, *, stage: str, what: str, **options: Any) -> Any:
    """Call a `from_pretrained` of transformers on a local folder.

    Args:
        loader: the `from_pretrained`.
        path: the folder.
        stage: what asks, for the error.
        what: what should be there, for the error.
        options: passed on.

    Raises:
        UsageError: there is no such folder, it holds something else, or it is damaged.
    """
    folder = require_path(path, stage=stage, what=what)
    try:
        return loader(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, SafetensorError) as error:
        holds = ", ".join(sorted(child.name for child in folder.iterdir())[:8]) if folder.is_dir() else "it is a file"
        raise UsageError(f"the path {path} was given for {stage}", f"it holds {holds} ({_reason(error)})", f"give {what}") from error


def load_network(loader: Callable[..., Any], path: str, *, stage: str, what: str, dtype: Dtype, device: str | None) -> nn.Module:
    """Load a network from safetensors, all of whose weights came from the files.

    Raises:
        UsageError: as `load_pretrained`, or a weight is missing.
    """
    place = pick_device(device, stage=stage)
    options = {"dtype": getattr(torch, dtype), "output_loading_info": True, "use_safetensors": True}
    network, report = load_pretrained(loader, path, stage=stage, what=what, **options)
    missing = sorted(report["missing_keys"])
    if missing:
        exists = f"its files lack {len(missing)} weights of {type(network).__name__}, e.g. {missing[0]!r}; they would start at random"
        raise UsageError(f"the path {path} was given for {stage}", exists, f"give {what}")
    return network.eval().requires_grad_(False).to(place)


def load_torchscript(path: str, *, stage: str, what: str, device: str | None) -> nn.Module:
    """Load a TorchScript file: a graph of torch's own operators and its weights, no Python code.

    Raises:
        UsageError: there is no such file, or it is no TorchScript.
    """
    place = pick_device(device, stage=stage)
    file = require_path(path, stage=stage, what=what)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
            network = torch.jit.load(str(file), map_location=place)
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(f"the file {path} was given for {stage}", f"it is no TorchScript ({_reason(error)})", f"give {what}") from error
    return network.eval()


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


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[0])[:200] if lines else type(error).__name__
