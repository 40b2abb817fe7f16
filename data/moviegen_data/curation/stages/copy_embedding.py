"""What a clip looks like to a copy-detection network (3.2.1)."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.pretrained import Dtype
from moviegen_data.curation.embedding import Embedding
from moviegen_data.curation.pretrained import load_network, load_torchscript

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which copy-detection networks are trained with
_WANTED = "a TorchScript file of a copy-detection network (e.g. SSCD's sscd_disc_mixup.torchscript.pt), or a folder of an image model"


class CopyEmbedding(Embedding):
    """Embeds a clip by a copy-detection network: the mean of its frames' embeddings (3.2.1; Pizzi et al., 2022).

    Args:
        path: a TorchScript file that takes (n, 3, h, w) in ImageNet's normalisation and gives (n, d), as SSCD is published; or a folder of
            an image model that `save_pretrained` wrote, whose pooled output is taken (safetensors only).
        num_frames: frames looked at, evenly spread over the clip.
        size_px: rows and columns that frames are resized to.
        batch: clips embedded at a time on a GPU.
        device: `cpu`, `cuda`, ...; the GPU where there is one unless given.
        dtype: precision of a model of a folder; a TorchScript file has its own.

    Raises:
        UsageError: a number is below 1; on first use: the path holds no such model, or a TorchScript file is given with another `dtype`.
    """

    vector = "copy_embedding"

    def __init__(
        self, *, path: str, num_frames: int = 4, size_px: int = 320, batch: int = 8, device: str | None = None, dtype: Dtype = "float32"
    ) -> None:
        super().__init__(path=path, num_frames=num_frames, batch=batch, device=device, dtype=dtype)
        require_at_least(1, size_px=size_px)
        self.size_px = size_px

    @property
    def max_side(self) -> int:
        return 2 * self.size_px

    def prepare(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 s s"]:
        """Square pictures in ImageNet's normalisation."""
        return torch.stack([self._square(picture) for picture in pictures])

    def network(self, rows: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Embeddings of pictures."""
        tensors = [*self._network.parameters(), *self._network.buffers()]
        like = next((tensor for tensor in tensors if tensor.is_floating_point()), rows)
        output = self._network(rows.to(like.dtype))
        output = getattr(output, "pooler_output", output)
        embeddings = output.flatten(1) if isinstance(output, Tensor) and output.ndim >= 2 else None
        if embeddings is None or len(embeddings) != len(rows):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UsageError(
                f"the model {self.path} was given for CopyEmbedding", f"of {len(rows)} pictures it makes {shape}", f"give {_WANTED}"
            )
        return embeddings

    def _square(self, picture: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 s s"]:
        resized = Image.fromarray(picture).resize((self.size_px, self.size_px), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized, dtype=np.float32) / 255.0
        return torch.from_numpy((pixels - np.float32(_MEAN)) / np.float32(_STD)).permute(2, 0, 1)

    @cached_property
    def _network(self) -> nn.Module:
        if Path(self.path).expanduser().is_dir():
            from transformers import AutoModel

            settings = {"dtype": self.dtype, "device": self.device}
            return load_network(AutoModel.from_pretrained, self.path, stage="CopyEmbedding", wanted=_WANTED, **settings)
        if self.dtype != "float32":
            given = f"dtype={self.dtype!r} was given to CopyEmbedding with {self.path}"
            raise UsageError(given, "a TorchScript file has its own precision", "leave dtype out")
        return load_torchscript(self.path, stage="CopyEmbedding", wanted=_WANTED, device=self.device)
