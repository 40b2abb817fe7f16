"""What a clip is about, as a vector of a model that knows pictures and words (3.2.1)."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from moviegen_core.errors import UsageError
from moviegen_core.pretrained import Dtype
from moviegen_data.curation.embedding import Embedding
from moviegen_data.curation.pretrained import load_network, load_part

_WANTED = "a folder that `save_pretrained` wrote, of a CLIP, MetaCLIP, SigLIP or X-CLIP model and its preprocessor_config.json"


class ConceptEmbedding(Embedding):
    """Embeds a clip by a model that compares pictures with words: the mean of its frames' embeddings, or the clip's own of a video model.

    There is no classical substitute for it: without a model the resampling of concepts is left out.

    Args:
        path: folder of a CLIP-type model, whose frames' embeddings are averaged, or of X-CLIP, which embeds the clip as a whole.
        num_frames: frames looked at, evenly spread over the clip; a video model looks at as many as it was made for.
        batch: clips embedded at a time.
        device: `cpu`, `cuda`, ...; the GPU where there is one unless given.
        dtype: precision of the model.

    Raises:
        UsageError: a number is below 1; on first use: the folder holds no such model.
    """

    vector = "concept"
    max_side = 1024

    def __init__(self, *, path: str, num_frames: int = 4, batch: int = 8, device: str | None = None, dtype: Dtype = "float32") -> None:
        super().__init__(path=path, num_frames=num_frames, batch=batch, device=device, dtype=dtype)

    def frames(self) -> int:
        """How many pictures of a clip are looked at."""
        network, _ = self._model
        return int(network.config.vision_config.num_frames) if _sees_videos(network) else self.num_frames

    def embed(self, clips: Sequence[UInt8[np.ndarray, "n h w 3"]]) -> Sequence[Float[Tensor, "n d"]]:
        """Embeddings of the pictures of each clip, or of each clip as a whole."""
        network, processor = self._model
        groups = [processor(images=list(pictures), return_tensors="pt")["pixel_values"] for pictures in clips]
        if not _sees_videos(network):
            return self._features(network.get_image_features, torch.cat(groups)).split([len(group) for group in groups])
        # A picture gives itself once, and stands still in a video.
        videos = torch.stack([group.expand(self.frames(), -1, -1, -1) for group in groups])
        return self._features(network.get_video_features, videos).split(1)

    def _features(self, embed: Any, pixels: Tensor) -> Float[Tensor, "n d"]:
        network, _ = self._model
        features = embed(pixel_values=pixels.to(network.device, network.dtype))
        # transformers 5 wraps them in a record, whose pooled output is the projected embedding.
        return getattr(features, "pooler_output", features).float().cpu()

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        from transformers import AutoImageProcessor, AutoModel

        settings = {"stage": "ConceptEmbedding", "wanted": _WANTED}
        network = load_network(AutoModel.from_pretrained, self.path, dtype=self.dtype, device=self.device, **settings)
        if not _sees_videos(network) and not hasattr(network, "get_image_features"):
            exists = f"it is a {type(network).__name__}, which embeds neither pictures nor videos beside words"
            raise UsageError(f"the path {self.path} was given for ConceptEmbedding", exists, f"give {_WANTED}")
        return network, load_part(AutoImageProcessor.from_pretrained, self.path, **settings)


def _sees_videos(network: nn.Module) -> bool:
    return hasattr(network, "get_video_features")
