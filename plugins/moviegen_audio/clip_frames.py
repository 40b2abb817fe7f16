"""Frames through the vision tower of a CLIP-type model of the transformers library (6.1.3)."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_audio.frames import FrameEncoder
from moviegen_core.errors import UsageError
from moviegen_text.pretrained import Dtype, FrozenEncoder, load_encoder, load_pretrained

_WHAT = "ClipFrameEncoder"
# Their image embedding is a projection of what the tower gives; others, such as SigLIP's, are what its pooling gives.
_PROJECTING = {
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "metaclip_2": "MetaClip2VisionModelWithProjection",
    "metaclip_2_vision_model": "MetaClip2VisionModelWithProjection",
}


class ClipFrameEncoder(FrameEncoder):
    """Every frame through a frozen vision tower, as an image of its own: the embedding that the model compares with texts.

    The paper takes its Long-prompt MetaCLIP, 1024 wide (6.1.3), as `facebook/metaclip-h14-fullcc2.5b` is. The tower is loaded at its
    first use; it is in no optimizer, no checkpoint and no moving average.

    Args:
        pretrained: folder that `save_pretrained` wrote, of a CLIP, MetaCLIP or SigLIP model or of its vision tower alone, or a name on
            the Hugging Face hub; with a folder nothing reaches for the network.
        dtype: precision of the tower.
        frames_per_pass: frames that are encoded at a time; bounds the memory of long videos.
    """

    def __init__(self, *, pretrained: str, dtype: Dtype = "float32", frames_per_pass: int = 64) -> None:
        from transformers import AutoConfig

        if frames_per_pass < 1:
            raise UsageError(f"frames_per_pass={frames_per_pass} was given", "it counts from 1", "give a larger number")
        config = load_pretrained(AutoConfig.from_pretrained, pretrained, what=_WHAT)
        vision = getattr(config, "vision_config", config)
        width = config.projection_dim if config.model_type in _PROJECTING else getattr(vision, "hidden_size", None)
        self.image_px = getattr(vision, "image_size", None)
        self.tower_config = vision
        if width is None or self.image_px is None:
            raise UsageError(
                f"the model {pretrained} was given for {_WHAT}",
                f"it is of the kind {config.model_type}, which has no vision tower of one width and image size",
                "give a CLIP, MetaCLIP or SigLIP model",
            )
        super().__init__(feature_width=int(width))
        self.pretrained, self.kind, self.dtype_name, self.frames_per_pass = pretrained, config.model_type, dtype, frames_per_pass
        self.mean, self.std = _statistics(pretrained)
        self._frozen = FrozenEncoder(self._load)

    @torch.no_grad()
    def forward(self, video: Float[Tensor, "b 3 f h w"]) -> Float[Tensor, "b f e"]:
        """Embed the frames."""
        network = self._frozen.on(video.device)
        frames = video.transpose(1, 2).flatten(0, 1)
        parts = [self._embed(network, part) for part in frames.split(self.frames_per_pass)]
        return torch.cat(parts).float().unflatten(0, (video.shape[0], -1))

    def prepare(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 p p"]:
        """Images as the tower knows them: the shorter side resized (bicubic), the middle cut out, normalised."""
        size, (height, width) = self.image_px, frames.shape[2:]
        scale = size / min(height, width)
        resized = (max(size, round(height * scale)), max(size, round(width * scale)))
        images = F.interpolate(frames.float(), size=resized, mode="bicubic", antialias=True).clamp(-1.0, 1.0)
        top, left = (resized[0] - size) // 2, (resized[1] - size) // 2
        images = images[:, :, top : top + size, left : left + size] * 0.5 + 0.5
        mean, std = (torch.tensor(values, device=frames.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def _embed(self, network: nn.Module, frames: Tensor) -> Tensor:
        pixels = self.prepare(frames).to(getattr(torch, self.dtype_name))
        # A whole model without a class of its own for the tower has this method; a tower has not.
        tower: Any = getattr(network, "get_image_features", network)
        output = tower(pixel_values=pixels)
        embeds = getattr(output, "image_embeds", None)
        return output.pooler_output if embeds is None else embeds

    def _load(self) -> nn.Module:
        import transformers

        loader, options = transformers.AutoModel, {}
        if self.kind in _PROJECTING:
            # The whole model's config says how wide the projection is; its vision part may say otherwise.
            self.tower_config.projection_dim = self.feature_width
            loader, options = getattr(transformers, _PROJECTING[self.kind]), {"config": self.tower_config}
        return load_encoder(loader.from_pretrained, self.pretrained, what=_WHAT, dtype=self.dtype_name, **options)


def _statistics(pretrained: str) -> tuple[list[float], list[float]]:
    """Mean and deviation of the pixels by the model's own file, else CLIP's."""
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    folder = Path(pretrained).expanduser()
    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(str(folder) if folder.is_dir() else pretrained)
    except OSError:  # there is none
        found = {}
    return list(found.get("image_mean") or OPENAI_CLIP_MEAN), list(found.get("image_std") or OPENAI_CLIP_STD)
