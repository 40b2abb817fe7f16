"""The latent cache: what an autoencoder makes of shards, written as shards, so that training need not encode again (A.2)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.callbacks.writers import Prediction, predictions
from moviegen_core.errors import UsageError
from moviegen_core.parallel.place import data_place
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_bytes, visual_bytes

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class LatentShardWriter(BasePredictionWriter):
    """Writes the latents that `predict_step` returns into shards, ready for `ShardData(latents=True)`.

    Captions and other facts of a sample's json are kept as they were; `encoded` is added, the size and frame rate of the clip that was
    encoded, or the rate and number of samples of the sound. Visual features of the batch (`extras["visual_features"]`) are kept beside
    the latent, so that those of a chunk of sound stay with it. In a latent's metadata lie the checksum of the encoder (`encoder`) and the
    statistics that normalised it (`latent_mean`, `latent_std`). Shards and index take their names only when all are whole; every process
    that sees samples of its own writes its own set. Generated latents are written the same way.

    Args:
        output: the folder of the shards.
        dtype: precision the latents are kept in, `bf16` (half the bytes) or `fp32`.
        prefix: first part of the shards' names; the rank is added where there are several processes.
        max_samples: samples in a shard at most.
        overwrite: replace shards of this prefix that are already there; otherwise they are an error before anything is encoded.
    """

    def __init__(
        self,
        *,
        output: str,
        dtype: Literal["bf16", "fp32"] = "bf16",
        prefix: str = "latents",
        max_samples: int = 1000,
        overwrite: bool = False,
    ) -> None:
        super().__init__(write_interval="batch")
        if dtype not in _DTYPES:
            raise UsageError(f"dtype={dtype!r} was given to LatentShardWriter", f"there are {', '.join(_DTYPES)}", "give one of these")
        self.output = output
        self.dtype = dtype
        self.prefix = prefix
        self.max_samples = max_samples
        self.overwrite = overwrite
        self._writer: ShardWriter | None = None
        self._origin: dict[str, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's shards, and note where the latents come from."""
        autoencoder = pl_module if isinstance(pl_module, Autoencoder) else getattr(pl_module, "autoencoder", None)
        if autoencoder is None:
            raise UsageError(
                f"LatentShardWriter was given with {type(pl_module).__name__}",
                "latents come from an Autoencoder, or from a model with an `autoencoder`",
                "predict with one of these, or remove the callback",
            )
        self._origin = {
            "encoder": autoencoder.checksum(),
            "latent_mean": json.dumps(autoencoder.latent_mean.tolist()),
            "latent_std": json.dumps(autoencoder.latent_std.tolist()),
        }
        place = data_place(trainer)
        if not place.leads:
            return
        prefix = self.prefix if place.count == 1 else f"{self.prefix}-rank{place.rank:04d}"
        self._writer = ShardWriter(self.output, prefix=prefix, max_samples=self.max_samples, overwrite=self.overwrite)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write every sample of the batch."""
        if self._writer is None:  # another process of those that made it together writes it
            return
        clip = {}
        if getattr(batch, "video", None) is not None:
            clip = dict(zip(("frames", "height", "width"), batch.video.shape[2:], strict=True))
        rates = [None] * len(batch) if getattr(batch, "fps", None) is None else batch.fps.tolist()
        if getattr(batch, "audio", None) is not None:
            clip |= {"audio_hz": batch.audio_hz, "samples": batch.audio.shape[-1]}
        visual = _visual(batch)
        for sample, fps, features in zip(predictions(prediction), rates, visual, strict=True):
            self._write(sample, clip if fps is None else clip | {"fps": fps}, features)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the shards their names."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _write(self, sample: Prediction, clip: dict[str, Any], features: Mapping[str, bytes] | None = None) -> None:
        if sample.latents is None:
            raise UsageError(
                "LatentShardWriter was given", f"the model returned no `latents` for {sample.key!r}", "return them from predict_step"
            )
        if sample.metadata.get("repeated"):
            return
        if sample.audio is not None:  # generated: not as long as what the batch may hold
            clip = clip | {"audio_hz": sample.audio_hz, "samples": sample.audio.shape[-1]}
        # The caption of the batch may carry prefixes, which reading puts before it anew: the json's own caption goes first.
        record = {"caption": sample.caption, **sample.metadata, "encoded": clip}
        latent = sample.latents.to(_DTYPES[self.dtype])
        self._writer.write(sample.key, {"json": record, "latent.safetensors": latent_bytes(latent, self._origin), **(features or {})})


def _visual(batch: Any) -> list[dict[str, bytes]]:
    """The visual features of each sample, packed; nothing where the batch has none."""
    extras = getattr(batch, "extras", {})
    if "visual_features" not in extras:
        return [{} for _ in range(len(batch))]
    rates = extras["visual_fps"].tolist()
    return [{"visual.safetensors": visual_bytes(rows, fps)} for rows, fps in zip(extras["visual_features"], rates, strict=True)]
