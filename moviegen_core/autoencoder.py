"""The autoencoder interface: pixels (or sound) to normalised latents and back."""

import hashlib

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor


class Autoencoder(LightningModule):
    """Maps media to normalised latents and back.

    `encode` and `decode` speak in NORMALISED latents (zero mean, unit variance per channel over the training data), which is what flow
    matching wants to see; the statistics live in the buffers `latent_mean` and `latent_std` and travel with the checkpoint. Subclasses
    implement `encode_raw` and `decode_raw` and set the statistics with `set_latent_statistics`.

    Args:
        latent_channels: number of latent channels (16 in the paper's TAE, 3.1.1).
        temporal_factor: frames per latent frame (8).
        spatial_factor: pixels per latent cell along each side (8).
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, *, latent_channels: int = 16, temporal_factor: int = 8, spatial_factor: int = 8) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.temporal_factor = temporal_factor
        self.spatial_factor = spatial_factor
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Latent shape (c, t, h, w) of a video; t is ceil(num_frames / temporal_factor).

        Raises:
            ValueError: height or width is not a multiple of `spatial_factor`.
        """
        factor = self.spatial_factor
        if height % factor or width % factor:
            nearest = (max(factor, height // factor * factor), max(factor, width // factor * factor))
            raise ValueError(
                f"a video of {height}x{width} px was given; this autoencoder takes multiples of {factor} px; "
                f"resize or crop to {nearest[0]}x{nearest[1]}"
            )
        return self.latent_channels, -(-num_frames // self.temporal_factor), height // factor, width // factor

    def encode(self, video: Float[Tensor, "b 3 t h w"], *, sample: bool = False) -> Float[Tensor, "b c t h w"]:
        """Encode pixels in [-1, 1] to normalised latents; the posterior's mean, or a sample of it."""
        latent = self.encode_raw(video.to(self.latent_mean.dtype), sample=sample)
        return (latent - _per_channel(self.latent_mean, latent)) / _per_channel(self.latent_std, latent)

    def decode(self, latent: Float[Tensor, "b c t h w"], *, num_frames: int | None = None) -> Float[Tensor, "b 3 t h w"]:
        """Decode normalised latents to pixels; `num_frames` drops the spurious frames at the end (default: keeps all)."""
        latent = latent.to(self.latent_mean.dtype)
        raw = latent * _per_channel(self.latent_std, latent) + _per_channel(self.latent_mean, latent)
        video = self.decode_raw(raw)
        return video if num_frames is None else video[:, :, :num_frames]

    def encode_raw(self, video: Tensor, *, sample: bool = False) -> Tensor:
        """Encode to the network's own latents (before normalisation)."""
        raise NotImplementedError(f"{type(self).__name__} must define encode_raw(video, sample=...)")

    def decode_raw(self, latent: Tensor) -> Tensor:
        """Decode the network's own latents."""
        raise NotImplementedError(f"{type(self).__name__} must define decode_raw(latent)")

    def set_latent_statistics(self, mean: Float[Tensor, " c"], std: Float[Tensor, " c"]) -> None:
        """Set the per-channel statistics that normalise latents."""
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std.clamp_min(1e-6))

    def checksum(self) -> str:
        """SHA-256 over the names and values of all weights and statistics; the device and the file they came from do not matter."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def _per_channel(statistic: Tensor, like: Tensor) -> Tensor:
    return statistic.to(like.dtype).view(1, -1, *[1] * (like.ndim - 2))
