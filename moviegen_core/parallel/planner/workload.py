"""What a preset trains: its backbone on the meta device, the size of a sample, and what stands beside the backbone on each GPU."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from moviegen_core.backbone import Backbone
from moviegen_core.errors import UsageError
from moviegen_core.footprint import Footprint
from moviegen_core.generator import FlowModel
from moviegen_core.parallel.planner.layout import Layout
from moviegen_core.parallel.planner.parameters import Parameters, Unit, read_parameters, shard_parameters
from moviegen_core.plugins import plugin_host
from moviegen_core.presets import Config, compose
from moviegen_core.sizes import build_model

DEFAULT_CONTEXT_LENGTH, FP32 = 256, 4


@dataclass
class Workload:
    """A training to be planned.

    Args:
        name: the preset.
        model: the model, its parts not built yet.
        latent_shape: shape (c, t, h, w) of one sample's latent, (c, t) of a sound.
        context_length: tokens of a sample's context.
        global_batch: samples per optimizer step in the preset itself; None where it does not say.
        frozen: bytes of encoders on every process.
        conditioners: trained parameters of the conditioners, each sharded by FSDP.
        notes: what could not be counted.
    """

    name: str
    model: FlowModel
    latent_shape: tuple[int, ...]
    context_length: int
    global_batch: int | None
    frozen: int
    conditioners: tuple[Unit, ...]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        self.backbone = self.build_backbone()
        self.backbone.footprint(self.latent_shape, self.context_length)  # says where it cannot be planned
        self.num_tokens = self.backbone.num_tokens(self.latent_shape)
        self.num_flops = self.backbone.num_flops(self.latent_shape, self.context_length)
        self._parameters: dict[int, Parameters] = {}
        self._footprints: dict[tuple[int, int, int], Footprint] = {}

    def build_backbone(self) -> Backbone:
        """The backbone on the meta device, anew."""
        with torch.device("meta"):
            return self.model.factories[0]()

    def parameters(self, tensor: int) -> Parameters:
        """Trained parameters where so many processes share each matrix.

        Raises:
            UsageError: the backbone cannot be sharded so.
        """
        if tensor not in self._parameters:
            self._parameters[tensor] = replace(shard_parameters(self.build_backbone(), tensor), others=self.conditioners)
        return self._parameters[tensor]

    def footprint(self, layout: Layout) -> Footprint:
        """What a sample costs a process of the layout's mesh."""
        key = (layout.context, layout.tensor, layout.element_bytes)
        if key not in self._footprints:
            context, tensor, element_bytes = key
            self._footprints[key] = self.backbone.footprint(
                self.latent_shape, self.context_length, context=context, tensor=tensor, element_bytes=element_bytes
            )
        return self._footprints[key]


def read_workload(preset: str, *, context_length: int | None = None) -> Workload:
    """Build a preset's model on the meta device and look at a sample of the size that it trains on.

    Args:
        preset: a preset's name or a YAML file.
        context_length: tokens of a sample's context; the conditioners' `max_tokens` together unless given.

    Raises:
        UsageError: it is no training of a backbone on an autoencoder's latents.
    """
    config = compose([preset])
    model = build_model(config)
    if not isinstance(model, FlowModel) or model.factories[2] is None:
        raise UsageError(
            f"{preset} was given", "it has no backbone over an autoencoder's latents", "plan a preset such as t2v/paper_t2iv_768"
        )
    with torch.device("meta"):
        autoencoder = model.factories[2]()
        autoencoder.configure_model()
    sections = dict(_conditioner_sections(config))
    if context_length is None:
        context_length = sum(context_length_of(given) for name, given in sections.items() if _has_context(config, name))
    units, unknown = _conditioners(model, preset)
    encoders = [name for name, given in sections.items() if _has_frozen_encoder(given)]
    notes = []
    if encoders:
        notes.append(f"the encoders of {', '.join(encoders)} are not counted; precompute their embeddings or give --reserve_gib")
    if unknown:
        notes.append(f"the projections of {', '.join(unknown)} are not counted (files of the encoders are not on this machine)")
    if not config.get("data", {}).get("init_args", {}).get("latents"):
        notes.append("latents count as precomputed (A.2); encoding pixels in the step takes memory of its own")
    return Workload(
        name=preset,
        model=model,
        latent_shape=model.sample_shape(autoencoder),
        context_length=context_length,
        global_batch=_global_batch(config),
        frozen=sum(parameter.numel() for parameter in autoencoder.parameters()) * FP32,
        conditioners=units,
        notes=tuple(notes),
    )


def context_length_of(given: Mapping[str, Any]) -> int:
    """Tokens of a conditioner's context at most, by its arguments."""
    return int(given.get("max_tokens", given.get("max_words", DEFAULT_CONTEXT_LENGTH)))


def _conditioner_sections(config: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, section in (config["model"].get("init_args", {}).get("conditioners") or {}).items():
        yield name, (section or {}).get("init_args") or {}


def _has_context(config: Config, name: str) -> bool:
    """Whether a conditioner opens the door `context`, by its class."""
    path = config["model"]["init_args"]["conditioners"][name]["class_path"]
    module, _, cls = (path if "." in path else plugin_host().component(path).class_path).rpartition(".")
    return getattr(getattr(importlib.import_module(module), cls), "has_context", True)


def _has_frozen_encoder(given: Mapping[str, Any]) -> bool:
    within = (given.get("encoder") or {}).get("init_args") or {}
    return ("pretrained" in given or "pretrained" in within) and not given.get("precomputed_only")


def _conditioners(model: FlowModel, preset: str) -> tuple[tuple[Unit, ...], list[str]]:
    """Trained parameters of the conditioners, and the names of those that cannot be built on this machine."""
    from moviegen_core.sizes import without_network

    backbone, conditioners, _ = model.factories
    units, unknown = [], []
    with torch.device("meta"), without_network():
        width = backbone().width
        for name, factory in conditioners.items():
            try:
                units.append(read_parameters(factory(width)).root)
            except (OSError, ValueError):  # a pretrained encoder whose files are not here
                unknown.append(name)
    return tuple(units), unknown


def _global_batch(config: Config) -> int | None:
    """Samples per optimizer step as the preset itself would run; None where it does not say."""
    trainer, data = config.get("trainer") or {}, (config.get("data") or {}).get("init_args") or {}
    strategy = trainer.get("strategy")
    mesh = (strategy.get("init_args") or {}) if isinstance(strategy, dict) else {}
    shared = mesh.get("context_parallel_size", 1) * mesh.get("tensor_parallel_size", 1)
    counts = (trainer.get(name, 1) for name in ("devices", "num_nodes", "accumulate_grad_batches"))
    numbers = (*counts, data.get("batch_size"), shared)
    if not all(type(number) is int and number > 0 for number in numbers):
        return None
    gpus, nodes, accumulate, size, shared = numbers
    return gpus * nodes // shared * size * accumulate or None
