"""Stages that embed clips by a model of pictures."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from moviegen_core.errors import require_at_least
from moviegen_core.pretrained import Dtype
from moviegen_data.curation.batched import BatchedStage
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.fingerprints import fingerprint_of
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.curation.pretrained import at_a_time, in_equal_batches, mean_direction, pick_device


class Embedding(BatchedStage):
    """Embeds a clip as the mean direction of its frames' embeddings, a vector of length 1.

    Args:
        path: of the model.
        num_frames: frames looked at, evenly spread over the clip.
        batch: clips embedded at a time on a GPU.
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

    @property
    def rows(self) -> int:
        """How many rows the network takes of a video."""
        return self.num_frames

    @property
    def frames(self) -> int:
        """How many pictures of a clip are looked at."""
        return self.num_frames

    @abstractmethod
    def prepare(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Shaped[Tensor, "r ..."]:
        """What the network takes of a clip, a row for each embedding."""

    @abstractmethod
    def network(self, rows: Shaped[Tensor, "r ..."]) -> Float[Tensor, "r d"]:
        """Embeddings of rows, on their device."""

    def look(self, clip: Clip, media: Media) -> UInt8[np.ndarray, "n h w 3"]:
        """Pictures of a clip; a picture gives itself, once."""
        return look(clip, media, count=self.frames, max_side=self.max_side)

    @torch.no_grad()
    def answer(self, shown: Sequence[UInt8[np.ndarray, "n h w 3"]]) -> Sequence[Float[Tensor, "n d"]]:
        """Their embeddings."""
        rows = [self.prepare(pictures) for pictures in shown]
        device = pick_device(self.device, stage=type(self).__name__)
        made = in_equal_batches(self.network, torch.cat(rows), size=at_a_time(self.batch * self.rows, device), device=device)
        return made.split([len(own) for own in rows])

    def judge(self, clip: Clip, answer: Float[Tensor, "n d"]) -> Clip:
        """The clip with the mean direction."""
        return clip.embedded(**{self.vector: mean_direction(answer)})
