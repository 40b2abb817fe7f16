"""Stages that embed clips by a model of pictures."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from moviegen_core.errors import require_at_least
from moviegen_core.pretrained import Dtype
from moviegen_data.curation.batched import BatchedStage
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.fingerprints import fingerprint_of
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.curation.pretrained import mean_direction


class Embedding(BatchedStage):
    """Embeds a clip as the mean direction of its frames' embeddings, a vector of length 1.

    Args:
        path: of the model.
        num_frames: frames looked at, evenly spread over the clip.
        batch: clips embedded at a time.
        device: `cpu`, `cuda`, ...; the GPU where there is one unless given.
        dtype: precision of the model.

    Raises:
        UsageError: a number is below 1.
    """

    vector: ClassVar[str]
    """What the clips' vector is called."""

    def __init__(self, *, path: str, num_frames: int, batch: int, device: str | None, dtype: Dtype) -> None:
        super().__init__(batch=batch)
        require_at_least(1, num_frames=num_frames)
        self.path, self.num_frames, self.device, self.dtype = path, num_frames, device, dtype
        self.uses_gpu = device != "cpu"

    def fingerprint(self) -> str:
        return fingerprint_of(self.path)

    @property
    @abstractmethod
    def max_side(self) -> int:
        """Pixels of the longer side of the pictures."""

    @abstractmethod
    def embed(self, clips: Sequence[UInt8[np.ndarray, "n h w 3"]]) -> Sequence[Float[Tensor, "n d"]]:
        """Embeddings of the pictures of each clip, or one of all of them."""

    def frames(self) -> int:
        """How many pictures of a clip are looked at."""
        return self.num_frames

    def look(self, clip: Clip, media: Media) -> UInt8[np.ndarray, "n h w 3"]:
        """Pictures of a clip; a picture gives itself, once."""
        return look(clip, media, count=self.frames(), max_side=self.max_side)

    @torch.no_grad()
    def answer(self, shown: Sequence[UInt8[np.ndarray, "n h w 3"]]) -> Sequence[Float[Tensor, "n d"]]:
        """Their embeddings."""
        return self.embed(shown)

    def judge(self, clip: Clip, answer: Float[Tensor, "n d"]) -> Clip:
        """The clip with the mean direction."""
        return clip.embedded(**{self.vector: mean_direction(answer)})
