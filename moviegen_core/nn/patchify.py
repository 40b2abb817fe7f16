"""Latents to tokens and back: 3-D convolutions whose stride is their kernel (3.1.3)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_core.errors import UsageError
from moviegen_core.nn.linear import Projection

PatchSize = tuple[int, int, int]


class Patchify(nn.Module):
    """A 3-D convolution with stride = kernel; computed as one matrix product over unfolded patches, stored in convolution layout.

    Args:
        in_channels: channels of the latent.
        width: width d of the tokens.
        patch_size: patch along frames, rows and columns.
        extra_channels: further input channels whose weights start at zero (3.1.5, 5.1).
    """

    def __init__(self, *, in_channels: int, width: int, patch_size: PatchSize, extra_channels: int = 0) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.weight = nn.Parameter(torch.empty(width, in_channels + extra_channels, *patch_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of the latent's channels; those of the extra channels start at zero."""
        nn.init.normal_(self.weight, std=(self.in_channels * math.prod(self.patch_size)) ** -0.5)
        if self.weight.shape[1] > self.in_channels:
            nn.init.zeros_(self.weight[:, self.in_channels :])

    def grid(self, latent_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Patches along frames, rows and columns of a latent (..., t, h, w).

        Raises:
            UsageError: a side is not a multiple of the patch.
        """
        sides = tuple(latent_shape[-3:])
        if any(side % patch for side, patch in zip(sides, self.patch_size, strict=True)):
            fitting = "x".join(str(max(patch, side // patch * patch)) for side, patch in zip(sides, self.patch_size, strict=True))
            raise UsageError(
                f"a latent of {'x'.join(map(str, sides))} cells (frames x rows x columns) was given",
                f"the patches are {'x'.join(map(str, self.patch_size))}",
                f"resize or crop so that the latent is {fitting}",
            )
        t, h, w = (side // patch for side, patch in zip(sides, self.patch_size, strict=True))
        return t, h, w

    def forward(self, latent: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of a latent, flattened frames first."""
        b, c, _, _, _ = latent.shape
        (t, h, w), (kt, kh, kw) = self.grid(latent.shape), self.patch_size
        patches = latent.reshape(b, c, t, kt, h, kh, w, kw).permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, t * h * w, c * kt * kh * kw)
        return F.linear(patches.to(self.weight.dtype), self.weight.flatten(1))


class Unpatchify(nn.Module):
    """Tokens back to a latent: one linear layer to the cells of each patch, zero at the start so that the first prediction is zero.

    Args:
        width: width d of the tokens.
        out_channels: channels of the latent.
        patch_size: patch along frames, rows and columns.
    """

    def __init__(self, *, width: int, out_channels: int, patch_size: PatchSize) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.out_channels = out_channels
        self.linear = Projection(width, out_channels * math.prod(patch_size), gain=0.0)

    def forward(self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int, int]) -> Float[Tensor, "b c t h w"]:
        """The latent whose patches the tokens are."""
        return self.fold(self.linear(tokens), grid)

    def fold(self, cells: Float[Tensor, "b n k"], grid: tuple[int, int, int]) -> Float[Tensor, "b c t h w"]:
        """The latent whose patches have these cells."""
        (t, h, w), (kt, kh, kw) = grid, self.patch_size
        cells = cells.reshape(-1, t, h, w, self.out_channels, kt, kh, kw)
        return cells.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(-1, self.out_channels, t * kt, h * kh, w * kw)
