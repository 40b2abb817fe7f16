"""Where one shot ends and the next begins, read from what was measured of every frame."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from moviegen_data.curation.measures import Measures

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


def scenes(measures: Measures, cut_rows: list[int], black_luma: float | None) -> list[Scene]:
    """The scenes between cuts, without black frames and the fades from and to them.

    Args:
        measures: of the frames.
        cut_rows: rows that begin a new shot.
        black_luma: mean brightness (0 to 255) up to which a frame is black; None keeps black frames.
    """
    black = np.zeros(len(measures), bool) if black_luma is None else _with_fades(measures, measures.luma <= black_luma)
    begins = sorted({0, *cut_rows, *(np.flatnonzero(np.diff(black)) + 1).tolist()})
    times_s = [measures.start_s, *measures.times_s[begins[1:]].tolist(), measures.end_s]
    return [Scene(times_s[n], times_s[n + 1]) for n, row in enumerate(begins) if not black[row] and times_s[n + 1] > times_s[n]]


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
