"""Weights are written whole or not at all; safetensors are streamed, so that one tensor at a time is in memory."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from moviegen_core.errors import UsageError
from moviegen_core.files import whole_file
from moviegen_core.weights.reading import SAFETENSORS_NAMES, TensorInfo


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a torch file."""
    with whole_file(path) as file:
        torch.save(dict(content), file)


def save_safetensors(
    path: str | Path, infos: Mapping[str, TensorInfo], read: Callable[[str], Tensor], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file tensor by tensor.

    Args:
        path: the file.
        infos: shape and type of every tensor by name.
        read: gives a tensor by its name; called once for each.
        metadata: text for the header.
    """
    # The format wants every tensor aligned to its own element size: wide ones first.
    names = sorted(infos, key=lambda name: (-infos[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for name in names:
        info = infos[name]
        header[name] = {
            "dtype": SAFETENSORS_NAMES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [offset, offset + info.num_bytes],
        }
        offset += info.num_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in progress(names, f"write {Path(path).name}"):
            tensor, info = read(name), infos[name]
            assert tuple(tensor.shape) == info.shape and tensor.dtype == info.dtype, f"{name} is not what was announced"
            if tensor.numel():
                file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def progress(names: Iterable[str], what: str) -> Iterable[str]:
    """A progress bar on a terminal, nothing in a log."""
    return tqdm(names, desc=what, unit="tensor", disable=None, leave=False)


def refuse_existing(path: Path, sources: Iterable[Path]) -> None:
    """Refuse to write over a file that is being read.

    Raises:
        UsageError: `path` is one of the sources.
    """
    for source in sources:
        if path.exists() and path.samefile(source):
            raise UsageError(f"the output {path} was given", "it is one of the inputs", "give another name for the output")
