"""What a clip looks like to a copy-detection network (3.2.1)."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.curation.pretrained import Dtype, load_network, load_torchscript, mean_direction, require_path
from moviegen_data.curation.stage import ClipStage

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which copy-detection networks are trained with
_MODEL = "a TorchScript file of a copy-detection network (e.g. SSCD's sscd_disc_mixup.torchscript.pt), or a folder of an image model"


class CopyEmbedding(ClipStage):
    """Embeds a clip by a copy-detection network: the mean of its frames' embeddings (3.2.1; Pizzi et al., 2022).

    Args:
        path: a TorchScript file that takes (n, 3, h, w) in ImageNet's normalisation and gives (n, d), as SSCD is published; or a folder of
            an image model that `save_pretrained` wrote, whose pooled output is taken (safetensors only).
        num_frames: frames looked at, evenly spread over the clip.
        size_px: rows and columns that frames are resized to.
        batch: clips embedded at a time.
        device: `cpu`, `cuda`, ...; the GPU where there is one unless given.
        dtype: precision of a model of a folder; a TorchScript file has its own.

    Raises:
        UsageError: a number is below 1.
    """

    def __init__(
        self, *, path: str, num_frames: int = 4, size_px: int = 320, batch: int = 8, device: str | None = None, dtype: Dtype = "float32"
    ) -> None:
        require_at_least(1, num_frames=num_frames, size_px=size_px, batch=batch)
        self.path, self.num_frames, self.size_px, self.batch = path, num_frames, size_px, batch
        self.device, self.dtype = device, dtype

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
        pictures = [look(clip, medium, count=self.num_frames, max_side=2 * self.size_px) for clip, medium in zip(clips, media, strict=True)]
        prepared = torch.stack([self._prepare(picture) for group in pictures for picture in group])
        embeddings = self._embed(prepared).split([len(group) for group in pictures])
        return [clip.embedded(copy_embedding=mean_direction(group)) for clip, group in zip(clips, embeddings, strict=True)]

    def _prepare(self, picture: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 s s"]:
        resized = Image.fromarray(picture).resize((self.size_px, self.size_px), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized, dtype=np.float32) / 255.0
        return torch.from_numpy((pixels - np.float32(_MEAN)) / np.float32(_STD)).permute(2, 0, 1)

    def _embed(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        tensors = [*self._network.parameters(), *self._network.buffers()]
        like = next((tensor for tensor in tensors if tensor.is_floating_point()), pixels)
        output = self._network(pixels.to(like.device, like.dtype))
        output = getattr(output, "pooler_output", output)
        embeddings = output.flatten(1) if isinstance(output, Tensor) and output.ndim >= 2 else None
        if embeddings is None or len(embeddings) != len(pixels):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UsageError(
                f"the model {self.path} was given for CopyEmbedding", f"of {len(pixels)} pictures it makes {shape}", f"give {_MODEL}"
            )
        return embeddings.float().cpu()

    @cached_property
    def _network(self) -> nn.Module:
        if not require_path(self.path, stage="CopyEmbedding", what=_MODEL).is_dir():
            return load_torchscript(self.path, stage="CopyEmbedding", what=_MODEL, device=self.device)
        from transformers import AutoModel

        settings = {"dtype": self.dtype, "device": self.device}
        return load_network(AutoModel.from_pretrained, self.path, stage="CopyEmbedding", what=_MODEL, **settings)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_network"}
