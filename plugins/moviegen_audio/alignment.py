"""Which video frame belongs to which latent frame of a sound (6.1.3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def nearest_frames(num_latent_frames: int, latent_hz: float, fps: Float[Tensor, " b"], num_frames: int) -> Int[Tensor, "b t"]:
    """The video frame nearest to each latent frame, by the middles of the times for which they last.

    Latent frame i lasts from i / latent_hz to (i + 1) / latent_hz, and the frame nearest to its middle is the one that is on the screen
    then. Beyond the end of the video that is its last frame.

    Args:
        num_latent_frames: latent frames t of the sound.
        latent_hz: latent frames per second.
        fps: video frames per second of every sample.
        num_frames: frames of the videos.
    """
    middles = torch.arange(num_latent_frames, device=fps.device, dtype=torch.float64) + 0.5
    return (middles * fps.double()[:, None] / latent_hz).floor().long().clamp(max=num_frames - 1)


def take_frames(features: Float[Tensor, "b f e"], indices: Int[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
    """The features of these frames."""
    return features.gather(1, indices[..., None].expand(-1, -1, features.shape[-1]))
