"""The text cache: shards again, with what text encoders make of the captions beside all that they held (3.1.4)."""

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule

from moviegen_core.batch import TextEmbedding
from moviegen_core.callbacks.writers import Prediction
from moviegen_core.errors import UsageError
from moviegen_data.caching import CacheWriter
from moviegen_data.tensors import text_bytes

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class TextShardWriter(CacheWriter):
    """Writes shards anew, with the embeddings that `predict_step` returns as `text`, ready for `ShardData(text=True)`.

    Use it with `CaptionData`, over shards of media or of cached latents; all parts of a sample are kept as they were. In the embeddings'
    metadata lies the checksum of each encoder (`NAME.encoder`). Padding is not kept. Interrupted runs go on as those of
    `LatentShardWriter` do.

    Args:
        output: the folder of the shards.
        dtype: precision the embeddings are kept in, `bf16` or `fp16` (half the bytes), or `fp32`.
        prefix: first part of the shards' names; the rank is added where there are several processes.
        max_samples: samples in a shard at most; as many are encoded again at most when an interrupted run goes on.
        overwrite: replace shards of this prefix that are already there; otherwise they are an error before anything is encoded.
    """

    def __init__(
        self,
        *,
        output: str,
        dtype: Literal["bf16", "fp16", "fp32"] = "bf16",
        prefix: str = "texts",
        max_samples: int = 1000,
        overwrite: bool = False,
    ) -> None:
        super().__init__(output=output, prefix=prefix, max_samples=max_samples, overwrite=overwrite)
        if dtype not in _DTYPES:
            raise UsageError(f"dtype={dtype!r} was given to TextShardWriter", f"there are {', '.join(_DTYPES)}", "give one of these")
        self.dtype = dtype

    def origin(self, model: LightningModule) -> dict[str, str]:
        """The checksum of each encoder."""
        checksums = getattr(model, "checksums", None)
        if checksums is None:
            raise UsageError(
                f"TextShardWriter was given with {type(model).__name__}",
                "texts come from a model that embeds captions, such as TextEncoding",
                "predict with one of these, or remove the callback",
            )
        return {f"{name}.encoder": checksum for name, checksum in sorted(checksums().items())}

    def parts(self, sample: Prediction, row: int, *, batch: Any, output: Any) -> dict[str, Any]:
        """All parts of a sample as they were, and the embeddings."""
        kept = sample.metadata.get("parts")
        if kept is None:
            raise UsageError("TextShardWriter was given", f"the batch has no parts of {sample.key!r}", "read the shards with CaptionData")
        embeddings = {name: _real(embedding, row, _DTYPES[self.dtype]) for name, embedding in sorted(output["text"].items())}
        for name, (tokens, _) in embeddings.items():
            if not bool(tokens.isfinite().all()):
                raise UsageError(
                    f"the text {name!r} of {sample.key!r} was to be kept in {self.dtype}",
                    "it holds NaN or infinite values there",
                    "give dtype: bf16 or fp32",
                )
        return {**kept, "text.safetensors": text_bytes(embeddings, self._origin)}


def _real(embedding: TextEmbedding, row: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """A row's tokens up to its last real one, so that the padding of its batch leaves no trace."""
    mask = embedding.mask[row].cpu()
    length = int(mask.nonzero().max()) + 1 if bool(mask.any()) else 1
    return embedding.tokens[row, :length].to(dtype), mask[:length]
