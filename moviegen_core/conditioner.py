"""Conditioners, and `Conditioning`, the record with the four doors into a backbone."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float
from lightning.pytorch import LightningModule
from torch import Tensor

from moviegen_core.batch import MediaBatch

if TYPE_CHECKING:
    from moviegen_core.parallel.plan import ParallelPlan


@dataclass(frozen=True)
class Conditioning:
    """All that a backbone may be told, by four doors; a door that is None is closed.

    Args:
        context: tokens for cross-attention (b, l, d).
        context_mask: true where a context token is real (b, l); required where `context` is given.
        modulation: a vector added to the time-step embedding (b, d).
        channels: maps concatenated to the noisy latent on channels, (b, c', t, h, w) or (b, c', t).
        aligned: features added position by position (b, t, d).
    """

    context: Float[Tensor, "b l d"] | None = None
    context_mask: Bool[Tensor, "b l"] | None = None
    modulation: Float[Tensor, "b d"] | None = None
    channels: Tensor | None = None
    aligned: Float[Tensor, "b t d"] | None = None

    def __post_init__(self) -> None:
        assert (self.context is None) == (self.context_mask is None), "context and context_mask come together"

    @staticmethod
    def merge(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Join the outputs of several conditioners of one batch.

        Context is concatenated along l, channels along c', modulation and aligned are summed.
        """
        return Conditioning(
            context=_reduce(parts, "context", lambda xs: torch.cat(xs, dim=1)),
            context_mask=_reduce(parts, "context_mask", lambda xs: torch.cat(xs, dim=1)),
            modulation=_reduce(parts, "modulation", lambda xs: torch.stack(xs).sum(0)),
            channels=_reduce(parts, "channels", lambda xs: torch.cat(xs, dim=1)),
            aligned=_reduce(parts, "aligned", lambda xs: torch.stack(xs).sum(0)),
        )

    @staticmethod
    def stack(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Concatenate along the batch; shorter contexts are padded with masked tokens (used for batched guidance)."""
        length = max((part.context.shape[1] for part in parts if part.context is not None), default=0)
        padded = [part._pad_context(length) for part in parts]
        doors = {}
        for door in fields(Conditioning):
            given = [getattr(part, door.name) for part in padded]
            present = [tensor for tensor in given if tensor is not None]
            assert len(present) in (0, len(given)), f"{door.name} is open in some parts and closed in others"
            doors[door.name] = torch.cat(present) if present else None
        return Conditioning(**doors)

    def drop(self, dropped: Bool[Tensor, " b"], null: "Conditioning") -> "Conditioning":
        """Replace the samples marked in `dropped` by their null version."""
        length = max(part.context.shape[1] if part.context is not None else 0 for part in (self, null))
        given, absent = self._pad_context(length), null._pad_context(length)
        doors = {}
        for door in fields(Conditioning):
            kept, dummy = getattr(given, door.name), getattr(absent, door.name)
            assert (kept is None) == (dummy is None), f"{door.name} is open in only one of the given and the null version"
            doors[door.name] = None if kept is None else torch.where(_like(dropped, kept), dummy.to(kept.dtype), kept)
        return Conditioning(**doors)

    def window(self, start: int, stop: int) -> "Conditioning":
        """Cut the doors that run along time to latent frames start..stop; the others stay whole."""
        return replace(
            self,
            channels=None if self.channels is None else self.channels[:, :, start:stop],
            aligned=None if self.aligned is None else self.aligned[:, start:stop],
        )

    def _pad_context(self, length: int) -> "Conditioning":
        if self.context is None or self.context.shape[1] == length:
            return self
        pad = length - self.context.shape[1]
        return replace(
            self,
            context=torch.nn.functional.pad(self.context, (0, 0, 0, pad)),
            context_mask=torch.nn.functional.pad(self.context_mask, (0, pad)),
        )


class Conditioner(LightningModule):
    """Turns a batch into a `Conditioning`, and knows what its absence looks like.

    A subclass takes the backbone's width as its first positional argument and everything else keyword-only, e.g.
    `def __init__(self, width: int, *, dropout: float = 0.1)`; YAML gives the keyword arguments, the model gives the width.

    Args:
        dropout: probability in [0, 1] that a training sample sees the null version instead.

    A class that opens other doors than `context` sets `has_context` to false, so that plans count no tokens for it. One with modules that
    serve `auxiliary_loss` alone names them in `auxiliary_parts`: a stage of training may lack them, whatever the stage before has.
    """

    has_context: ClassVar[bool] = True
    auxiliary_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, dropout: float = 0.1) -> None:
        super().__init__()
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"dropout is a probability, got {dropout}; give a number from 0 to 1")
        self.dropout = dropout

    def forward(self, batch: MediaBatch) -> Conditioning:
        """Encode the batch's condition."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(batch) -> Conditioning")

    def parallelize(self, plan: "ParallelPlan") -> None:
        """Shard this conditioner in place over data x context; it is whole while `forward` or `null` runs."""
        plan.shard(self, methods=["null"])

    def null(self, batch: MediaBatch) -> Conditioning:
        """Encode the condition's absence for as many samples as the batch has; opens the same doors as `forward`."""
        raise NotImplementedError(f"{type(self).__name__} must define null(batch) -> Conditioning")

    def auxiliary_loss(self, batch: MediaBatch, conditioning: Conditioning) -> Float[Tensor, ""] | None:
        """A term of its own to add to the loss, beside that of the velocity; None for a conditioner that has none.

        A conditioner that has one names this method beside `null` in `parallelize`, and gives every weight that it uses here a gradient
        for any batch, of zero if need be: processes exchange gradients after this method, and would wait for each other for ever.

        Args:
            batch: the batch, with the latents of what is generated.
            conditioning: what `forward` gave for it, before any of it is dropped.
        """
        return None


def _like(per_sample: Tensor, like: Tensor) -> Tensor:
    return per_sample.view(-1, *[1] * (like.ndim - 1))


def _reduce(parts, door, join):
    present = [getattr(part, door) for part in parts if getattr(part, door) is not None]
    return join(present) if present else None
