"""Which part of a sound is masked, and which is given as context (6.1.3, 6.1.6)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class ContextMask:
    """Contiguous masks over latent frames.

    Args:
        masked_min: smallest share of a sound that is masked, in [0, 1].
        masked_max: largest share, in [`masked_min`, 1].
        at_end: probability that the mask reaches an end of the sound, either one alike, so that the model learns to continue a sound
            in both directions; otherwise every place is alike.
    """

    masked_min: float = 0.75
    masked_max: float = 1.0
    at_end: float = 0.5

    def given(self, uniform: Float[Tensor, "b 3"], num_frames: int) -> Bool[Tensor, "b t"]:
        """True where latent frames are given.

        Args:
            uniform: three draws from [0, 1) for every sample: how much is masked, whether at an end, and where.
            num_frames: latent frames of the sounds.
        """
        size, end, place = uniform.double().unbind(1)
        masked = ((self.masked_min + (self.masked_max - self.masked_min) * size) * num_frames).round().long()
        start = (place * (num_frames - masked + 1)).floor().long().clamp(max=num_frames - masked)
        start = torch.where(end < self.at_end, torch.where(end < 0.5 * self.at_end, 0, num_frames - masked), start)
        frames = torch.arange(num_frames, device=uniform.device)
        return (frames < start[:, None]) | (frames >= (start + masked)[:, None])
