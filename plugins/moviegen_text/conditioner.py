"""What all text conditioners share: text in, tokens for cross-attention out, the empty prompt as the null version."""

from collections.abc import Sequence

from torch import Tensor

from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_core.conditioner import Conditioner, Conditioning
from moviegen_core.nn.linear import Projection
from moviegen_text.model import TextProjection


class TextConditioner(Conditioner):
    """Encodes the captions and projects them into the backbone's width.

    The null version is the encoding of the empty prompt by the same path, which is what a user without a prompt would give.

    Args:
        width: width of the backbone.
        width_text: width of the encoder's hidden states.
        dropout: probability in [0, 1] that a training sample sees the empty prompt instead.
        pooled: also add a projection of the mean token to the time-step embedding.
    """

    def __init__(self, width: int, *, width_text: int, dropout: float = 0.1, pooled: bool = False) -> None:
        super().__init__(dropout=dropout)
        self.projection = TextProjection(width_text=width_text, width=width)
        self.pooled_projection = Projection(width_text, width, gain=0.0) if pooled else None

    def forward(self, batch: MediaBatch) -> Conditioning:
        """Encode the captions."""
        return self._project(self.embed_batch(batch))

    def null(self, batch: MediaBatch) -> Conditioning:
        """Encode the empty prompt once, for every sample of the batch."""
        one = self._project(self.embed_null())
        assert one.context is not None and one.context_mask is not None
        return Conditioning(
            context=one.context.expand(len(batch), -1, -1),
            context_mask=one.context_mask.expand(len(batch), -1),
            modulation=None if one.modulation is None else one.modulation.expand(len(batch), -1),
        )

    def texts(self, batch: MediaBatch) -> list[str]:
        """The texts to encode."""
        return batch.captions

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        """Encode texts, before the projection."""
        raise NotImplementedError(f"{type(self).__name__} must define embed(texts) -> TextEmbedding")

    def embed_batch(self, batch: MediaBatch) -> TextEmbedding:
        """Encode a batch, before the projection."""
        return self.embed(self.texts(batch))

    def embed_null(self) -> TextEmbedding:
        """Encode the empty prompt of one sample, before the projection."""
        return self.embed([""])

    def _project(self, embedding: TextEmbedding) -> Conditioning:
        context: Tensor = self.projection(embedding.tokens)
        if self.pooled_projection is None:
            return Conditioning(context=context, context_mask=embedding.mask)
        real = embedding.mask[..., None].to(embedding.tokens.dtype)
        mean = (embedding.tokens * real).sum(1) / real.sum(1).clamp_min(1.0)
        return Conditioning(context=context, context_mask=embedding.mask, modulation=self.pooled_projection(mean))
