"""Where pixels go: cover a bucket, crop the middle, bytes to floats. Pixels are float in [-1, 1], (3, t, h, w)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

_MINUS_ONE = torch.tensor([-1.0])
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Placement:
    """How a picture covers a smaller window.

    Args:
        scaled_height: rows after scaling.
        scaled_width: columns after scaling.
        top: first row of the window.
        left: first column of the window.
        height: rows of the window.
        width: columns of the window.
    """

    scaled_height: int
    scaled_width: int
    top: int
    left: int
    height: int
    width: int


def cover(height: int, width: int, wanted_height: int, wanted_width: int) -> Placement:
    """Scale by one factor until the wanted window is covered, then take its middle."""
    factor = max(wanted_height / height, wanted_width / width)
    scaled_height = max(wanted_height, round(height * factor))
    scaled_width = max(wanted_width, round(width * factor))
    return Placement(
        scaled_height, scaled_width, (scaled_height - wanted_height) // 2, (scaled_width - wanted_width) // 2, wanted_height, wanted_width
    )


def write_pixels(planes: Sequence[UInt8[np.ndarray, "h w"]], out: Shaped[Tensor, "3 h w"], quarter_turns: int = 0) -> None:
    """Write red, green and blue bytes, turned counter-clockwise by quarter turns: as floats in [-1, 1], or as they are into bytes."""
    target = out.numpy()
    for channel, plane in enumerate(planes):
        np.copyto(target[channel], np.rot90(plane, quarter_turns) if quarter_turns else plane)
    if out.is_floating_point():
        _scale(out)


def to_floats(pixels: UInt8[Tensor, "..."], out: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Write bytes as floats in [-1, 1], the very ones that `write_pixels` writes; both are contiguous and of one shape."""
    for part, floats in zip(pixels.view(-1).split(_CHUNK), out.view(-1).split(_CHUNK), strict=True):
        _scale(floats.copy_(part))
    return out


def floats_of(pixels: UInt8[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Bytes as floats in [-1, 1], on the device where they are."""
    if pixels.device.type == "cpu":
        return to_floats(pixels, torch.empty(pixels.shape))
    return torch.add(_MINUS_ONE.to(pixels.device), pixels.float(), alpha=2.0 / 255.0)


def _scale(pixels: Float[Tensor, "..."]) -> None:
    # Converting first and scaling in place is the fastest of torch's ways; both passes stay in the cache.
    torch.add(_MINUS_ONE, pixels, alpha=2.0 / 255.0, out=pixels)
