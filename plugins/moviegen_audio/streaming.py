"""Encoding and decoding piece by piece: memory constant in the length, and the same result as of the whole sound.

A chunk of output is computed from exactly the input that it depends on, which follows from the kernels, strides, dilations and paddings
of the layers. At the two ends of a sound a chunk ends where the sound ends, so that the network pads there as it would for the whole.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_core.errors import UsageError


@dataclass(frozen=True)
class Geometry:
    """Which inputs a convolution's output positions depend on.

    Args:
        kernel_size: taps.
        stride: input positions per output position; of a transposed convolution, output positions per input position.
        dilation: positions between taps.
        padding: positions that are added (of a transposed convolution, dropped) at the start.
        transposed: whether it raises the rate.
    """

    kernel_size: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    transposed: bool = False

    def inputs(self, first: int, last: int) -> tuple[int, int]:
        """First and last input position that outputs `first` to `last` depend on; both may lie outside of the sound."""
        if self.transposed:
            return -(-(first + self.padding - (self.kernel_size - 1)) // self.stride), (last + self.padding) // self.stride
        reach = (self.kernel_size - 1) * self.dilation
        return first * self.stride - self.padding, last * self.stride - self.padding + reach


def receptive_field(layers: Sequence[Geometry], first: int, last: int) -> tuple[int, int]:
    """First and last input position that outputs `first` to `last` of a chain of layers depend on."""
    for layer in reversed(layers):
        first, last = layer.inputs(first, last)
    return first, last


class ChunkedMap:
    """Applies a convolutional network to a sound of any length, chunk by chunk.

    Args:
        layers: the network's layers in order.
        chunk_frames: latent frames of a chunk.
        input_per_frame: positions of the input per latent frame (the hop for an encoder, 1 for a decoder).
        output_per_frame: positions of the output per latent frame (1 for an encoder, the hop for a decoder).

    Raises:
        UsageError: a chunk has no frame.
    """

    def __init__(self, layers: Sequence[Geometry], *, chunk_frames: int, input_per_frame: int, output_per_frame: int) -> None:
        if chunk_frames < 1:
            raise UsageError(f"chunk_frames={chunk_frames} was given", "a chunk has at least one latent frame", "give 1 or more")
        self.layers = tuple(layers)
        self.chunk_frames, self.input_per_frame, self.output_per_frame = chunk_frames, input_per_frame, output_per_frame

    def context(self, frame: int) -> tuple[int, int]:
        """First latent frame, and the one after the last, of what the chunk that begins with `frame` is computed from."""
        first, last = frame * self.output_per_frame, (frame + self.chunk_frames) * self.output_per_frame - 1
        first, last = receptive_field(self.layers, first, last)
        # Whole frames, so that strides meet the same samples as in the whole.
        first, last = first // self.input_per_frame, -(-(last + 1) // self.input_per_frame)
        return max(0, min(first, frame)), max(last, frame + self.chunk_frames)

    def __call__(self, network: Callable[[Tensor], Tensor], whole: Float[Tensor, "b c n"]) -> Float[Tensor, "b d m"]:
        """Apply to a whole input, and join."""
        return torch.cat(list(self.stream(network, [whole])), dim=-1)

    def stream(self, network: Callable[[Tensor], Tensor], pieces: Iterable[Float[Tensor, "b c n"]]) -> Iterator[Tensor]:
        """Yield the outputs of one chunk after the other; of the input, no more than a chunk, its context and one piece is held.

        Args:
            network: the network.
            pieces: successive pieces of the input, of any lengths; together a whole number of latent frames.
        """
        unit, source = self.input_per_frame, iter(pieces)
        held: list[Tensor] = []
        start = frame = 0  # first position held, first latent frame of the next chunk
        end, exhausted = 0, False
        while True:
            first, last = self.context(frame)
            while not exhausted and end < last * unit:
                piece = next(source, None)
                exhausted = piece is None
                if piece is not None and piece.shape[-1]:
                    held.append(piece)
                    end += piece.shape[-1]
            if frame * unit >= end:
                return
            assert not exhausted or end % unit == 0, "the input is no whole number of latent frames"
            joined = torch.cat(held, dim=-1) if len(held) > 1 else held[0]
            joined = joined[..., first * unit - start :]
            start, held = first * unit, [joined]
            count = min(self.chunk_frames, end // unit - frame)
            begin = (frame - first) * self.output_per_frame
            yield network(joined[..., : last * unit - start])[..., begin : begin + count * self.output_per_frame]
            frame += self.chunk_frames
