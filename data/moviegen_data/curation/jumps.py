"""What a jump from one frame to the next is: a cut, a flash, or a camera that is thrown about."""

import numpy as np
from jaxtyping import UInt8

from moviegen_data.curation.cells import changed_share, difference, displaced_likeness, without_bars
from moviegen_data.curation.measures import Measures

_NEIGHBOURS = 3  # frames before and after a jump that it is compared with
_BACK = 0.15  # of the jump; a picture so near to the one before the jump is that one again, a little later
_SAME = 0.8  # correlation of two pictures, one of them displaced, from which they show the same
_UNSTEADY = 0.5  # of the jump; where frames beside it change so much, all is in motion
_LEAST_SCORE = 2.0  # of scdet; what changes less can hardly be seen
_SUDDEN = 1.5  # times the change of the frames around
_CHANGED = 0.5  # share of the cells, also beside the brightness of all


def is_flash(cells: UInt8[np.ndarray, "n h w"], row: int) -> bool:
    """Whether the picture before a row is back within three frames, or that of the row was there three frames before."""
    jump = difference(cells[row], cells[row - 1])
    back = [difference(cells[row - 1], cells[later]) for later in range(row + 1, min(row + _NEIGHBOURS, len(cells) - 1) + 1)]
    back += [difference(cells[row], cells[earlier]) for earlier in range(max(0, row - 1 - _NEIGHBOURS), row - 1)]
    return min(back, default=jump) < _BACK * jump


def thrown(measures: Measures, rows: list[int]) -> list[int]:
    """Those of some jumps that are a camera's: the picture is that before at another place, and frames around change about as much."""
    cells = without_bars(measures.cells)
    unsteady = [row for row in rows if _change_around(measures, row) > _UNSTEADY * measures.motion[row]]
    return [row for row in unsteady if displaced_likeness(cells[row - 1], cells[row]) > _SAME]


def dark_cuts(measures: Measures) -> list[int]:
    """Rows of sudden changes of most of the picture into an unlike one, however little scdet says since it is dark or of like shades."""
    cells = without_bars(measures.cells)
    return [int(row) for row in np.flatnonzero(measures.scene_score >= _LEAST_SCORE) if _is_cut(measures, cells, int(row))]


def _is_cut(measures: Measures, cells: UInt8[np.ndarray, "n h w"], row: int) -> bool:
    if measures.motion[row] < _SUDDEN * _change_around(measures, row) or not cells.size:
        return False
    ends = [cells[each].astype(np.float32).ravel() for each in (row - 1, row)]
    changed = min(changed_share(*ends), changed_share(*(each - each.mean() for each in ends)))
    return bool(changed >= _CHANGED) and displaced_likeness(cells[row - 1], cells[row]) < _SAME


def _change_around(measures: Measures, row: int) -> float:
    """The largest change of the frames beside a row; 0 where there is none."""
    beside = np.concatenate([measures.motion[max(0, row - _NEIGHBOURS) : row], measures.motion[row + 1 : row + 1 + _NEIGHBOURS]])
    return float(np.nanmax(beside, initial=0.0))
