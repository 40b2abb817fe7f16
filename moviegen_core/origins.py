"""Where cached latents come from: those of another autoencoder are refused, because a model would learn from them in silence."""

import torch

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError


class LatentOrigin:
    """Compares the encoder that cached latents name with a model's own, whose checksum is taken once."""

    def __init__(self) -> None:
        self._checksum: str | None = None

    def check(self, batch: MediaBatch, autoencoder: Autoencoder | None, *, checkpoint: str | None) -> None:
        """Refuse cached latents of another autoencoder, where both are known and compare in full precision.

        Args:
            batch: the batch with the latents.
            autoencoder: the model's own, if it has one.
            checkpoint: the file that its weights came from, for the error.

        Raises:
            UsageError: they are of another.
        """
        if autoencoder is None:
            return
        origins = [metadata.get("latent") or {} for metadata in batch.metadata or ()]
        encoders = {str(origin["encoder"]) for origin in origins if origin.get("encoder")}
        if not encoders or autoencoder.latent_mean.dtype != torch.float32:
            return
        if self._checksum is None:
            self._checksum = autoencoder.checksum()
        if others := encoders - {self._checksum}:
            own = f"model.autoencoder_checkpoint {checkpoint} holds" if checkpoint else "model.autoencoder has weights of its own,"
            raise UsageError(
                f"the cached latents of {batch.keys[0]!r} come from the encoder {min(others)[:12]}",
                f"{own} {self._checksum[:12]}",
                "give `model.autoencoder_checkpoint` that they were made with, or cache the latents anew",
            )
