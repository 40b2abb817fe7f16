"""Folders of torch.distributed.checkpoint, read without trusting their pickled index."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata

from moviegen_core.errors import UsageError

_INDEX = ".metadata"
# What torch itself writes into the index: its own records, shapes and element types.
_KNOWN = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib._local", "PosixPath"),
    ("collections", "OrderedDict"),
}


def is_sharded(path: Path) -> bool:
    """True for a folder of torch.distributed.checkpoint."""
    return path.is_dir() and (path / _INDEX).is_file()


def read_sharded_metadata(path: Path) -> Metadata:
    """Read the index of a folder with an unpickler that refuses all but torch's own records.

    Raises:
        UsageError: the index is damaged, or would run code.
    """
    try:
        with open(path / _INDEX, "rb") as file:
            return _RecordUnpickler(file, path).load()
    except UsageError:
        raise
    except (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"the sharded checkpoint {path} was given", f"its index cannot be read ({error})", "copy it again") from error


def read_sharded_tensor(path: Path, metadata: Metadata, key: str, into: Tensor) -> Tensor:
    """Read one tensor of a folder, put together from its shards."""
    state = {key: into}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(state, storage_reader=_SafeReader(path, metadata), no_dist=True)
    except (dcp.CheckpointException, OSError, RuntimeError, EOFError) as error:
        raise UsageError(
            f"the sharded checkpoint {path} was given",
            f"its tensor '{key}' cannot be read: a shard is missing or cut short",
            "copy the whole folder again, or give an earlier checkpoint",
        ) from error
    return state[key]


class _SafeReader(dcp.FileSystemReader):
    def __init__(self, path: Path, metadata: Metadata) -> None:
        super().__init__(path)
        self._index = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._index


class _RecordUnpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module == Metadata.__module__:
            # A name may be dotted and so reach what the module imports; only its own classes are records.
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise UsageError(
            f"the sharded checkpoint {self._path} was given",
            f"its index calls {module}.{name} when it is loaded, and loading it would run that code",
            "take safetensors instead",
        )
