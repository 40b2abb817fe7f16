"""The latent cache: what an autoencoder makes of shards, written as shards, so that training need not encode again (A.2)."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.callbacks.predictions import Prediction
from moviegen_core.errors import UsageError
from moviegen_data.caching import CacheWriter
from moviegen_data.tensors import latent_bytes, visual_bytes


class LatentShardWriter(CacheWriter):
    """Writes the latents that `predict_step` returns into shards, ready for `ShardData(latents=True)`.

    Captions and other facts of a sample's json are kept as they were; `encoded` is added, the size and frame rate of the clip that was
    encoded, or the rate and number of samples of the sound. Visual features of the batch (`extras["visual_features"]`) are kept beside
    the latent, so that those of a chunk of sound stay with it. In a latent's metadata lie the checksum of the encoder (`encoder`) and the
    statistics that normalised it (`latent_mean`, `latent_std`). Generated latents are written the same way. Arguments are those of
    `CacheWriter`; shards are called `latents-*` unless `prefix` says otherwise.
    """

    default_prefix = "latents"

    def origin(self, model: LightningModule) -> dict[str, str]:
        """The encoder's checksum and statistics."""
        autoencoder = model if isinstance(model, Autoencoder) else getattr(model, "autoencoder", None)
        if autoencoder is None:
            raise UsageError(
                f"LatentShardWriter was given with {type(model).__name__}",
                "latents come from an Autoencoder, or from a model with an `autoencoder`",
                "predict with one of these, or remove the callback",
            )
        if autoencoder.latent_mean.dtype != torch.float32:
            raise UsageError(
                f"LatentShardWriter was given with an autoencoder in {autoencoder.latent_mean.dtype}",
                "the checksum of rounded weights is that of another encoder, which training would refuse",
                "give trainer.precision bf16-mixed or 32-true, and dtype: bf16 for the latents",
            )
        return {
            "encoder": autoencoder.checksum(),
            "latent_mean": json.dumps(autoencoder.latent_mean.tolist()),
            "latent_std": json.dumps(autoencoder.latent_std.tolist()),
        }

    def parts(self, sample: Prediction, row: int, *, batch: Any, output: Any) -> dict[str, Any]:
        """The latent of a sample, the facts about it, and the visual features beside it."""
        if sample.latents is None:
            raise UsageError(
                "LatentShardWriter was given", f"the model returned no `latents` for {sample.key!r}", "return them from predict_step"
            )
        advice = "normalise the latents (the autoencoder's statistics), or give dtype: fp32"
        latent = self.kept(sample.latents, f"the latent of {sample.key!r}", advice=advice)
        # The caption of the batch may carry prefixes, which reading puts before it anew: the json's own caption goes first.
        record = {"caption": sample.caption, **sample.metadata, "encoded": _clip(sample, batch, row)}
        return {"json": record, "latent.safetensors": latent_bytes(latent, self._origin), **_visual(batch, row)}


def _clip(sample: Prediction, batch: Any, row: int) -> dict[str, Any]:
    """The size and rate of what was encoded."""
    clip: dict[str, Any] = {}
    if getattr(batch, "video", None) is not None:
        clip = dict(zip(("frames", "height", "width"), batch.video.shape[2:], strict=True))
    if getattr(batch, "audio", None) is not None:
        clip |= {"audio_hz": batch.audio_hz, "samples": batch.audio.shape[-1]}
    if getattr(batch, "fps", None) is not None:
        clip |= {"fps": batch.fps[row].item()}
    if sample.audio is not None:  # generated: not as long as what the batch may hold
        clip |= {"audio_hz": sample.audio_hz, "samples": sample.audio.shape[-1]}
    return clip


def _visual(batch: Any, row: int) -> Mapping[str, bytes]:
    """The visual features of a sample, packed; nothing where the batch has none."""
    extras = getattr(batch, "extras", {})
    if "visual_features" not in extras:
        return {}
    return {"visual.safetensors": visual_bytes(extras["visual_features"][row], extras["visual_fps"][row].item())}
