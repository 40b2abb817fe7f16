"""The text cache: shards again, with what text encoders make of the captions beside all that they held (3.1.4)."""

from typing import Any

import torch
from lightning.pytorch import LightningModule

from moviegen_core.batch import TextEmbedding
from moviegen_core.callbacks.predictions import Prediction
from moviegen_core.errors import UsageError
from moviegen_data.caching import CacheWriter
from moviegen_data.tensors import text_bytes


class TextShardWriter(CacheWriter):
    """Writes shards anew, with the embeddings that `predict_step` returns as `text`, ready for `ShardData(text=True)`.

    Use it with `CaptionData`, over shards of media or of cached latents; all parts of a sample are kept as they were. In the embeddings'
    metadata lie the checksum of each encoder (`NAME.encoder`) and, where it tells one, the fingerprint of its files (`NAME.files`), which a
    training compares with its own. Padding is not kept. Arguments are those of `CacheWriter`; shards are called
    `texts-*` unless `prefix` says otherwise.
    """

    default_prefix = "texts"

    def origin(self, model: LightningModule) -> dict[str, str]:
        """The checksum of each encoder, and the fingerprint of its files."""
        checksums = getattr(model, "checksums", None)
        if checksums is None:
            raise UsageError(
                f"TextShardWriter was given with {type(model).__name__}",
                "texts come from a model that embeds captions, such as TextEncoding",
                "predict with one of these, or remove the callback",
            )
        fingerprints = getattr(model, "fingerprints", dict)()
        origin = {f"{name}.encoder": checksum for name, checksum in checksums().items()}
        return dict(sorted({**origin, **{f"{name}.files": told for name, told in fingerprints.items()}}.items()))

    def parts(self, sample: Prediction, row: int, *, batch: Any, output: Any) -> dict[str, Any]:
        """All parts of a sample as they were, and the embeddings."""
        kept = sample.metadata.get("parts")
        if kept is None:
            raise UsageError("TextShardWriter was given", f"the batch has no parts of {sample.key!r}", "read the shards with CaptionData")
        embeddings = {}
        for name, embedding in sorted(output["text"].items()):
            tokens, mask = _real(embedding, row)
            what, advice = f"the text {name!r} of {sample.key!r}", "give dtype: bf16 or fp32"
            embeddings[name] = (self.kept(tokens, what, advice=advice), mask)
        return {**kept, "text.safetensors": text_bytes(embeddings, self._origin)}


def _real(embedding: TextEmbedding, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A row's tokens up to its last real one, so that the padding of its batch leaves no trace."""
    mask = embedding.mask[row].cpu()
    length = int(mask.nonzero().max()) + 1 if bool(mask.any()) else 1
    return embedding.tokens[row, :length], mask[:length]
