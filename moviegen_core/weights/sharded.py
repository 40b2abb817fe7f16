"""Folders of torch.distributed.checkpoint, read without trusting what they pickle."""

import io
import pickle
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem

from moviegen_core.errors import UsageError
from moviegen_core.files import is_partial

INDEX, REST = ".metadata", "meta.pt"
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
_TRY_ANOTHER = "copy the whole folder again, or give an earlier checkpoint"


def is_sharded(path: Path) -> bool:
    """True for a folder of torch.distributed.checkpoint."""
    return path.is_dir() and (path / INDEX).is_file()


def looks_sharded(path: Path) -> bool:
    """True for a folder that is, or was to become, one of torch.distributed.checkpoint."""
    return path.is_dir() and (is_partial(path) or is_sharded(path) or any(path.glob("*.distcp")))


class ShardedFolder:
    """A whole folder of torch.distributed.checkpoint, its index read.

    Args:
        path: the folder.

    Raises:
        UsageError: the folder is unfinished or damaged, a file of it is missing or cut, or reading it would run code.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if is_partial(path):
            raise self._error("it is unfinished: a saving that was interrupted left it", "give the checkpoint that lies beside it")
        if not (path / INDEX).is_file():
            raise self._error(f"its index {INDEX} is missing: it is cut, or was never finished", _TRY_ANOTHER)
        self.index = _read_index(path)
        self._require_files()

    @cached_property
    def tensors(self) -> dict[str, TensorStorageMetadata]:
        """What is known of every tensor, by its full name."""
        return {key: entry for key, entry in self.index.state_dict_metadata.items() if isinstance(entry, TensorStorageMetadata)}

    def load(self, state: dict[str, Any], *, together: bool = False) -> None:
        """Fill the tensors of a state dict, each process its own shards, and replace its other values.

        Args:
            state: nested as it was saved; sharded tensors may be cut differently than when they were saved.
            together: all processes load, and fail, together.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
                dcp.load(state, storage_reader=_SafeReader(self.path, self.index), planner=_SafePlanner(), no_dist=not together)
        except (dcp.CheckpointException, OSError, RuntimeError, EOFError, pickle.UnpicklingError, LookupError) as error:
            raise self._error(f"it cannot be read: {_reason(error)}", _TRY_ANOTHER) from error

    def tensor(self, key: str) -> Tensor:
        """One tensor, put together from its shards."""
        entry = self.tensors[key]
        state: dict[str, Any] = {key: torch.empty(entry.size, dtype=entry.properties.dtype)}
        self.load(state)
        return state[key]

    def tree(self, name: str) -> Any:
        """All that was saved under one name, whole and nested as it was."""
        state: dict[str, Any] = {}
        for key, path in self.index.planner_data.items():
            if path[0] == name:
                entry = self.tensors.get(key)
                _put(state, path, None if entry is None else torch.empty(entry.size, dtype=entry.properties.dtype))
        self.load(state)
        return state.get(name)

    def require_rest(self) -> None:
        """Refuse a folder that cannot be resumed or predicted from: what is not a tensor lies in a file of its own."""
        if not (self.path / REST).is_file():
            raise self._error(f"its file {REST} is missing", _TRY_ANOTHER)

    def _require_files(self) -> None:
        sizes: dict[str, int] = defaultdict(int)
        for part in (self.index.storage_data or {}).values():
            sizes[part.relative_path] = max(sizes[part.relative_path], part.offset + part.length)
        for name, size in sorted(sizes.items()):
            file = self.path / name
            if Path(name).name != name:
                raise self._error(f"its index points to {name}, outside the folder", "take another checkpoint")
            if not file.is_file():
                raise self._error(f"its shard {name} is missing ({len(sizes)} belong to it)", _TRY_ANOTHER)
            if file.stat().st_size < size:
                raise self._error(f"its shard {name} is cut: it has {file.stat().st_size:,} of {size:,} bytes", _TRY_ANOTHER)

    def _error(self, exists: str, advice: str) -> UsageError:
        return UsageError(f"the sharded checkpoint {self.path} was given", exists, advice)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that is still in its folder, so that each process can read what it needs of it.

    Args:
        folder: the folder.
        key: the tensor's full name there.
    """

    folder: ShardedFolder
    key: str

    def read(self) -> Tensor:
        """The whole tensor."""
        return self.folder.tensor(self.key)

    def read_into(self, target: Tensor) -> None:
        """Fill a tensor of the same shape, a sharded one with its own shards."""
        self.folder.load({self.key: target})

    def __deepcopy__(self, memo: dict[int, Any]) -> "StoredTensor":
        return self


def take_out(tree: Any, wanted: type, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """Remove all values of one class from nested dictionaries; returns them by their paths."""
    taken: dict[tuple[Any, ...], Any] = {}
    for key, value in list(tree.items()) if isinstance(tree, dict) else ():
        if isinstance(value, wanted):
            taken[*path, key] = tree.pop(key)
        elif isinstance(value, dict):
            tree[key] = dict(value)  # the caller's own stays as it is
            taken |= take_out(tree[key], wanted, (*path, key))
    return taken


def put_back(tree: dict[str, Any], values: Mapping[tuple[Any, ...], Any]) -> None:
    """Undo `take_out`."""
    for path, value in values.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value


def key_of(path: tuple[Any, ...]) -> str:
    """The name in the folder of what `take_out` took from a path."""
    return ".".join(map(str, path))


def _put(tree: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    """Set a value in a tree of dictionaries and lists, which grow as needed."""
    node: Any = tree
    for key, following in zip(path, [*path[1:], None], strict=True):
        fresh = value if following is None else ([] if isinstance(following, int) else {})
        if isinstance(node, list):
            node += [None] * (key + 1 - len(node))
            node[key] = fresh if following is None or node[key] is None else node[key]
        elif following is None or key not in node:
            node[key] = fresh
        node = node[key]


def _read_index(path: Path) -> Metadata:
    try:
        with open(path / INDEX, "rb") as file:
            return _RecordUnpickler(file, path).load()
    except UsageError:
        raise
    except (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"the sharded checkpoint {path} was given", f"its index cannot be read ({error})", "copy it again") from error


def _reason(error: Exception) -> str:
    if isinstance(error, dcp.CheckpointException) and error.failures:
        rank, (cause, _) = next(iter(error.failures.items()))
        return f"process {rank}: {cause}".splitlines()[0][:300]
    return (str(error) or type(error).__name__).splitlines()[0][:300]


class _SafeReader(dcp.FileSystemReader):
    def __init__(self, path: Path, index: Metadata) -> None:
        super().__init__(path)
        self._index = index

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._index


class _SafePlanner(DefaultLoadPlanner):
    """Reads values that are no tensors weights-only; torch's own planner would run what they pickle."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        content = torch.load(value, weights_only=True)
        super().load_bytes(read_item, _saved(content))


def _saved(content: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return buffer


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
