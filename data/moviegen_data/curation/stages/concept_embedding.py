"""What a clip is about, as a vector of a model that knows pictures and words (3.2.1)."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.curation.pretrained import Dtype, load_network, load_pretrained, mean_direction
from moviegen_data.curation.stage import ClipStage

_MODEL = "a folder that `save_pretrained` wrote, of a CLIP, MetaCLIP, SigLIP or X-CLIP model and its preprocessor_config.json"


class ConceptEmbedding(ClipStage):
    """Embeds a clip by a model that compares pictures with words: the mean of its frames' embeddings, or the clip's own of a video model.

    There is no classical substitute for it: without a model the resampling of concepts is left out.

    Args:
        path: folder of a CLIP-type model, whose frames' embeddings are averaged, or of X-CLIP, which embeds the clip as a whole.
        num_frames: frames looked at, evenly spread over the clip; a video model looks at as many as it was made for.
        batch: clips embedded at a time.
        device: `cpu`, `cuda`, ...; the GPU where there is one unless given.
        dtype: precision of the model.

    Raises:
        UsageError: a number is below 1.
    """

    def __init__(self, *, path: str, num_frames: int = 4, batch: int = 8, device: str | None = None, dtype: Dtype = "float32") -> None:
        require_at_least(1, num_frames=num_frames, batch=batch)
        self.path, self.num_frames, self.batch, self.device, self.dtype = path, num_frames, batch, device, dtype

    @property
    def batch_size(self) -> int:
        return self.batch

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Embed it."""
        embedded = self.apply_batch([clip], [media])[0]
        assert isinstance(embedded, Clip)
        return embedded

    @torch.no_grad()
    def apply_batch(self, clips: Sequence[Clip], media: Sequence[Media]) -> list[Clip | Iterable[Clip]]:
        """Embed several clips in one pass."""
        network, processor = self._model
        num_frames = int(network.config.vision_config.num_frames) if _sees_videos(network) else self.num_frames
        groups = [
            self._pixels(processor, look(clip, medium, count=num_frames, max_side=1024)) for clip, medium in zip(clips, media, strict=True)
        ]
        if _sees_videos(network):
            # A picture gives itself once, and stands still in a video.
            videos = torch.stack([group.expand(num_frames, -1, -1, -1) for group in groups])
            embeddings: Sequence[Tensor] = self._features(network.get_video_features, videos).split(1)
        else:
            embeddings = self._features(network.get_image_features, torch.cat(groups)).split([len(group) for group in groups])
        return [clip.embedded(concept=mean_direction(group)) for clip, group in zip(clips, embeddings, strict=True)]

    def _pixels(self, processor: Any, pictures: Any) -> Float[Tensor, "n 3 h w"]:
        return processor(images=list(pictures), return_tensors="pt")["pixel_values"]

    def _features(self, embed: Any, pixels: Tensor) -> Float[Tensor, "n d"]:
        network, _ = self._model
        features = embed(pixel_values=pixels.to(network.device, network.dtype))
        # transformers 5 wraps them in a record, whose pooled output is the projected embedding.
        return getattr(features, "pooler_output", features).float().cpu()

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        from transformers import AutoImageProcessor, AutoModel

        settings = {"stage": "ConceptEmbedding", "what": _MODEL}
        network = load_network(AutoModel.from_pretrained, self.path, dtype=self.dtype, device=self.device, **settings)
        if not _sees_videos(network) and not hasattr(network, "get_image_features"):
            exists = f"it is a {type(network).__name__}, which embeds neither pictures nor videos beside words"
            raise UsageError(f"the path {self.path} was given for ConceptEmbedding", exists, f"give {_MODEL}")
        return network, load_pretrained(AutoImageProcessor.from_pretrained, self.path, **settings)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}


def _sees_videos(network: nn.Module) -> bool:
    return hasattr(network, "get_video_features")
