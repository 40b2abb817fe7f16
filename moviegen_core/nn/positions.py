"""Factorized learnable positions (3.1.3)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_core.errors import UsageError


class FactorizedPositions(nn.Module):
    """One table per axis, phi_t + phi_h + phi_w; any size up to the tables.

    Args:
        width: width d of the tokens.
        max_frames: length of the temporal table, in patches.
        max_height: length of the table of rows, in patches.
        max_width: length of the table of columns, in patches.
        std: initial standard deviation of the entries.

    The tables start as waves of random period and phase, so that neighbours begin alike and distances can be told from the first step.
    """

    def __init__(self, *, width: int, max_frames: int, max_height: int, max_width: int, std: float = 0.02) -> None:
        super().__init__()
        self.std = std
        self.frames = nn.Parameter(torch.empty(max_frames, width))
        self.rows = nn.Parameter(torch.empty(max_height, width))
        self.columns = nn.Parameter(torch.empty(max_width, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the tables: per feature a wave of its own, periods from 2 to twice the table's length."""
        with torch.no_grad():
            for table in (self.frames, self.rows, self.columns):
                length, width = table.shape
                frequency = torch.pi * length ** -torch.rand(width, device=table.device)
                phase = 2.0 * torch.pi * torch.rand(width, device=table.device)
                places = torch.arange(length, device=table.device, dtype=torch.float32)
                table.copy_(2.0**0.5 * self.std * torch.sin(places[:, None] * frequency + phase))

    def forward(self, num_frames: int, num_rows: int, num_columns: int) -> Float[Tensor, "n d"]:
        """Positions of a grid of patches, flattened frames first.

        Raises:
            UsageError: the grid is larger than the tables.
        """
        given = (num_frames, num_rows, num_columns)
        largest = (self.frames.shape[0], self.rows.shape[0], self.columns.shape[0])
        if any(have > most for have, most in zip(given, largest, strict=True)):
            raise UsageError(
                f"a latent of {'x'.join(map(str, given))} patches (frames x rows x columns) was given",
                f"the positional tables end at {'x'.join(map(str, largest))}",
                "raise max_frames, max_height or max_width of the backbone, or give a smaller video",
            )
        # Times one, for a gradient of its own: tables of one entry would get views of one tensor, and backward passes that add up would
        # add every table's share to all of them.
        frames = 1.0 * self.frames[:num_frames, None, None]
        rows = 1.0 * self.rows[None, :num_rows, None]
        columns = self.columns[None, None, :num_columns]
        return (frames + (rows + columns)).flatten(0, 2)
