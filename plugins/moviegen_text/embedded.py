"""Small encoders that are trained along with the model: no download, no vocabulary file, any language."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moviegen_core.batch import TextEmbedding
from moviegen_core.errors import UsageError
from moviegen_text.conditioner import TextConditioner
from moviegen_text.model import HashedEmbedding, TextTransformer
from moviegen_text.words import START, hash_word, split_words


class _EmbeddedConditioner(TextConditioner):
    """An embedding of tokens and a small transformer over them.

    Args:
        width: width of the backbone.
        width_text: width of the encoder.
        num_layers: its transformer blocks.
        num_heads: its attention heads; divides `width_text`.
        max_tokens: tokens per text, the start token included.
        dropout: probability in [0, 1] that a training sample sees the empty prompt instead.
        pooled: also add a projection of the mean token to the time-step embedding, which every layer's norms see.
    """

    def __init__(
        self, width: int, *, width_text: int, num_layers: int, num_heads: int, max_tokens: int, dropout: float, pooled: bool
    ) -> None:
        super().__init__(width, width_text=width_text, dropout=dropout, pooled=pooled)
        if max_tokens < 2:
            raise UsageError(f"a length of {max_tokens} was given", "the first token marks the start", "give 2 or more")
        self.max_tokens = max_tokens
        self.encoder = TextTransformer(width=width_text, num_layers=num_layers, num_heads=num_heads, max_tokens=max_tokens)
        self._warned = False

    def _cut(self, tokens: list, text: str) -> list:
        if len(tokens) > self.max_tokens and not self._warned:
            self._warned = True
            warnings.warn(
                f"the prompt {text[:60]!r}... has {len(tokens)} tokens; {type(self).__name__} keeps the first {self.max_tokens}; "
                "raise its limit to keep them all",
                stacklevel=2,
            )
        return tokens[: self.max_tokens]

    def _mask(self, lengths: Tensor) -> Tensor:
        return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]


class HashedWordConditioner(_EmbeddedConditioner):
    """Words and marks, each the sum of its hashed byte n-grams, through a small bidirectional transformer.

    It learns much quicker than an encoder over single bytes, because a word is known by itself from the first step, while words of one
    stem still share most of their vectors. This is the embedded default.

    Args:
        width: width of the backbone.
        width_text: width of the encoder.
        num_layers: its transformer blocks; 0 keeps the words apart.
        num_heads: its attention heads; divides `width_text`.
        max_words: words and marks per prompt, a start token included; what is beyond is cut with a warning.
        num_buckets: rows of the table that n-grams are hashed into.
        dropout: probability in [0, 1] that a training sample sees the empty prompt instead.
        pooled: also add a projection of the mean token to the time-step embedding, which every layer's norms see.
    """

    def __init__(
        self,
        width: int,
        *,
        width_text: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        max_words: int = 128,
        num_buckets: int = 8192,
        dropout: float = 0.1,
        pooled: bool = False,
    ) -> None:
        common = {"width_text": width_text, "num_layers": num_layers, "num_heads": num_heads, "dropout": dropout, "pooled": pooled}
        super().__init__(width, max_tokens=max_words, **common)
        self.num_buckets = num_buckets
        self.embedding = HashedEmbedding(num_buckets=num_buckets, width=width_text)

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        """Encode texts, before the projection."""
        device = self.embedding.weight.device
        words = [self._cut([START.decode(), *split_words(text)], text) for text in texts]
        hashed = [hash_word(word, self.num_buckets) for text in words for word in text]
        features = torch.tensor([feature for word in hashed for feature in word], device=device)
        flat = self.embedding(features, torch.tensor([len(word) for word in hashed], device=device))
        mask = self._mask(torch.tensor([len(text) for text in words], device=device))
        tokens = flat.new_zeros(*mask.shape, flat.shape[-1]).masked_scatter(mask[..., None], flat)
        return TextEmbedding(self.encoder(tokens, mask), mask)


class ByteConditioner(_EmbeddedConditioner):
    """Single UTF-8 bytes through a small bidirectional transformer.

    Spelling is in plain sight, at the price of four to five times the tokens of `HashedWordConditioner` and of slower learning.

    Args:
        width: width of the backbone.
        width_text: width of the encoder.
        num_layers: its transformer blocks.
        num_heads: its attention heads; divides `width_text`.
        max_bytes: bytes per prompt, a start token included; what is beyond is cut with a warning.
        dropout: probability in [0, 1] that a training sample sees the empty prompt instead.
        pooled: also add a projection of the mean token to the time-step embedding, which every layer's norms see.
    """

    def __init__(
        self,
        width: int,
        *,
        width_text: int = 128,
        num_layers: int = 3,
        num_heads: int = 4,
        max_bytes: int = 256,
        dropout: float = 0.1,
        pooled: bool = False,
    ) -> None:
        common = {"width_text": width_text, "num_layers": num_layers, "num_heads": num_heads, "dropout": dropout, "pooled": pooled}
        super().__init__(width, max_tokens=max_bytes, **common)
        self.embedding = nn.Embedding(257, width_text)

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        """Encode texts, before the projection."""
        device = self.embedding.weight.device
        rows = [self._cut([256, *text.encode(errors="surrogatepass")], text) for text in texts]
        mask = self._mask(torch.tensor([len(row) for row in rows], device=device))
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row, device=device) for row in rows], batch_first=True)
        return TextEmbedding(self.encoder(self.embedding(ids), mask), mask)
