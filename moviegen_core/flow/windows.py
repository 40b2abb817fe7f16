"""Overlapping windows along time and their blending: TAE tiling, MultiDiffusion and audio extension share them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Shape = Literal["linear", "triangular", "uniform"]


@dataclass(frozen=True)
class Window:
    """A stretch of time.

    Args:
        start: first position.
        stop: one past the last position.
    """

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.stop - self.start


class Windows:
    """Cuts a length into overlapping windows and blends what was computed on each.

    Args:
        size: positions in a window, at least 1.
        overlap: positions shared by neighbours, from 0 to size − 1.
        shape: weights inside a window: `linear` ramps over the overlaps only (3.1.1: w_j = j/N), `triangular` is a Bartlett window
            (6.1.5), `uniform` averages.

    Raises:
        ValueError: the overlap does not leave any progress.
    """

    def __init__(self, *, size: int, overlap: int = 0, shape: Shape = "linear") -> None:
        if size < 1 or not 0 <= overlap < size:
            raise ValueError(f"windows of size {size} with overlap {overlap} were asked for; size is at least 1 and 0 <= overlap < size")
        self.size = size
        self.overlap = overlap
        self.shape = shape

    def __call__(self, length: int) -> list[Window]:
        """The windows that cover `length` positions in order; the last one is shorter where the length does not fit."""
        hop = self.size - self.overlap
        starts = range(0, max(1, length - self.overlap), hop)
        return [Window(start, min(start + self.size, length)) for start in starts]

    def weights(self, window: Window, length: int) -> Float[Tensor, " t"]:
        """Weights of one window, not yet normalised over windows; the outer ends of the whole length are never ramped down."""
        if self.shape == "uniform":
            return torch.ones(window.size)
        position = torch.arange(window.size, dtype=torch.float32)
        if self.shape == "triangular":
            middle = 0.5 * (window.size - 1)
            return 1.0 - (position - middle).abs() / (middle + 1.0)
        weights = torch.ones(window.size)
        if window.start > 0:
            ramp = min(self.overlap, window.size)
            weights[:ramp] = position[:ramp] / max(ramp, 1)
        if window.stop < length and self.overlap:
            weights[-self.overlap :] = torch.minimum(weights[-self.overlap :], 1.0 - position[: self.overlap] / self.overlap)
        return weights

    def blend(self, parts: Sequence[Tensor], length: int, *, dim: int) -> Tensor:
        """Weighted average of the parts computed on each window, along dimension `dim`."""
        windows = self(length)
        assert len(parts) == len(windows), f"{len(parts)} parts for {len(windows)} windows"
        shape = list(parts[0].shape)
        shape[dim] = length
        total = parts[0].new_zeros(shape)
        norm = torch.zeros(length, device=total.device)
        for window, part in zip(windows, parts, strict=True):
            weights = self.weights(window, length).to(total.device)
            broadcast = weights.view(-1, *[1] * (total.ndim - dim - 1)).to(total.dtype)
            total.narrow(dim, window.start, window.size).add_(part * broadcast)
            norm[window.start : window.stop] += weights
        return total / norm.view(-1, *[1] * (total.ndim - dim - 1)).to(total.dtype)

    def stream(self, parts: Iterator[Tensor], length: int, *, dim: int) -> Iterator[Tensor]:
        """Blend parts as they come, holding one overlap at a time; yields finished stretches whose concatenation is `blend`.

        Only for overlaps of at most half a window, where no position belongs to three windows.
        """
        assert 2 * self.overlap <= self.size, "streaming needs overlaps of at most half a window"
        tail, tail_norm = None, None
        windows = self(length)
        for index, (window, part) in enumerate(zip(windows, parts, strict=True)):
            weights = self.weights(window, length).to(part.device)
            shape = (-1, *[1] * (part.ndim - dim - 1))
            weighted = part * weights.view(shape).to(part.dtype)
            if tail is not None:
                weighted.narrow(dim, 0, tail.shape[dim]).add_(tail)
                weights[: tail.shape[dim]] += tail_norm
            keep = window.size if index + 1 == len(windows) else windows[index + 1].start - window.start
            yield weighted.narrow(dim, 0, keep) / weights[:keep].view(shape).to(part.dtype)
            tail, tail_norm = weighted.narrow(dim, keep, window.size - keep), weights[keep:]
