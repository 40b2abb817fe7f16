"""The autoencoder interface: pixels (or sound) to normalised latents and back."""

import hashlib
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError, require_at_least


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

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, ...]:
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

    def encode(self, media: Float[Tensor, "b ..."], *, sample: bool = False) -> Float[Tensor, "b c ..."]:
        """Encode pixels or sound in [-1, 1] to normalised latents; the posterior's mean, or a sample of it."""
        latent = self.encode_raw(media.to(self.latent_mean.dtype), sample=sample)
        return (latent - _per_channel(self.latent_mean, latent)) / _per_channel(self.latent_std, latent)

    def decode(self, latent: Float[Tensor, "b c ..."], *, num_frames: int | None = None) -> Float[Tensor, "b ..."]:
        """Decode normalised latents; `num_frames` drops spurious frames, or samples of a sound, at the end (default: keeps all)."""
        latent = latent.to(self.latent_mean.dtype)
        raw = latent * _per_channel(self.latent_std, latent) + _per_channel(self.latent_mean, latent)
        media = self.decode_raw(raw)
        return media if num_frames is None else media[:, :, :num_frames]

    def encode_raw(self, media: Tensor, *, sample: bool = False) -> Tensor:
        """Encode to the network's own latents (before normalisation)."""
        raise NotImplementedError(f"{type(self).__name__} must define encode_raw(media, sample=...)")

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


class AudioAutoencoder(Autoencoder):
    """Maps sounds (b, a, s) to normalised latents (b, c, t) and back; one latent frame is `hop_length` samples of every channel.

    Args:
        latent_channels: number of latent channels (128 in the paper's DAC-VAE, 6.1.3).
        sample_rate: samples per second that it takes and gives (48 kHz).
        hop_length: samples per latent frame (1920, so 25 latent frames per second).
        audio_channels: channels of a sound, 1 mono or 2 stereo.

    Raises:
        UsageError: one of them is below 1.
    """

    def __init__(self, *, latent_channels: int = 128, sample_rate: int = 48000, hop_length: int = 1920, audio_channels: int = 1) -> None:
        require_at_least(1, latent_channels=latent_channels, sample_rate=sample_rate, audio_channels=audio_channels)
        super().__init__(latent_channels=latent_channels, temporal_factor=hop_length, spatial_factor=1)
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.audio_channels = audio_channels

    @property
    def latent_rate(self) -> float:
        """Latent frames per second."""
        return self.sample_rate / self.hop_length

    def latent_shape(self, num_frames: int, height: int = 1, width: int = 1) -> tuple[int, ...]:
        """Latent shape (c, t) of a sound of `num_frames` samples per channel; t is rounded up, and a sound has neither rows nor columns."""
        return self.latent_channels, -(-num_frames // self.hop_length)

    def predict_step(self, batch: MediaBatch, batch_idx: int) -> dict[str, Any]:
        """Normalised latents of a batch of sounds, for the latent cache."""
        latents = self.encode(self.sound_of(batch)).float()
        return {"keys": batch.keys, "captions": batch.captions, "latents": latents, "metadata": batch.metadata}

    def sound_of(self, batch: MediaBatch) -> Float[Tensor, "b a s"]:
        """The batch's sound.

        Raises:
            UsageError: it is absent, of another rate, of other channels, empty, or not finite.
        """
        name = f"the batch of {len(batch)} samples (first '{batch.keys[0]}')"
        if batch.audio is None:
            raise UsageError(f"{name} holds no sound", "an autoencoder needs it", "point `data` at sounds, not cached latents")
        if batch.audio_hz != self.sample_rate:
            raise UsageError(
                f"{name} holds sound of {'an unknown rate' if batch.audio_hz is None else f'{batch.audio_hz} Hz'}",
                f"this autoencoder was built for {self.sample_rate} Hz",
                "set data's audio_hz or the model's sample_rate to the other",
            )
        if batch.audio.shape[1] != self.audio_channels or not batch.audio.shape[-1]:
            raise UsageError(
                f"{name} holds sound of shape {tuple(batch.audio.shape)}",
                f"(b, {self.audio_channels}, s) with at least one sample is expected",
                "set data's audio_channels or the model's to the other",
            )
        finite = batch.audio.isfinite().flatten(1).all(1).tolist()
        if not all(finite):
            broken = batch.keys[finite.index(False)]
            raise UsageError(f"the sound {broken!r} holds NaN or infinite samples", "sounds are finite", "leave it out, or mend it")
        return batch.audio

    def encode(self, media: Float[Tensor, "b a s"], *, sample: bool = False) -> Float[Tensor, "b c t"]:
        """Encode a sound in [-1, 1] of any length, silence added at its end up to a whole latent frame.

        Raises:
            UsageError: the sound has another number of channels.
        """
        if media.shape[1] != self.audio_channels:
            raise UsageError(
                f"a sound of {media.shape[1]} channels was given",
                f"{type(self).__name__} was built for {self.audio_channels}",
                "mix it down (`data.audio_channels`), or build the autoencoder with that many `audio_channels`",
            )
        missing = -media.shape[-1] % self.hop_length
        return super().encode(nn.functional.pad(media, (0, missing)), sample=sample)


def _per_channel(statistic: Tensor, like: Tensor) -> Tensor:
    return statistic.to(like.dtype).view(1, -1, *[1] * (like.ndim - 2))
