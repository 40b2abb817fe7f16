"""What a clip is about, as a vector of a model that knows pictures and words (3.2.1)."""

from functools import cached_property
from typing import Any

import numpy as np
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
        batch: clips embedded at a time on a GPU.
        device: `cpu`, `cuda`, ...; the GPU where there is one unless given.
        dtype: precision of the model.

    Raises:
        UsageError: a number is below 1; on first use: the folder holds no such model.
    """

    vector = "concept"
    max_side = 1024

    def __init__(self, *, path: str, num_frames: int = 4, batch: int = 8, device: str | None = None, dtype: Dtype = "float32") -> None:
        super().__init__(path=path, num_frames=num_frames, batch=batch, device=device, dtype=dtype)

    @property
    def frames(self) -> int:
        """How many pictures of a clip are looked at."""
        network, _ = self._model
        return int(network.config.vision_config.num_frames) if _sees_videos(network) else self.num_frames

    @property
    def rows(self) -> int:
        """How many rows the network takes of a video: one for each frame, or one of all."""
        return 1 if _sees_videos(self._model[0]) else self.num_frames

    def prepare(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "r ..."]:
        """Pictures as the model's own processor makes them."""
        network, processor = self._model
        pixels = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        if not _sees_videos(network):
            return pixels
        return pixels.expand(self.frames, -1, -1, -1)[None]  # a picture gives itself once, and stands still in a video

    def network(self, rows: Float[Tensor, "r ..."]) -> Float[Tensor, "r d"]:
        """Embeddings of frames, or of whole clips."""
        network, _ = self._model
        embed = network.get_video_features if _sees_videos(network) else network.get_image_features
        features = embed(pixel_values=rows.to(network.dtype))
        # transformers 5 wraps them in a record, whose pooled output is the projected embedding.
        return getattr(features, "pooler_output", features)

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
