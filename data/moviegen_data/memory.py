"""Memory for batches of pixels, used again as soon as nobody refers to it."""

import math
import sys

import numpy as np
import torch
from torch import Tensor

_MAX_BLOCKS = 4
_MAX_BYTES = 1 << 30
_KINDS = {torch.float32: np.float32, torch.uint8: np.uint8}


class RecycledMemory:
    """Hands out tensors whose memory returns here when the last reference to it is gone.

    The pages of a fresh batch cost as much as decoding it; a loader's batches have one shape and die young.
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of any content, of floats or of bytes."""
        size, kind = math.prod(shape), np.dtype(_KINDS[dtype])
        if size * kind.itemsize * _MAX_BLOCKS > _MAX_BYTES:
            return torch.empty(shape, dtype=dtype)
        for number in range(len(self._blocks)):
            if self._blocks[number].size == size and self._blocks[number].dtype == kind and self._is_free(number):
                self._blocks.append(self._blocks.pop(number))
                return torch.from_numpy(self._blocks[-1].reshape(shape))
        if len(self._blocks) >= _MAX_BLOCKS:
            self._blocks.pop(0)
        self._blocks.append(np.empty(size, dtype=kind))
        return torch.from_numpy(self._blocks[-1].reshape(shape))

    def _is_free(self, number: int) -> bool:
        # The list and the call itself refer to the block; a living tensor does through its view.
        return sys.getrefcount(self._blocks[number]) == 2

    def __getstate__(self) -> dict:
        return {"_blocks": []}
