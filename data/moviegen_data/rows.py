"""Memory of a batch of latents, which samples are read into one after the other."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from moviegen_data.memory import RecycledMemory
from moviegen_data.shared_memory import SharedMemory


class LatentRows:
    """Rows of a batch whose shape the first sample tells.

    Args:
        memory: where the batch's memory comes from.
        num_rows: most samples that the batch has.
    """

    def __init__(self, memory: RecycledMemory | SharedMemory, num_rows: int) -> None:
        self._memory, self._num_rows = memory, num_rows
        self._batch: Tensor | None = None
        self._kept = 0

    def next(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """The row that is written next; None for a latent that is not like the first."""
        if self._batch is None:
            count = self._num_rows * math.prod(shape)
            self._batch = self._memory.empty(count * dtype.itemsize, dtype=torch.uint8).view(dtype).view(self._num_rows, *shape)
        alike = self._batch.shape[1:] == shape and self._batch.dtype == dtype and self._kept < self._num_rows
        return self._batch[self._kept] if alike else None

    def keep(self) -> None:
        """Leave the row that was written as it is; otherwise the next sample is written over it."""
        self._kept += 1

    def joined(self, latents: Sequence[Tensor | None]) -> Tensor | None:
        """The batch, where all these latents are its rows, in order."""
        if self._batch is None or len(latents) != self._kept or latents[0] is None:
            return None
        alike = all(latent.data_ptr() == self._batch[row].data_ptr() for row, latent in enumerate(latents))
        return self._batch[: len(latents)] if alike else None
