"""Text encoders of the transformers library: found, loaded and kept frozen."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from moviegen_core.errors import UsageError, what_exists
from moviegen_core.parallel.turns import in_turns

if TYPE_CHECKING:
    from moviegen_core.parallel.plan import ParallelPlan

Dtype = Literal["float32", "bfloat16", "float16"]


def load_pretrained(loader: Callable[..., Any], path: str, *, what: str, **options: Any) -> Any:
    """Call a `from_pretrained`; with a local folder nothing reaches for the network.

    Args:
        loader: the `from_pretrained` of a transformers class.
        path: a folder, or a name on the Hugging Face hub.
        what: what is loaded, for the error.
        options: passed on.

    Raises:
        UsageError: there is no such model, it is of another kind, a file is damaged, or a package is missing.
    """
    folder = Path(path).expanduser()
    if path.startswith((".", "/", "~")) and not folder.is_dir():
        parent = next(parent for parent in folder.absolute().parents if parent.is_dir())
        models = [child.parent.name for child in parent.glob("*/config.json")]
        raise UsageError(
            f"the folder {path} was given for {what}",
            f"there is no such folder; in {parent} {what_exists(folder.name, models, noun='model')}",
            f"give a folder with config.json, weights and tokenizer, e.g. from `hf download google/byt5-small --local-dir {path}`",
        )
    local = folder.is_dir()
    try:
        return loader(str(folder) if local else path, local_files_only=local, **options)
    except ImportError as error:
        raise UsageError(
            f"the model {path} was given for {what}",
            f"reading it needs a package that is not installed ({_first_line(error)})",
            "run `pip install sentencepiece protobuf`, or save its tokenizer once as tokenizer.json: "
            "transformers.AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        exists = f"the folder holds {_listing(folder)}" if local else "it is no local folder, and the hub did not give it"
        raise UsageError(
            f"the model {path} was given for {what}",
            f"{exists} ({_first_line(error)})",
            "give a folder that `save_pretrained` wrote, with config.json, model.safetensors and the tokenizer's files, "
            "or the name of such a model on the hub",
        ) from error


def load_encoder(loader: Callable[..., Any], path: str, *, what: str, dtype: Dtype, **options: Any) -> nn.Module:
    """Load a network and make sure that all of its weights came from the files.

    Raises:
        UsageError: as `load_pretrained`, and where a weight is missing.
    """
    # A model may be built on the meta device, or while Lightning validates; its frozen encoder holds real, ordinary tensors all the same.
    with torch.inference_mode(False), torch.device("cpu"):
        network, report = load_pretrained(loader, path, what=what, dtype=getattr(torch, dtype), output_loading_info=True, **options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise UsageError(
            f"the model {path} was given for {what}",
            f"its files lack {len(missing)} weights of {type(network).__name__}, e.g. '{missing[0]}'",
            "give a model of this kind; they would start at random otherwise",
        )
    return network.eval().requires_grad_(False)


class FrozenEncoder:
    """Holds a frozen network outside of the module tree, and loads it when it is first used.

    So it is in no optimizer, no checkpoint and no moving average, is not copied with the model, and costs nothing where embeddings are
    precomputed. It follows its user to his device.

    Args:
        load: loads the network.
    """

    def __init__(self, load: Callable[[], nn.Module]) -> None:
        self._load = load
        self._network: nn.Module | None = None
        self.plan: ParallelPlan | None = None  # where set, the network is sharded once it is loaded

    @property
    def is_loaded(self) -> bool:
        """True once the network was used."""
        return self._network is not None

    def on(self, device: torch.device) -> nn.Module:
        """The network on a device."""
        if self._network is None:
            self._network = self._load() if self.plan is None else in_turns(self._load_shards)
        if self.plan is None and next(self._network.parameters()).device != device:
            with torch.inference_mode(False):
                self._network.to(device)
        return self._network

    def _load_shards(self) -> nn.Module:
        """Load the network and keep this process's shards, layer by layer, the layers being those of its longest list of modules."""
        network = self._load()
        lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
        for layer in max(lists, key=len, default=()):
            self.plan.shard(layer)
        self.plan.shard(network)
        return network

    def __deepcopy__(self, memo: dict[int, Any]) -> "FrozenEncoder":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"_load": self._load, "_network": None, "plan": None}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _listing(folder: Path) -> str:
    names = sorted(child.name for child in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
