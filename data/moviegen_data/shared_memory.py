"""Memory of workers that the main process sees: what is read into it is there, and nothing is copied on the way between processes."""

import math
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from moviegen_data.faults import logger

_MAX_BLOCKS = 16
_MOST_ROOM = 8  # a block this many times as large as a tensor is left to larger ones: texts would come to lie in the memory of videos
_HEADER = 64  # bytes before the values; the first is 1 while the main process has the block

Granted = TypeVar("Granted")


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
        self.is_full = False  # the machine's shared memory, as far as this process has seen
        self._blocks: list[_Block] = []

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of any content; in memory of its own where all blocks are in use, or no further one can be made."""
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes < max(1, self.smallest):
            return torch.empty(shape, dtype=dtype)
        free = [block for block in self._blocks if block.is_free]
        alike = [block for block in free if num_bytes <= _MOST_ROOM * len(block.values) and len(block.values) <= _MOST_ROOM * num_bytes]
        fitting = [block for block in alike if len(block.values) >= num_bytes]
        if fitting:
            return min(fitting, key=lambda block: len(block.values)).tensor(shape, dtype)
        # One that is a little too small goes, since a larger one serves both; any other only where there are many.
        spare = (alike or (free if len(self._blocks) >= _MAX_BLOCKS else []))[:1]
        if len(self._blocks) - len(spare) >= _MAX_BLOCKS or (block := self._granted(lambda: _Block(num_bytes))) is None:
            return torch.empty(shape, dtype=dtype)
        self._blocks = [other for other in self._blocks if other not in spare] + [block]
        return block.tensor(shape, dtype)

    def lend(self, tensor: Tensor) -> "Lent | None":
        """What to send in place of a tensor that begins a block; None for other tensors."""
        if not tensor.is_contiguous() or not tensor.numel():
            return None
        for block in list(self._blocks):  # another thread sends than makes batches
            if tensor.data_ptr() == block.values.ctypes.data:
                block.whole[0] = 1
                return Lent(tuple(tensor.shape), tensor.dtype, block.whole)
        return None

    def share(self, tensor: Tensor) -> Tensor | None:
        """Move a tensor that begins no block into shared memory of its own; None where there is no more."""
        return self._granted(tensor.share_memory_)

    def _granted(self, ask: Callable[[], Granted]) -> Granted | None:
        """What the system gives; None from the first time on that it has no more, as in a container of 64 MB."""
        try:
            return None if self.is_full else ask()
        except RuntimeError as error:
            self.is_full = True
            logger.warning(
                "a worker asked for shared memory; the system gave none (%s), so batches are copied between processes, which is slower; "
                "give more, e.g. `docker run --shm-size=16g` or `--ipc=host`, or take fewer workers or a smaller prefetch_bytes",
                str(error).partition("\n")[0],
            )
            return None

    def __getstate__(self) -> dict:
        return {"smallest": self.smallest, "is_full": False, "_blocks": []}


@dataclass(frozen=True)
class Sent(ABC):
    """A tensor on its way.

    Args:
        shape: its shape.
        dtype: its precision.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def take(self) -> Tensor:
        """The tensor."""


@dataclass(frozen=True)
class Lent(Sent):
    """One that lies in a worker's memory; the block goes back to the worker when nothing refers to it any more.

    Args:
        shape: its shape.
        dtype: its precision.
        whole: the block.
    """

    whole: Tensor

    def take(self) -> Tensor:
        """See `Sent.take`."""
        used = self.whole.numpy()[_HEADER : _HEADER + math.prod(self.shape) * self.dtype.itemsize]
        weakref.finalize(used, _give_back, self.whole, os.getpid()).atexit = False
        return torch.from_numpy(used).view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Copied(Sent):
    """One whose bytes travel with the message: a small one, or any where there is no more shared memory.

    Args:
        shape: its shape.
        dtype: its precision.
        content: the bytes.
    """

    content: bytes

    def take(self) -> Tensor:
        """See `Sent.take`."""
        if not self.content:
            return torch.empty(self.shape, dtype=self.dtype)
        return torch.frombuffer(bytearray(self.content), dtype=self.dtype).view(self.shape)


def packed(tensor: Tensor | None, memory: SharedMemory) -> Tensor | Sent | None:
    """What to send in place of a tensor."""
    if tensor is None or (lent := memory.lend(tensor)) is not None:
        return None if tensor is None else lent
    if tensor.nbytes >= memory.smallest and (shared := memory.share(tensor)) is not None:
        return shared
    return Copied(tuple(tensor.shape), tensor.dtype, tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def unpacked(sent: Tensor | Sent | None) -> Tensor | None:
    """The tensor that was sent."""
    return sent.take() if isinstance(sent, Sent) else sent


def _give_back(whole: Tensor, process: int) -> None:
    if os.getpid() == process:  # a fork's copy of the tensor says nothing of the main process
        whole[0] = 0
