"""Frozen text encoders alone, for caching what they make of captions (3.1.4)."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioner
from moviegen_core.errors import UsageError
from moviegen_text.encoded import PretrainedTextConditioner

_WIDTH = 8  # of the projections, which are not used


class TextEncoding(LightningModule):
    """Embeds captions by the frozen encoders of conditioners; `moviegen predict` with `CaptionData` and `TextShardWriter` caches them.

    Args:
        encoders: by any name, each builds a conditioner over a frozen encoder, as in `model.conditioners`; the embeddings are named by the
            conditioner's `cache_name`, under which a training finds them.

    Raises:
        UsageError: a conditioner has no frozen encoder, or two share a `cache_name`.
    """

    def __init__(self, *, encoders: dict[str, Callable[[int], Conditioner]]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict()
        for name, factory in encoders.items():
            encoder = factory(_WIDTH)
            if not isinstance(encoder, PretrainedTextConditioner):
                raise UsageError(
                    f"the encoder {name}={type(encoder).__name__} was given to TextEncoding",
                    "only frozen encoders can be cached; the others change while the model trains",
                    "leave it out",
                )
            if encoder.cache_name in self.encoders:
                raise UsageError(
                    f"the encoder {name} was given to TextEncoding", f"another has its cache_name {encoder.cache_name!r}", "give it its own"
                )
            self.encoders[encoder.cache_name] = encoder

    def checksums(self) -> dict[str, str]:
        """For each encoder SHA-256 over its weights and over how it cuts texts."""
        return {name: _checksum(encoder) for name, encoder in self.encoders.items()}

    def fingerprints(self) -> dict[str, str]:
        """For each encoder what tells it from others by its files, where they are on this machine; a training compares it with its own."""
        for encoder in self.encoders.values():
            encoder.tokenizer  # noqa: B018 - of a name on the hub it may have to come first, and is part of the fingerprint
        found = {name: encoder.fingerprint for name, encoder in self.encoders.items()}
        return {name: told for name, told in found.items() if told is not None}

    def predict_step(self, batch: MediaBatch, batch_idx: int) -> dict[str, Any]:
        """The embeddings of a batch of captions, by name."""
        text = {name: encoder.embed(encoder.texts(batch)) for name, encoder in self.encoders.items()}
        return {"keys": batch.keys, "captions": batch.captions, "text": text, "metadata": batch.metadata}


def _checksum(encoder: PretrainedTextConditioner) -> str:
    digest = hashlib.sha256(f"{type(encoder).__qualname__} {encoder.max_tokens} {encoder.dtype_name}\n".encode())
    for name, tensor in sorted(encoder.network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
