"""What the tiny pictures of frames, the `cells` of their measures, have in common."""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from moviegen_data.curation.optional import optional

_BAR = 24  # levels (of 255)
_SAMPLED = 2000  # frames that tell where bars are
_CHANGE = 0.25  # of the deviation of a picture's cells from their mean; a cell that differs by more has changed
_FOUND_IN = 0.6  # share of the width and height of a picture's middle, which is looked for in the other: a fifth to each side
_FLAT = 1.0  # levels


def difference(one: UInt8[np.ndarray, "h w"], other: UInt8[np.ndarray, "h w"]) -> float:
    """Mean difference in levels."""
    return float(np.abs(one.astype(np.int16) - other).mean())


def without_bars(cells: UInt8[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w"]:
    """The cells within what is black at the edges all the time, which would make any two pictures alike."""
    lit = cells[:: max(1, len(cells) // _SAMPLED)].max(0) > _BAR
    rows, columns = (np.flatnonzero(lit.any(axis)) for axis in (1, 0))
    return cells[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else cells[:, :0, :0]


def changed_share(one: Float[np.ndarray, "*n c"], other: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, "*n"]:
    """Share of the cells that changed from one picture to another, measured by the contrast of both."""
    deviation = np.sqrt((one.var(-1) + other.var(-1)) / 2) + _FLAT
    return np.mean(np.abs(one - other) > _CHANGE * deviation[..., None], axis=-1)


def displaced_likeness(one: UInt8[np.ndarray, "h w"], other: UInt8[np.ndarray, "h w"]) -> float:
    """Largest correlation of the middle of either picture with a part of the other; NaN where one is too flat or too small to tell."""
    cv2 = optional("cv2", what="comparing pictures")
    height, width = one.shape
    if min(height, width) < 4:
        return float("nan")
    # Twice as large, so that half a cell's displacement is one too.
    pair = [cv2.resize(each.astype(np.float32), (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC) for each in (one, other)]
    rows, columns = (slice(round(size * (1 - _FOUND_IN)), 2 * size - round(size * (1 - _FOUND_IN))) for size in (height, width))
    if min(each[rows, columns].std() for each in pair) < _FLAT:
        return float("nan")
    return max(_best(cv2, pair[0][rows, columns], pair[1]), _best(cv2, pair[1][rows, columns], pair[0]))


def _best(cv2: Any, part: Float[np.ndarray, "h w"], whole: Float[np.ndarray, "H W"]) -> float:
    return float(cv2.matchTemplate(whole, part, cv2.TM_CCOEFF_NORMED).max())
