"""Networks of the transformers library from a folder or the hub: found, loaded whole or refused, and frozen.

The library itself is imported by who names the loader.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from moviegen_core.errors import UsageError, what_exists

Dtype = Literal["float32", "bfloat16", "float16"]
WANTED = "a folder that `save_pretrained` wrote, with config.json, model.safetensors and the tokenizer's files"


def load_pretrained(loader: Callable[..., Any], path: str, *, what: str, wanted: str = WANTED, hub: bool = True, **options: Any) -> Any:
    """Call a `from_pretrained`; with a local folder nothing reaches for the network.

    Args:
        loader: the `from_pretrained` of a transformers class.
        path: a folder, or a name on the Hugging Face hub.
        what: what is loaded, for the error.
        wanted: what should be given, for the error.
        hub: whether names on the hub are taken; otherwise folders alone are.
        options: passed on.

    Raises:
        UsageError: there is no such model, it is of another kind, a file is damaged, or a package is missing.
    """
    folder = Path(path).expanduser()
    local = folder.is_dir()
    if not local and (not hub or path.startswith((".", "/", "~"))):
        parent = next(parent for parent in folder.absolute().parents if parent.is_dir())
        models = [child.parent.name for child in parent.glob("*/config.json")]
        raise UsageError(
            f"the folder {path} was given for {what}",
            f"there is no such folder; in {parent} {what_exists(folder.name, models, noun='model')}",
            f"give {wanted}, e.g. from `hf download OWNER/NAME --local-dir {path}`",
        )
    try:
        return loader(str(folder) if local else path, local_files_only=local, **options)
    except ImportError as error:
        raise UsageError(
            f"the model {path} was given for {what}",
            f"reading it needs a package that is not installed ({_first_line(error)})",
            "install it; for a tokenizer run `pip install sentencepiece protobuf`, or save it once as tokenizer.json: "
            "transformers.AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        exists = f"the folder holds {_listing(folder)}" if local else "it is no local folder, and the hub did not give it"
        advice = f"give {wanted}" + (", or the name of such a model on the hub" if hub else "")
        raise UsageError(f"the model {path} was given for {what}", f"{exists} ({_first_line(error)})", advice) from error


def load_frozen(
    loader: Callable[..., Any], path: str, *, what: str, dtype: Dtype, wanted: str = WANTED, hub: bool = True, **options: Any
) -> nn.Module:
    """Load a network onto the CPU, all of whose weights came from the files.

    Args:
        loader: the `from_pretrained` of a transformers class.
        path: a folder, or a name on the Hugging Face hub.
        what: what is loaded, for the error.
        dtype: precision of the weights.
        wanted: what should be given, for the error.
        hub: whether names on the hub are taken; otherwise folders alone are.
        options: passed on.

    Raises:
        UsageError: as `load_pretrained`, and where a weight is missing.
    """
    # A model may be built on the meta device, or while Lightning validates; its frozen parts hold real, ordinary tensors all the same.
    options |= {"dtype": getattr(torch, dtype), "output_loading_info": True}
    with torch.inference_mode(False), torch.device("cpu"):
        network, report = load_pretrained(loader, path, what=what, wanted=wanted, hub=hub, **options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise UsageError(
            f"the model {path} was given for {what}",
            f"its files lack {len(missing)} weights of {type(network).__name__}, e.g. '{missing[0]}'; they would start at random",
            f"give {wanted}",
        )
    return network.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _listing(folder: Path) -> str:
    names = sorted(child.name for child in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
