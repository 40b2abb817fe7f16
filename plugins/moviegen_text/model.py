"""Plain networks: the projection into the backbone's width, and a small text encoder. Shape legend: `moviegen_core.batch`."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from moviegen_core.nn.attention import Attention
from moviegen_core.nn.modulation import RMSNorm
from moviegen_core.nn.transformer import SwiGLU


class TextProjection(nn.Module):
    """Linear layer and LayerNorm from a text encoder's width into the backbone's (3.1.4).

    Args:
        width_text: width of the encoder's hidden states.
        width: width d of the backbone.
    """

    def __init__(self, *, width_text: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width_text, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Float[Tensor, "b l e"]) -> Float[Tensor, "b l d"]:
        """Project every token alone."""
        return self.norm(self.linear(tokens.to(self.linear.weight.dtype)))


class TextBlock(nn.Module):
    """Bidirectional self-attention and a feed-forward network, each behind an RMS norm and added to its input.

    Args:
        width: width of the tokens.
        num_heads: number of attention heads; divides `width`.
    """

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width=width)
        self.attention = Attention(width=width, num_heads=num_heads)
        self.ffn_norm = RMSNorm(width=width)
        self.ffn = SwiGLU(width=width, ffn_width=2 * width)

    def forward(self, x: Float[Tensor, "b l e"], mask: Bool[Tensor, "b 1 1 l"]) -> Float[Tensor, "b l e"]:
        """One layer."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, mask)
        return x + self.ffn(self.ffn_norm(x))


class TextTransformer(nn.Module):
    """A small bidirectional transformer over embedded text with learned positions.

    Args:
        width: width of the tokens.
        num_layers: number of blocks; 0 leaves the embedded tokens with their positions.
        num_heads: number of attention heads; divides `width`.
        max_tokens: length of the positional table.
    """

    def __init__(self, *, width: int, num_layers: int, num_heads: int, max_tokens: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(max_tokens, width))
        self.blocks = nn.ModuleList(TextBlock(width=width, num_heads=num_heads) for _ in range(num_layers))
        self.norm = RMSNorm(width=width)
        nn.init.normal_(self.positions, std=0.1)

    def reset_parameters(self) -> None:
        """Draw all weights anew; positions start small beside words of unit variance."""
        nn.init.normal_(self.positions, std=0.1)
        for module in self.modules():
            if module is not self and hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def forward(self, tokens: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        """Encode embedded tokens."""
        x = tokens + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask[:, None, None, :])
        return self.norm(x)


class HashedEmbedding(nn.Module):
    """A token as the sum of its features' vectors, over the square root of their number: unit variance however many they are.

    Args:
        num_buckets: rows of the table that features are hashed into.
        width: width of a token.
    """

    def __init__(self, *, num_buckets: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_buckets, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table."""
        nn.init.normal_(self.weight)

    def forward(self, features: Int[Tensor, " k"], lengths: Int[Tensor, " n"]) -> Float[Tensor, "n e"]:
        """Embed n tokens, whose features stand one after the other, `lengths` of them each."""
        scale = lengths.to(self.weight.dtype).rsqrt().repeat_interleave(lengths, output_size=features.numel())
        offsets = lengths.cumsum(0) - lengths
        return nn.functional.embedding_bag(features, self.weight, offsets, mode="sum", per_sample_weights=scale)
