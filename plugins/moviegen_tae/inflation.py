"""Inflation (3.1.1): start a temporal autoencoder from the weights of an image autoencoder.

Two sources are understood: diffusers' `AutoencoderKL` layout, and a checkpoint of our own frame-wise autoencoder. Temporal convolutions
start as the identity (strided ones as an average) plus differences of frames, and temporal attention at zero, so the inflated model
equals the image model on one frame and on a static video; full 3-D kernels get the image's kernel as their centre tap.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.weights import load_state_dict
from moviegen_tae.model import AutoencoderNetwork

_OURS = "network."


def load_image_autoencoder(autoencoder: Autoencoder | AutoencoderNetwork, source: str | Path | Mapping[str, Tensor]) -> None:
    """Load image weights into the spatial parameters, and leave the temporal ones as they start.

    Args:
        autoencoder: the model to fill; of an `Autoencoder`, the latent statistics are taken over too where the source has them.
        source: a folder or file in diffusers' `AutoencoderKL` layout, a checkpoint of our own, or a state dict of either.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the source does not fit the model.
    """
    network = autoencoder if isinstance(autoencoder, AutoencoderNetwork) else autoencoder.network
    state = dict(source) if isinstance(source, Mapping) else _read(Path(source))
    name = "the given state dict" if isinstance(source, Mapping) else f"'{source}'"
    if not any(key.startswith(_OURS) for key in state):
        spatial = _from_diffusers(state, network, name)
    else:
        spatial = {key.removeprefix(_OURS): value for key, value in state.items() if key.startswith(_OURS)}
    _load(network, spatial, name)
    if isinstance(autoencoder, Autoencoder) and "latent_mean" in state:
        autoencoder.set_latent_statistics(state["latent_mean"], state["latent_std"])


@torch.no_grad()
def _load(network: AutoencoderNetwork, spatial: Mapping[str, Tensor], name: str) -> None:
    own = network.state_dict()
    wanted = {key for key in own if ".temporal." not in key and ".temporal_attention." not in key}
    missing = sorted(wanted - spatial.keys())
    surplus = sorted(key for key in spatial.keys() - own.keys())
    if missing or surplus:
        raise ValueError(
            f"image autoencoder {name} does not fit: it lacks {len(missing)} tensors of the model ({', '.join(missing[:2]) or 'none'}) and "
            f"has {len(surplus)} others ({', '.join(surplus[:2]) or 'none'}); "
            "set channel_multipliers and num_res_blocks to the image model's"
        )
    for key in sorted(wanted):
        value = spatial[key].to(own[key].dtype)
        if own[key].ndim == 5 and value.ndim == 4:  # a 3-D kernel from an image's: its centre tap
            centre, value = value, torch.zeros_like(own[key])
            value[:, :, value.shape[2] // 2] = centre
        if value.shape != own[key].shape:
            raise ValueError(
                f"image autoencoder {name} does not fit: '{key}' is {tuple(value.shape)} there and {tuple(own[key].shape)} here; "
                "set base_channels, channel_multipliers and latent_channels to the image model's"
            )
        own[key].copy_(value)
    for key in own.keys() - wanted:  # a source that is already inflated brings its temporal weights
        if key in spatial:
            own[key].copy_(spatial[key])


def _from_diffusers(state: Mapping[str, Tensor], network: AutoencoderNetwork, name: str) -> dict[str, Tensor]:
    """Rename diffusers' keys to ours; q, k and v are joined, 1×1 convolutions of old files become linear."""
    positions = _positions(network)
    spatial: dict[str, Tensor] = {}
    for key, value in state.items():
        renamed = _rename(key, positions)
        if renamed is None:
            raise ValueError(
                f"image autoencoder {name} holds '{key}', which has no place in this model; diffusers' AutoencoderKL layout with as many "
                "levels and residual blocks is wanted; set channel_multipliers and num_res_blocks to the image model's"
            )
        spatial[renamed] = value.flatten(1) if ".attention." in renamed and value.ndim == 4 else value
    for side in ("encoder", "decoder"):
        for part in ("weight", "bias"):
            prefix = f"{side}.middle.attention"
            qkv = [spatial.pop(f"{prefix}.{letter}.{part}", None) for letter in "qkv"]
            if all(tensor is not None for tensor in qkv):
                spatial[f"{prefix}.qkv.{part}"] = torch.cat(qkv)
    for conv in ("quant_conv", "post_quant_conv"):  # newer image models do without: the identity
        weight = network.get_parameter(f"{conv}.weight")
        spatial.setdefault(f"{conv}.weight", torch.eye(weight.shape[0])[:, :, None, None])
        spatial.setdefault(f"{conv}.bias", torch.zeros(weight.shape[0]))
    return spatial


def _positions(network: AutoencoderNetwork) -> dict[str, int]:
    """Where each of diffusers' blocks lies in our flat lists of layers."""
    positions = {}
    for side, blocks, sampler in (("encoder", "down_blocks", "downsamplers"), ("decoder", "up_blocks", "upsamplers")):
        level = resnet = 0
        for index, layer in enumerate(getattr(network, side).layers):
            if type(layer).__name__ == "ResidualBlock":
                positions[f"{side}.{blocks}.{level}.resnets.{resnet}"] = index
                resnet += 1
            else:
                positions[f"{side}.{blocks}.{level}.{sampler}.0"] = index
                level, resnet = level + 1, 0
    return positions


_BLOCK = re.compile(r"^((?:en|de)coder)\.((?:down|up)_blocks\.\d+\.(?:resnets|downsamplers|upsamplers)\.\d+)\.(.+)$")
_MIDDLE = re.compile(r"^((?:en|de)coder)\.mid_block\.(resnets|attentions)\.(\d)\.(.+)$")
_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "out",
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "out",
}


def _rename(key: str, positions: Mapping[str, int]) -> str | None:
    if match := _BLOCK.match(key):
        side, block, rest = match.groups()
        index = positions.get(f"{side}.{block}")
        return None if index is None else f"{side}.layers.{index}.{_rename_inside(rest)}"
    if match := _MIDDLE.match(key):
        side, kind, index, rest = match.groups()
        if kind == "resnets":
            return f"{side}.middle.block{int(index) + 1}.{_rename_inside(rest)}"
        layer, part = rest.rsplit(".", 1)
        return f"{side}.middle.attention.{_ATTENTION[layer]}.{part}" if layer in _ATTENTION else None
    if match := re.match(r"^((?:en|de)coder)\.(conv_in|conv_out)\.(weight|bias)$", key):
        return "{}.{}.spatial.{}".format(*match.groups())
    if match := re.match(r"^((?:en|de)coder)\.conv_norm_out\.(weight|bias)$", key):
        return "{}.norm_out.{}".format(*match.groups())
    return key if re.match(r"^(post_)?quant_conv\.(weight|bias)$", key) else None


def _rename_inside(rest: str) -> str:
    layer, part = rest.rsplit(".", 1)
    return {"conv1": "conv1.spatial", "conv2": "conv2.spatial", "conv": "spatial", "conv_shortcut": "shortcut"}.get(
        layer, layer
    ) + f".{part}"


def _read(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise FileNotFoundError(
            f"image_checkpoint '{path}' does not exist; a folder in diffusers' AutoencoderKL layout, a .safetensors file or a checkpoint "
            "of our own is wanted; correct model.image_checkpoint"
        )
    weights = path / "diffusion_pytorch_model.safetensors"
    return load_file(weights) if weights.is_file() else load_state_dict(path)
