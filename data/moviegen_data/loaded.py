"""What a dataset hands to its loader for a plan: a batch, what was skipped on the way to it, or what ends the run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_data.faults import Skip
from moviegen_data.memory import RecycledMemory
from moviegen_data.shared_memory import Lent, SharedMemory, packed, unpacked
from moviegen_data.transforms import to_floats

_TENSORS = ("video", "latents", "fps", "audio")


@dataclass
class LoadedBatch:
    """A batch, and what was skipped on the way to it.

    Args:
        batch: the batch; None where a fixed plan has no good sample for it.
        skips: bad samples that were met.
        pixels: the batch's video as bytes: on the way from a worker they take a quarter of what floats would.
        error: what a worker met that ends the run; raised where batches are handed out, since a worker's own errors lose their kind.
        memory: a worker's memory that tensors may lie in.
        blocks: in the main process the workers' blocks that tensors lie in.
    """

    batch: MediaBatch | None
    skips: list[Skip]
    pixels: UInt8[Tensor, "b 3 t h w"] | None = None
    error: Exception | None = None
    memory: SharedMemory | None = None
    blocks: tuple[Tensor, ...] = ()

    def take(self, memory: RecycledMemory) -> MediaBatch | None:
        """The batch, its pixels as floats."""
        if self.batch is None or self.pixels is None:
            return self.batch
        return replace(self.batch, video=to_floats(self.pixels, memory.empty(*self.pixels.shape)))

    def batch_of_bytes(self) -> MediaBatch | None:
        """The batch, its pixels as bytes."""
        return self.batch if self.batch is None or self.pixels is None else replace(self.batch, video=self.pixels)

    def pin_memory(self) -> "LoadedBatch":
        """Called by the loader where pinned memory was asked for."""
        return self._each(lambda tensor: None if tensor is None else tensor.pin_memory())

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to the main process: large tensors stay where they are, small ones travel with the message."""
        memory, blocks = self.memory or SharedMemory(), []

        def send(tensor: Tensor | None) -> Any:
            sent = packed(tensor, memory)
            blocks.extend([sent.whole] if isinstance(sent, Lent) else [])
            return sent

        return _arrived, (vars(replace(self._each(send), memory=None, blocks=tuple(blocks))),)

    def _each(self, change: Callable[[Any], Any]) -> "LoadedBatch":
        """The same with every tensor changed."""
        if self.batch is None:
            return self
        changed: dict[str, Any] = {name: change(getattr(self.batch, name)) for name in _TENSORS}
        changed["extras"] = {name: change(tensor) for name, tensor in self.batch.extras.items()}
        changed["text"] = {name: TextEmbedding(change(part.tokens), change(part.mask)) for name, part in self.batch.text.items()}
        return replace(self, batch=replace(self.batch, **changed), pixels=change(self.pixels))


def _arrived(fields: dict[str, Any]) -> LoadedBatch:
    return LoadedBatch(**fields)._each(unpacked)
