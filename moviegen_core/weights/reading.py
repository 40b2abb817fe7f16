"""Checkpoints as a mapping from names to tensors that are read one by one: Lightning files and folders, plain torch files, safetensors."""

import json
import pickle
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from moviegen_core.errors import UsageError, what_exists
from moviegen_core.weights.sharded import REST, ShardedFolder, StoredTensor, is_sharded, looks_sharded, put_back

SHARDED_REST = "sharded"  # in a folder's rest: paths of values that lie in shards, and their names there
_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it.

    Args:
        shape: its shape.
        dtype: its element type.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_elements(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    @property
    def num_bytes(self) -> int:
        """Bytes that the elements take."""
        return self.num_elements * self.dtype.itemsize


class WeightsFile(Mapping[str, Tensor], ABC):
    """Named tensors on disk; `file[name]` reads one of them.

    Args:
        path: the file or folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def infos(self) -> dict[str, TensorInfo]:
        """Shape and type of every tensor by name."""

    @property
    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """All that the checkpoint holds beside its weights and optimizer states."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)


class TorchWeights(WeightsFile):
    """A file of `torch.save`: a Lightning checkpoint or a bare state dict.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # Mapped into memory: a tensor is read when it is touched, and only then.
        self._content = load_torch(path, mmap=True)
        self._state = _state_of(self._content, path)

    @cached_property
    def infos(self) -> dict[str, TensorInfo]:
        """Shape and type of every tensor by name."""
        return {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in self._state.items()}

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """All that the checkpoint holds beside its weights and optimizer states."""
        if _is_bare(self._content):
            return {}
        return {key: value for key, value in self._content.items() if key not in ("state_dict", "optimizer_states")}

    def __getitem__(self, name: str) -> Tensor:
        return self._state[name]


class SafetensorsWeights(WeightsFile):
    """One safetensors file, or a folder of them with an optional `config.json`.

    Args:
        path: the file or folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        self._owner: dict[str, Any] = {}
        for file in files:
            handle = _open_safetensors(file)
            twice = self._owner.keys() & set(handle.keys())
            if twice:
                raise UsageError(
                    f"the folder {path} was given",
                    f"tensor '{min(twice)}' is in two of its files, {file.name} among them",
                    "give the one file that is meant",
                )
            self._owner.update(dict.fromkeys(handle.keys(), handle))

    @cached_property
    def infos(self) -> dict[str, TensorInfo]:
        """Shape and type of every tensor by name."""
        slices = {name: handle.get_slice(name) for name, handle in self._owner.items()}
        return {name: TensorInfo(tuple(part.get_shape()), _DTYPES[part.get_dtype()]) for name, part in slices.items()}

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The header's own entries, and `config.json` where there is one."""
        header = {key: value for handle in self._owner.values() for key, value in (handle.metadata() or {}).items()}
        config = self.path / "config.json"
        return {**header, **(json.loads(config.read_text()) if config.is_file() else {})}

    def __getitem__(self, name: str) -> Tensor:
        return self._owner[name].get_tensor(name)


class ShardedWeights(WeightsFile):
    """A folder of torch.distributed.checkpoint, as sharded training writes it.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.folder = ShardedFolder(path)

    @cached_property
    def infos(self) -> dict[str, TensorInfo]:
        """Shape and type of every tensor by name."""
        return {
            key.removeprefix("state_dict."): TensorInfo(tuple(entry.size), entry.properties.dtype)
            for key, entry in self.folder.tensors.items()
            if key.startswith("state_dict.")
        }

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """All that the checkpoint holds beside its weights and optimizer states; sharded tensors in it stay in the folder."""
        return read_rest(self.folder)

    def __getitem__(self, name: str) -> Tensor:
        return self.folder.tensor(f"state_dict.{name}")


def read_rest(folder: ShardedFolder) -> dict[str, Any]:
    """Read what a sharded checkpoint holds beside weights and optimizer states; its sharded tensors come as `StoredTensor`."""
    file = folder.path / REST
    if not file.is_file():
        return {}
    content = load_torch(file)
    put_back(content, {tuple(path): StoredTensor(folder, key) for path, key in content.pop(SHARDED_REST, [])})
    return content


def open_weights(path: str | Path) -> WeightsFile:
    """Open a checkpoint for reading tensor by tensor.

    Args:
        path: a Lightning checkpoint (file or sharded folder), a bare state dict, a safetensors file, or a folder of safetensors.

    Raises:
        UsageError: the file is absent, cut short, of no known kind, or would run code.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UsageError(f"weights {path} were given", _neighbours(path), "give the path of a checkpoint that exists")
    if path.is_dir():
        if looks_sharded(path):
            return ShardedWeights(path)
        if not any(path.glob("*.safetensors")):
            raise UsageError(
                f"the folder {path} was given",
                f"it holds neither a sharded checkpoint (.metadata) nor *.safetensors; {_neighbours(path / 'x')}",
                "give a checkpoint file, or the folder that holds one of those",
            )
        return SafetensorsWeights(path)
    return SafetensorsWeights(path) if path.suffix == ".safetensors" else TorchWeights(path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a whole checkpoint weights-only: `state_dict` and whatever else it holds (from safetensors: the contents of its config)."""
    path = Path(path).expanduser()
    if path.is_file() and path.suffix != ".safetensors":
        content = load_torch(path)
        state = _state_of(content, path)
        return {"state_dict": state} if _is_bare(content) else content
    file = open_weights(path)
    return {**file.metadata, "state_dict": dict(file)}


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read only the weights of a checkpoint, its `state_dict`; with a moving average that is the average."""
    return load_checkpoint(path)["state_dict"]


def _is_bare(content: Any) -> bool:
    return isinstance(content, dict) and "state_dict" not in content


def _state_of(content: Any, path: Path) -> dict[str, Tensor]:
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(
            f"{path} was given as weights",
            f"it holds {_kind(state)} instead of tensors by name or a `state_dict`",
            "give a Lightning checkpoint, a state dict or safetensors",
        )
    return state


def _kind(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    return f"a dict of {', '.join(map(str, list(content)[:4]))}" if content else "an empty dict"


def load_torch(path: Path, *, mmap: bool = False) -> Any:
    """Read a file of `torch.save` weights-only.

    Raises:
        UsageError: the file is damaged, or would run code.
    """
    with open(path, "rb") as file:
        start = file.read(4)
    try:
        with warnings.catch_warnings():
            # A foreign pickle protocol is refused below, in our own words.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap and start == b"PK\x03\x04")
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error), is_pickle=start[:1] == b"\x80") from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AssertionError, OSError) as error:
        raise _damaged(path, error) from error


def _refusal(path: Path, message: str, *, is_pickle: bool) -> UsageError:
    found = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"unrecognized function (\S.*)", message)
    if found is None and not is_pickle:
        return _damaged(path, ValueError("it is no file of torch.save"))
    return UsageError(
        f"{path} was given as weights",
        f"it is a pickle that calls {found[1] if found else 'code'} when it is loaded, and loading it would run that code",
        "take safetensors instead, or where you trust the file save its bare state dict: torch.save(model.state_dict(), path)",
    )


def _damaged(path: Path, error: Exception) -> UsageError:
    detail = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return UsageError(
        f"{path} was given as weights, a file of {path.stat().st_size:,} bytes",
        f"it cannot be read: it is cut short, or no checkpoint at all ({detail})",
        "copy or download it again, or give an earlier checkpoint",
    )


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _neighbours(path: Path) -> str:
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    names = [child.name for child in folder.iterdir() if child.suffix in _SUFFIXES or is_sharded(child)]
    return f"in {folder} {what_exists(path.name, names, noun='checkpoint')}"


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
SAFETENSORS_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
