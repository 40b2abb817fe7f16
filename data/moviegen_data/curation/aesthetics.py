"""LAION's aesthetic predictor: linear layers on the normalised image embedding of CLIP."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from moviegen_core.errors import UsageError
from moviegen_core.weights.reading import load_state_dict
from moviegen_data.curation.pretrained import at_a_time, in_equal_batches, load_network, load_part

# What CLIP's images are normalised by where the folder does not say.
_STAGE = "Aesthetics"
_WANTED = "a folder of a CLIP model such as openai/clip-vit-large-patch14 (the stage ClassicalQuality needs none)"
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class AestheticPredictor:
    """Scores pictures.

    Args:
        clip_path: folder of a CLIP model.
        head_path: file of the head's linear layers.
        device: where it runs; the GPU where there is one unless given.

    Raises:
        UsageError: a path is absent, a file is damaged, or the head does not fit the model.
    """

    def __init__(self, *, clip_path: str, head_path: str, device: str | None = None) -> None:
        self.tower = _tower(clip_path, device)
        self.layers = head_layers(head_path, width=self.tower.config.projection_dim)
        self.mean, self.std = _statistics(Path(clip_path).expanduser())

    @torch.inference_mode()
    def score(self, pictures: Iterable[UInt8[np.ndarray, "_ _ 3"]], *, batch: int = 1) -> list[float]:
        """Aesthetic scores, about 1 to 10.

        Args:
            pictures: in RGB, of any sizes.
            batch: how many are embedded at once on a GPU.
        """
        images = torch.stack([self.prepare(picture) for picture in pictures])
        size = at_a_time(batch, self.tower.device)
        values = in_equal_batches(lambda rows: self.tower(pixel_values=rows).image_embeds, images, size=size, device=self.tower.device)
        return [self._head(value) for value in F.normalize(values, dim=-1)]

    def _head(self, value: Float[Tensor, " e"]) -> float:
        for weight, bias in self.layers:
            value = F.linear(value, weight, bias)
        return float(value)

    def prepare(self, picture: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 p p"]:
        """An image as CLIP knows it: the shorter side resized (bicubic), the middle cut out, normalised."""
        size, (height, width) = self.tower.config.image_size, picture.shape[:2]
        scale = size / min(height, width)
        resized = (max(size, round(height * scale)), max(size, round(width * scale)))
        image = torch.from_numpy(picture.copy()).movedim(-1, 0)[None].float() / 255.0
        image = F.interpolate(image, size=resized, mode="bicubic", antialias=True).clamp(0.0, 1.0)[0]
        top, left = (resized[0] - size) // 2, (resized[1] - size) // 2
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (image[:, top : top + size, left : left + size] - mean) / std


def head_layers(path: str, *, width: int) -> list[tuple[Tensor, Tensor | None]]:
    """Weights and biases of a head's linear layers in their order.

    LAION's heads have no activations between their layers, and dropout that is off; so all there is are the layers.

    Args:
        path: the file.
        width: that of the embedding.

    Raises:
        UsageError: there is no such file, it is damaged, or its layers do not lead from the embedding to one number.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(
            f"the aesthetic head {path} was given",
            "there is no such file",
            "download LAION's `sac+logos+ava1-l14-linearMSE.pth` or `sa_0_4_vit_l_14_linear.pth` and give its path, "
            "or take the stage ClassicalQuality, which needs none",
        )
    state = load_state_dict(file)
    names = sorted((name for name in state if name.endswith("weight")), key=_layer_number)
    layers = [(state[name].float(), state.get(name.removesuffix("weight") + "bias")) for name in names]
    widths = [width, *(weight.shape[0] for weight, _ in layers if weight.ndim == 2)]
    fits = layers and all(weight.ndim == 2 and weight.shape[1] == before for (weight, _), before in zip(layers, widths))
    if not fits or widths[-1] != 1:
        raise UsageError(
            f"the aesthetic head {path} was given for embeddings of width {width}",
            f"its layers have the shapes {_shapes(state)}",
            "give linear layers that lead from the embedding's width to 1, and the CLIP model that they were trained on",
        )
    return [(weight, None if bias is None else bias.float()) for weight, bias in layers]


def _tower(path: str, device: str | None) -> nn.Module:
    from transformers import AutoConfig, CLIPVisionModelWithProjection

    config = load_part(AutoConfig.from_pretrained, path, stage=_STAGE, wanted=_WANTED)
    vision = getattr(config, "vision_config", config)
    if not hasattr(config, "projection_dim") or not hasattr(vision, "image_size"):
        raise UsageError(f"the model {path} was given for {_STAGE}", f"it is of the kind {config.model_type}", f"give {_WANTED}")
    vision.projection_dim = config.projection_dim  # of a whole model, its own
    settings = {"dtype": "float32", "device": device, "config": vision}
    return load_network(CLIPVisionModelWithProjection.from_pretrained, path, stage=_STAGE, wanted=_WANTED, **settings)


def _statistics(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    file = folder / "preprocessor_config.json"
    try:
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return told.get("image_mean", _MEAN), told.get("image_std", _STD)
    except (ValueError, AttributeError) as error:
        raise UsageError(f"the model {folder} was given for {_STAGE}", f"{file.name} is no json ({error})", f"give {_WANTED}") from error


def _layer_number(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))


def _shapes(state: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in list(state.items())[:4]) or "none"
