"""Weights of a Descript Audio Codec, in the layout of transformers' `DacModel`, for the encoder and decoder of a DAC-VAE.

Whole layers are taken where their shapes agree; the quantiser has no counterpart. Published codecs run at 16, 24 or 44.1 kHz with hops of
320 or 512 samples, so of a model at 48 kHz with a hop of 1920 they fill the layers of equal width and stride alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from moviegen_audio.codec import CodecNetwork
from moviegen_audio.convolution import Conv1d, ConvTranspose1d
from moviegen_audio.snake import Snake1d
from moviegen_core.errors import UsageError
from moviegen_core.weights import load_state_dict


@dataclass
class ImportReport:
    """What became of the layers.

    Args:
        taken: layers of the model that were filled, by our names.
        refused: layers of the file that were left out, by its names, with the reason.
        untouched: layers of the model that keep the weights they had.
    """

    taken: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    untouched: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """All of it in words."""
        reasons = "".join(f"\n  left out {name}: {reason}" for name, reason in self.refused.items())
        kept = f"\n  not filled: {', '.join(self.untouched)}" if self.untouched else ""
        return f"{len(self.taken)} layers of the codec were taken, {len(self.refused)} left out{reasons}{kept}"


def load_dac(network: CodecNetwork, source: str | Path | Mapping[str, Tensor]) -> ImportReport:
    """Fill the encoder and decoder with a codec's weights where shapes agree, and say what was taken, what not, and why.

    Args:
        network: the model to fill.
        source: a folder that transformers saved, a safetensors or torch file, or a state dict; with or without weight norm.

    Raises:
        UsageError: there is no such file, it holds no codec, or no layer fits.
    """
    name = "the given state dict" if isinstance(source, Mapping) else f"'{source}'"
    state = dict(source) if isinstance(source, Mapping) else _read(Path(source))
    layers = {path: part for path, part in network.named_modules() if isinstance(part, (Conv1d, ConvTranspose1d, Snake1d))}
    report, waiting = ImportReport(), set(layers)
    for theirs, tensors in _by_layer(state).items():
        ours = _rename(theirs)
        if ours not in layers:
            report.refused[theirs] = _absent(theirs)
        elif reason := _fill(layers[ours], tensors):
            report.refused[theirs] = reason
        else:
            report.taken.append(ours)
            waiting.discard(ours)
    report.untouched = [path for path in layers if path in waiting]
    if not report.taken:
        first = next((item for item in report.refused.items() if item[0]), None)
        told = f"e.g. {first[0]}: {first[1]}" if first else "it holds no tensors"
        raise UsageError(
            f"{name} was given to start a DAC-VAE from",
            f"none of its layers fits; {told}",
            "give weights in the layout of transformers' DacModel, and equal encoder_width, decoder_width and strides; "
            "a training of a DacVae goes on with --ckpt_path",
        )
    return report


def _read(path: Path) -> dict[str, Tensor]:
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(
            f"dac_checkpoint '{path}' was given",
            f"there is no file '{file}'",
            "give a folder that transformers' DacModel.save_pretrained wrote, or a safetensors file",
        )
    return dict(load_state_dict(file))


def _by_layer(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by layer, weight norm in any of its spellings named `weight_v` and `weight_g`."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        key = key.removeprefix("dac.")
        key = key.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v")
        layer, _, part = key.rpartition(".")
        layers.setdefault(layer, {})[part] = value
    return layers


_NAMES = (
    (r"^(en|de)coder\.block\.(\d+)\.res_unit(\d)\.(snake1|snake2|conv1|conv2)$", r"\1coder.blocks.\2.units.\3.\4"),
    (r"^(en|de)coder\.block\.(\d+)\.snake1$", r"\1coder.blocks.\2.snake"),
    (r"^encoder\.block\.(\d+)\.conv1$", r"encoder.blocks.\1.down"),
    (r"^decoder\.block\.(\d+)\.conv_t1$", r"decoder.blocks.\1.up"),
    (r"^(en|de)coder\.conv1$", r"\1coder.conv_in"),
    (r"^(en|de)coder\.conv2$", r"\1coder.conv_out"),
    (r"^(en|de)coder\.snake1$", r"\1coder.snake_out"),
)


def _rename(layer: str) -> str | None:
    for pattern, ours in _NAMES:
        if re.match(pattern, layer):
            renamed = re.sub(pattern, ours, layer)
            return re.sub(r"\.units\.(\d)", lambda match: f".units.{int(match[1]) - 1}", renamed)  # theirs count from 1
    return None


def _absent(layer: str) -> str:
    if layer.startswith("quantizer"):
        return "the quantiser; a VAE has a Gaussian in its place"
    return "this model has fewer levels" if _rename(layer) else "DAC has no such layer"


@torch.no_grad()
def _fill(layer: nn.Module, tensors: Mapping[str, Tensor]) -> str | None:
    """Copy one layer; the reason where it does not fit."""
    if isinstance(layer, Snake1d):
        wanted, given = {"alpha": layer.alpha}, {name: value.flatten() for name, value in tensors.items()}
    else:
        wanted, given = {"weight": layer.weight, "bias": layer.bias}, dict(tensors)
        if "weight_v" in given and "weight_g" in given:
            direction, gain = given.pop("weight_v"), given.pop("weight_g")
            given["weight"] = direction * (gain / direction.norm(dim=(1, 2), keepdim=True))
    for name, target in wanted.items():
        if name not in given:
            return f"it lacks its {name}"
        if given[name].shape != target.shape:
            return f"its {name} is {tuple(given[name].shape)}, here {tuple(target.shape)}"
    for name, target in wanted.items():
        target.copy_(given[name])
    if getattr(layer, "gain", None) is not None:
        layer.gain.copy_(layer.weight.norm(dim=(1, 2), keepdim=True))
    return None
