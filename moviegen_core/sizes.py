"""Counts a preset's parameters by component on the meta device: nothing is allocated, downloaded or read."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningModule
from torch import nn

from moviegen_core.diagnosis import diagnose
from moviegen_core.errors import UsageError
from moviegen_core.generator import FlowModel
from moviegen_core.lightning_cli import MoviegenParser, ParseFailure, import_named_components
from moviegen_core.plugins import plugin_host
from moviegen_core.presets import Config, compose


def measure(name: str) -> dict[str, Any]:
    """Sizes of a preset's model.

    Args:
        name: a preset or a YAML file.

    Returns:
        `components` (by name: `total`, `parts`, and a `note` where a part cannot be built without its weights), `total` (what is
        known), `num_tokens` and `latent_shape` (None where the model has no backbone or no autoencoder).
    """
    model = build_model(compose([name]))
    components: dict[str, Any] = {}
    latent_shape = num_tokens = None
    with torch.device("meta"), without_network():
        if isinstance(model, FlowModel):
            build_backbone, build_conditioners, build_autoencoder = model.factories
            backbone = build_backbone()
            components["backbone"] = _count(backbone)
            for key, factory in build_conditioners.items():
                components[f"conditioners.{key}"] = _built_and_counted(factory, backbone.width)
            if build_autoencoder is not None:
                autoencoder = build_autoencoder()
                autoencoder.configure_model()
                components["autoencoder"] = _count(autoencoder)
                latent_shape = list(model.sample_shape(autoencoder))
                num_tokens = backbone.num_tokens(tuple(latent_shape))
        else:
            model.configure_model()
            components = {key: _count(child) for key, child in model.named_children() if any(True for _ in child.parameters())}
    return {
        "name": name,
        "components": components,
        "total": sum(size["total"] or 0 for size in components.values()),
        "num_tokens": num_tokens,
        "latent_shape": latent_shape,
    }


def build_model(config: Config) -> Any:
    """Construct the model of a config on the meta device, without trainer, data and weight files."""
    model = config.get("model")
    if not isinstance(model, dict) or "class_path" not in model:
        raise UsageError("a preset without a model was given", "its parameters cannot be counted", "see `moviegen presets show NAME`")
    import_named_components(yaml.safe_dump(model), plugin_host())
    init_args = {key: value for key, value in model.get("init_args", {}).items() if not key.endswith("checkpoint")}
    parser = MoviegenParser()
    parser.add_subclass_arguments(LightningModule, "model")
    try:
        parsed = parser.parse_object({"model": {**model, "init_args": init_args}})
    except ParseFailure as failure:
        raise diagnose(str(failure), {"model": model}, [], None, plugin_host()) from failure
    with torch.device("meta"):
        return parser.instantiate(parsed).model


@contextlib.contextmanager
def without_network() -> Iterator[None]:
    """Let the hub's client answer from its cache alone, as HF_HUB_OFFLINE=1 would have."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _built_and_counted(factory: Callable[[int], nn.Module], width: int) -> dict[str, Any]:
    try:
        return _count(factory(width))
    except (OSError, ValueError) as error:  # a pretrained encoder whose files are not on this machine
        return {"total": None, "parts": {}, "note": " ".join(str(error).split())[:200]}


def _count(module: nn.Module) -> dict[str, Any]:
    parts = {key: sum(p.numel() for p in child.parameters()) for key, child in module.named_children()}
    own = sum(p.numel() for p in module.parameters(recurse=False))
    parts |= {"(own)": own} if own else {}
    total = sum(p.numel() for p in module.parameters())
    note = {} if total else {"note": "it has no parameters"}
    return {"total": total, "parts": {key: count for key, count in parts.items() if count}, **note}
