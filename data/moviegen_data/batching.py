"""Joining decoded samples to a batch. Shapes: latents (b, c, t, h, w) or (b, c, t), sounds (b, a, s), texts (b, l, d)."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_data.decoding import Decoded
from moviegen_data.faults import SourceError
from moviegen_data.rows import LatentRows
from moviegen_data.shared_memory import SharedMemory


def collate(samples: Sequence[Decoded], rows: LatentRows | None = None, memory: SharedMemory | None = None) -> MediaBatch:
    """Join decoded samples, all but their pixels; texts are padded to the longest of the batch, a rate of None is a picture's.

    Args:
        samples: the samples.
        rows: memory that their latents were read into.
        memory: where other tensors are laid; in memory of their own unless given.
    """
    rates = [sample.fps for sample in samples]
    latents, sounds = [sample.latent for sample in samples], [sample.audio for sample in samples]
    joined = None if rows is None else rows.joined(latents)
    if joined is None and latents[0] is not None:
        joined = _stack(latents, memory)
    return MediaBatch(
        captions=[sample.caption for sample in samples],
        keys=[sample.key for sample in samples],
        latents=joined,
        fps=None if any(rate is None for rate in rates) else torch.tensor(rates, dtype=torch.float32),
        audio=None if sounds[0] is None else _stack(sounds, memory),
        audio_hz=samples[0].audio_hz,
        text=_pad_texts([sample.text for sample in samples], memory),
        extras={name: _stack([sample.extras[name] for sample in samples], memory) for name in samples[0].extras},
        metadata=[sample.metadata for sample in samples],
    )


def _stack(tensors: Sequence[Tensor], memory: SharedMemory | None) -> Tensor:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise SourceError(
            f"a batch of tensors of shapes {sorted(shapes)} was drawn; a batch has one shape; "
            "pack samples of different shapes into different shards, or write `latent_shape` into their json"
        )
    alike = len({tensor.dtype for tensor in tensors}) == 1
    if memory is None or not alike:
        return torch.stack(list(tensors))
    return torch.stack(list(tensors), out=memory.empty(len(tensors), *tensors[0].shape, dtype=tensors[0].dtype))


def _pad_texts(texts: Sequence[Any], memory: SharedMemory | None) -> dict[str, TextEmbedding]:
    names = set(texts[0]).intersection(*texts[1:])
    embeddings = {}
    for name in sorted(names):
        widths = {text[name][0].shape[1] for text in texts}
        if len(widths) > 1:
            raise SourceError(
                f"text embeddings {name!r} of widths {sorted(widths)} were drawn for one batch; a batch has one width; "
                "embed the captions of all shards with the same encoder"
            )
        length = max(text[name][0].shape[0] for text in texts)
        shape = (len(texts), length, widths.pop())
        dtype = functools.reduce(torch.promote_types, (text[name][0].dtype for text in texts))  # halves cannot hold all that others can
        tokens = torch.empty(shape, dtype=dtype) if memory is None else memory.empty(*shape, dtype=dtype)
        tokens.zero_()
        mask = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, text in enumerate(texts):
            given, real = text[name]
            tokens[row, : len(given)], mask[row, : len(given)] = given, real
        embeddings[name] = TextEmbedding(tokens, mask)
    return embeddings
