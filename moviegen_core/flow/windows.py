"""Overlapping windows along time and their blending: TAE tiling, MultiDiffusion and audio extension share them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_core.errors import UsageError

Shape = Literal["linear", "triangular", "uniform"]


@dataclass(frozen=True)
class Window:
    """A stretch of time.

    Args:
        start: first position.
        stop: one past the last position.
        skipped: positions of the full window that would lie before the beginning of everything; `start` is then 0.
    """

    start: int
    stop: int
    skipped: int = 0

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
        UsageError: the overlap does not leave any progress.

    A window that the beginning or the end of everything cuts keeps the weights that a full one has there. The Bartlett window is 0 at both
    of its ends, so the ends of everything, and the seams of windows that share no more than one position, have only weights of 0; there all
    windows that cover the position count alike. Everywhere else its zeros are zeros.
    """

    def __init__(self, *, size: int, overlap: int = 0, shape: Shape = "linear") -> None:
        if size < 1 or not 0 <= overlap < size:
            raise UsageError(
                f"windows of size {size} with overlap {overlap} were asked for",
                "size is at least 1 and 0 <= overlap < size",
                f"give e.g. an overlap of {max(0, size // 4)}" if size >= 1 else "give a size such as 32",
            )
        self.size = size
        self.overlap = overlap
        self.shape = shape

    def __call__(self, length: int) -> list[Window]:
        """The windows that cover `length` positions in order; the last one is shorter where the length does not fit."""
        hop = self.size - self.overlap
        starts = range(0, max(1, length - self.overlap), hop)
        return [Window(start, min(start + self.size, length)) for start in starts]

    def weights(self, window: Window, length: int) -> Float[Tensor, " t"]:
        """Weights m̂ of one window, not yet normalised over windows; linear ramps are left out at the ends of the whole length."""
        if self.shape == "uniform":
            return torch.ones(window.size)
        if self.shape == "triangular":
            return bartlett(self.size)[window.skipped : window.skipped + window.size]
        position = torch.arange(window.size, dtype=torch.float32)
        weights = torch.ones(window.size)
        if window.start > 0:
            ramp = min(self.overlap, window.size)
            weights[:ramp] = position[:ramp] / max(ramp, 1)
        if window.stop < length and self.overlap:
            weights[-self.overlap :] = torch.minimum(weights[-self.overlap :], 1.0 - position[: self.overlap] / self.overlap)
        return weights

    def masks(self, length: int) -> list[Float[Tensor, " t"]]:
        """Weights m of all windows in order, normalised so that at every position they sum to one."""
        windows = self(length)
        weights = [self.weights(window, length) for window in windows]
        total = _added(windows, weights, length)
        weights = [weight.where(total[window.start : window.stop] > 0, 1.0) for window, weight in zip(windows, weights, strict=True)]
        total = _added(windows, weights, length)
        return [weight / total[window.start : window.stop] for window, weight in zip(windows, weights, strict=True)]

    def blend(self, parts: Sequence[Tensor], length: int, *, dim: int) -> Tensor:
        """Weighted average of the parts computed on each window, along dimension `dim`."""
        windows = self(length)
        assert len(parts) == len(windows), f"{len(parts)} parts for {len(windows)} windows"
        shape = list(parts[0].shape)
        shape[dim] = length
        total = parts[0].new_zeros(shape)
        for window, mask, part in zip(windows, self.masks(length), parts, strict=True):
            total.narrow(dim, window.start, window.size).add_(part * _along(mask, part, dim))
        return total

    def stream(self, parts: Iterator[Tensor], length: int, *, dim: int) -> Iterator[Tensor]:
        """Blend parts as they come, holding one overlap at a time; yields finished stretches whose concatenation is `blend`.

        Only for overlaps of at most half a window, where no position belongs to three windows.
        """
        assert 2 * self.overlap <= self.size, "streaming needs overlaps of at most half a window"
        tail = None
        windows = self(length)
        for index, (window, mask, part) in enumerate(zip(windows, self.masks(length), parts, strict=True)):
            weighted = part * _along(mask, part, dim)
            if tail is not None:
                weighted.narrow(dim, 0, tail.shape[dim]).add_(tail)
            keep = window.size if index + 1 == len(windows) else windows[index + 1].start - window.start
            yield weighted.narrow(dim, 0, keep).contiguous()
            tail = weighted.narrow(dim, keep, window.size - keep)


class Segments(Windows):
    """The paper's segmentation for extension (6.1.5): the ends of the windows are multiples of the hop.

    J = ⌈N / n_hop⌉ segments; segment j of 1..J is [max(0, (j − 1)·n_hop − n_ctx), min(N, j·n_hop)], so the first has no context and is
    n_hop long. Figure 29's example: windows of 20, overlaps of 5 and 30 positions give [0, 15] and [10, 30]. Arguments are those of
    `Windows`: `size` is n_win, `overlap` is n_ctx, and n_hop is their difference.
    """

    def __call__(self, length: int) -> list[Window]:
        """The segments that cover `length` positions in order; the first is without context, the last ends with the length."""
        hop = self.size - self.overlap
        starts = range(-self.overlap, max(1, length) - self.overlap, hop)
        return [Window(max(0, start), min(start + self.size, length), skipped=max(0, -start)) for start in starts]


def bartlett(size: int) -> Float[Tensor, " t"]:
    """The triangular window of 6.1.5: m̂_n = 2/(n_win − 1) · ((n_win − 1)/2 − |n − (n_win − 1)/2|), zero at both ends.

    Args:
        size: number of weights n_win; a window of one position has the weight 1.
    """
    if size == 1:
        return torch.ones(1)
    middle = 0.5 * (size - 1)
    return 1.0 - (torch.arange(size, dtype=torch.float32) - middle).abs() / middle


def _added(windows: Sequence[Window], weights: Sequence[Tensor], length: int) -> Tensor:
    total = torch.zeros(length)
    for window, weight in zip(windows, weights, strict=True):
        total[window.start : window.stop] += weight
    return total


def _along(mask: Tensor, like: Tensor, dim: int) -> Tensor:
    return mask.to(like).view(-1, *[1] * (like.ndim - dim - 1))
