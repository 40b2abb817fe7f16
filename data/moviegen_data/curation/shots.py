"""Where one shot ends and the next begins, read from what was measured of every frame."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from moviegen_data.curation.dissolves import find_dissolves
from moviegen_data.curation.measures import Measures

_LIT = 2.0  # times as bright as a black frame may be on average; a cell of the tiny picture that is brighter is lit
_MOST_LIT = 0.1  # share of the cells; a drawing on black, or lamps at night, have more
_FADE_S = 1.5  # longer brightening is not a fade
_FADE_STEP = 0.5  # levels (of 255) per frame by which a fade's brightness moves at least
_JUMP = 25.0  # what moves further is a cut


@dataclass(frozen=True)
class Scene:
    """A stretch without a cut.

    Args:
        start_s: where it begins in the medium.
        end_s: where it ends.
    """

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return self.end_s - self.start_s


def cuts(scores: Float[np.ndarray, "n"], times_s: Float[np.ndarray, "n"], threshold: float, min_shot_s: float = 0.0) -> list[int]:
    """Rows whose score reaches a threshold, so that a new shot begins with them; NaN reaches none.

    Args:
        scores: one score per frame.
        times_s: when the frames come.
        threshold: least score of a cut.
        min_shot_s: what follows the beginning or a cut sooner is not counted.
    """
    found: list[int] = []
    before_s = float(times_s[0])
    for row in np.flatnonzero(scores >= threshold):
        if times_s[row] - before_s >= min_shot_s - 1e-6:
            found.append(int(row))
            before_s = float(times_s[row])
    return found


def scenes(measures: Measures, cut_rows: list[int], black_luma: float | None, *, dissolves: bool = False) -> list[Scene]:
    """The scenes between cuts, without black frames, the fades from and to them, and dissolves.

    Args:
        measures: of the frames.
        cut_rows: rows that begin a new shot.
        black_luma: mean brightness (0 to 255) up to which a frame is black, if hardly a part of it is lit; None keeps black frames.
        dissolves: whether dissolves are looked for; their frames are part of no scene.
    """
    outside = np.zeros(len(measures), bool) if black_luma is None else _with_fades(measures, _black(measures, black_luma))
    if dissolves:
        begins = np.zeros(len(measures), int)
        begins[[*cut_rows, *(np.flatnonzero(np.diff(outside)) + 1)]] = 1
        shots = np.where(outside, -1, np.cumsum(begins))
        for first, last in find_dissolves(measures, shots):
            outside[first : last + 1] = True
    rows = sorted({0, *cut_rows, *(np.flatnonzero(np.diff(outside)) + 1).tolist()})
    times_s = [measures.start_s, *measures.times_s[rows[1:]].tolist(), measures.end_s]
    return [Scene(times_s[n], times_s[n + 1]) for n, row in enumerate(rows) if not outside[row] and times_s[n + 1] > times_s[n]]


def _black(measures: Measures, black_luma: float) -> Bool[np.ndarray, "n"]:
    """Frames that are dark on average, in stretches of which one is dark nearly everywhere."""
    dark = measures.luma <= black_luma
    begins = np.concatenate([[0], np.flatnonzero(np.diff(dark)) + 1])
    least_lit = np.minimum.reduceat((measures.cells > _LIT * black_luma).mean((1, 2)), begins)
    return dark & np.repeat(least_lit <= _MOST_LIT, np.diff(begins, append=len(dark)))


def _with_fades(measures: Measures, black: Bool[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Black frames, and their neighbours for as long as these get steadily brighter away from them."""
    faded = black.copy()
    for edge in np.flatnonzero(np.diff(black)):
        row, step = (int(edge) + 1, 1) if black[edge] else (int(edge), -1)
        first = row
        while 0 <= row < len(black) and not black[row] and abs(measures.times_s[row] - measures.times_s[first]) <= _FADE_S:
            brighter = float(measures.luma[row] - measures.luma[row - step])
            if not _FADE_STEP <= brighter <= _JUMP:
                break
            faded[row] = True
            row += step
    return faded
