"""Memory of workers that the main process sees: what is read into it is there, and nothing is copied on the way between processes."""

import math
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MAX_BLOCKS = 16
_HEADER = 64  # bytes before the values; the first is 1 while the main process has the block


class _Block:
    """Shared memory, and who uses it.

    Args:
        num_bytes: how much it holds.
    """

    def __init__(self, num_bytes: int) -> None:
        self.whole = torch.empty(_HEADER + num_bytes, dtype=torch.uint8).share_memory_()
        self.whole[0] = 0
        self.values: np.ndarray = self.whole.numpy()[_HEADER:]
        self._user: Callable[[], np.ndarray | None] = lambda: None

    @property
    def is_free(self) -> bool:
        """True where no tensor of this process uses it, and the main process has given it back."""
        return self._user() is None and not int(self.whole[0])

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor over its first bytes."""
        used = self.values[: math.prod(shape) * dtype.itemsize]
        self._user = weakref.ref(used)  # a tensor's storage, and so all views of it, keep the array
        return torch.from_numpy(used).view(dtype).view(shape)


class SharedMemory:
    """Hands out tensors in shared memory, and takes it back when neither this process nor the one they were sent to refers to them.

    Blocks are made when none is free, so there are as many as batches are on their way or in use. Pages of fresh memory cost more than
    reading a batch of latents; those of a block are made once.

    Args:
        smallest: bytes from which on a tensor lies in a block; copying fewer is quicker.
    """

    def __init__(self, *, smallest: int = 1 << 16) -> None:
        self.smallest = smallest
        self._blocks: list[_Block] = []

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of any content; in memory of its own where all blocks are in use."""
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes < max(1, self.smallest):
            return torch.empty(shape, dtype=dtype)
        free = [block for block in self._blocks if block.is_free]
        fitting = [block for block in free if len(block.values) >= num_bytes]
        if fitting:
            return min(fitting, key=lambda block: len(block.values)).tensor(shape, dtype)
        if free:  # too small for this batch; a larger one serves both
            self._blocks.remove(free[0])
        if len(self._blocks) >= _MAX_BLOCKS:
            return torch.empty(shape, dtype=dtype)
        self._blocks.append(_Block(num_bytes))
        return self._blocks[-1].tensor(shape, dtype)

    def lend(self, tensor: Tensor) -> "Lent | None":
        """What to send in place of a tensor that begins a block; None for other tensors."""
        if not tensor.is_contiguous() or not tensor.numel():
            return None
        for block in list(self._blocks):  # another thread sends than makes batches
            if tensor.data_ptr() == block.values.ctypes.data:
                block.whole[0] = 1
                return Lent(block.whole, tuple(tensor.shape), tensor.dtype)
        return None

    def __getstate__(self) -> dict:
        return {"smallest": self.smallest, "_blocks": []}


@dataclass(frozen=True)
class Lent:
    """A tensor in a worker's memory, on its way.

    Args:
        whole: the block.
        shape: the tensor's shape.
        dtype: its precision.
    """

    whole: Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype

    def take(self) -> Tensor:
        """The tensor; the block goes back to the worker when nothing refers to it any more."""
        used = self.whole.numpy()[_HEADER : _HEADER + math.prod(self.shape) * self.dtype.itemsize]
        weakref.finalize(used, _give_back, self.whole, os.getpid()).atexit = False
        return torch.from_numpy(used).view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Copied:
    """A small tensor on its way; its bytes travel with the message, which is quicker than shared memory of its own.

    Args:
        content: the bytes.
        shape: the tensor's shape.
        dtype: its precision.
    """

    content: bytes
    shape: tuple[int, ...]
    dtype: torch.dtype

    def take(self) -> Tensor:
        """The tensor."""
        if not self.content:
            return torch.empty(self.shape, dtype=self.dtype)
        return torch.frombuffer(bytearray(self.content), dtype=self.dtype).view(self.shape)


def packed(tensor: Tensor | None, memory: SharedMemory) -> "Tensor | Lent | Copied | None":
    """What to send in place of a tensor."""
    if tensor is None or (lent := memory.lend(tensor)) is not None:
        return None if tensor is None else lent
    if tensor.nbytes >= memory.smallest:
        return tensor
    return Copied(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes(), tuple(tensor.shape), tensor.dtype)


def unpacked(sent: "Tensor | Lent | Copied | None") -> Tensor | None:
    """The tensor that was sent."""
    return sent.take() if isinstance(sent, (Lent, Copied)) else sent


def _give_back(whole: Tensor, process: int) -> None:
    if os.getpid() == process:  # a fork's copy of the tensor says nothing of the main process
        whole[0] = 0
