"""Filling in parts of a sound: which samples are kept, which latent frames are known by them, and how both sides join."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from moviegen_core.errors import UsageError

Spans = Sequence[tuple[float, float]]


def kept_outside(spans_s: Spans, num_samples: int, audio_hz: int) -> Bool[Tensor, " s"]:
    """True for the samples outside of all spans.

    Args:
        spans_s: starts and stops in seconds of what is to be generated.
        num_samples: samples of the sound.
        audio_hz: samples per second.

    Raises:
        UsageError: a span is empty, or leaves the sound.
    """
    kept = torch.ones(num_samples, dtype=torch.bool)
    for start_s, stop_s in spans_s:
        start, stop = (round(time * audio_hz) if math.isfinite(time) else -1 for time in (start_s, stop_s))
        if not 0 <= start < stop <= num_samples:
            raise UsageError(
                f"the span from {start_s:g} s to {stop_s:g} s was given",
                f"the sound lasts {num_samples / audio_hz:g} s, and a span starts before it stops",
                "give spans within it; `outfill` makes a sound longer",
            )
        kept[start:stop] = False
    return kept


def known_frames(kept: Bool[Tensor, "b s"], hop_length: int) -> Bool[Tensor, "b t"]:
    """True for the latent frames all of whose samples are kept; what the last one has beyond the sound counts as kept."""
    padded = torch.nn.functional.pad(kept, (0, -kept.shape[1] % hop_length), value=True)
    return padded.unflatten(1, (-1, hop_length)).all(2)


def join(sound: Float[Tensor, "b a s"], generated: Float[Tensor, "b a s"], kept: Bool[Tensor, "b s"], fade: int) -> Float[Tensor, "b a s"]:
    """The kept samples of a sound bit for bit, and what was generated between them.

    At an edge the two differ by what the autoencoder loses. That difference is carried over to the generated side, mirrored, and faded
    out there, so that the edge does not click and no kept sample is touched.

    Args:
        sound: the sound; what it holds where nothing is kept does not matter.
        generated: what was decoded, for the whole sound.
        kept: true for the samples that stay.
        fade: samples over which the difference fades.
    """
    lost = torch.where(kept[:, None], sound.float() - generated, 0.0)
    place = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    left = torch.where(kept, place, -1).cummax(1).values
    right = torch.where(kept, place, kept.shape[1]).flip(1).cummin(1).values.flip(1)
    span = (right - left - 1).clamp(1, max(1, fade))
    carried = sum(_mirrored(lost, kept, place, edge, span) for edge in (left, right))
    return torch.where(kept[:, None], sound, (generated + carried).clamp(-1.0, 1.0).to(sound.dtype))


def _mirrored(
    lost: Float[Tensor, "b a s"], kept: Bool[Tensor, "b s"], place: Int[Tensor, "b s"], edge: Int[Tensor, "b s"], span: Int[Tensor, "b s"]
) -> Float[Tensor, "b a s"]:
    """The difference beyond the last kept sample `edge`, mirrored at it, times a raised cosine of its distance."""
    distance = (place - edge).abs()
    source = (edge - (place - edge).sign() * (distance - 1)).clamp(0, kept.shape[1] - 1)
    exists = (edge >= 0) & (edge < kept.shape[1]) & kept.gather(1, source) & (distance <= span)
    weight = torch.where(exists, torch.cos(0.5 * torch.pi * (distance - 0.5) / span).square(), 0.0)
    return weight[:, None] * lost.gather(2, source[:, None].expand_as(lost))
