"""Dissolves: stretches in which one picture turns into another that is unlike it, each between them a mix of both."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from moviegen_data.curation.cells import changed_share, without_bars
from moviegen_data.curation.measures import Measures

# How long the windows are in which a dissolve of 0.2 to 2 s is looked for; one that is longer than the dissolve will do.
_WINDOWS_S = (0.24, 0.4, 0.64, 1.0, 1.6, 2.4)
_PLACES = (-0.5, -0.25, 0.0, 0.25, 0.5)  # of a window's length from its middle, at which pictures are compared
_CONTRAST = 6.0  # levels (of 255) by which the cells of both ends deviate at least; what comes from a plain picture is a fade
_RESHAPED = 0.5  # share of the cells that change at least beside the brightness of all, as they do not where a thing moves as light changes
_LEAST_PART = 0.15  # of either end in the middle
_STEEPEST = 0.6  # of the way within a quarter of the window; a cut's is 1
# What speaks for a dissolve and against it, and how much is enough; fitted by mixes of real shots, pans, zooms, shaking, changes of light.
_EXPLAINED, _CHANGED, _ALIKE, _EXCESS, _OFF, _ENOUGH = 1.0, 2.5, 1.3, 1.4, 1.5, 2.35
_SLOW_ENDS = 1.3  # as much longer is what is left out than a straight dissolve, since others begin and end slowly
_BLOCK = 4096  # windows at once
_EPSILON_S = 1e-3

Rows = Int[np.ndarray, "w"]
Values = Float[np.ndarray, "w"]
Cells = UInt8[np.ndarray, "n c"]


def find_dissolves(measures: Measures, shots: Rows) -> list[tuple[int, int]]:
    """First and last row of each dissolve, in order of time.

    Args:
        measures: of the frames.
        shots: the number of each frame's shot, from 0; negative for black frames. No dissolve reaches over a cut or a fade.
    """
    cells = without_bars(measures.cells).reshape(len(measures), -1)
    if not cells.size:
        return []
    windows = [_windows(cells, measures.times_s, shots, length_s) for length_s in _WINDOWS_S]
    evidence, way, first, last = (np.concatenate(column) for column in zip(*windows, strict=True))
    found: list[tuple[int, int]] = []
    taken = np.zeros(len(measures), bool)
    for best in np.argsort(-evidence, kind="stable"):
        if not taken[first[best] : last[best] + 1].any():
            middle = (first[best] + last[best]) // 2
            longest = np.argmax(np.where((first <= middle) & (middle <= last), way, -1.0))  # of those that see it, one that sees all of it
            seen = [_ends(cells, measures.times_s, shots, int(first[window]), int(last[window])) for window in (longest, best)]
            seen.append((int(first[best]), int(last[best])))
            found.append(next(ends for ends in seen if ends[0] <= middle <= ends[1]))  # a longer window may see another one
            taken[found[-1][0] : found[-1][1] + 1] = True
    return sorted(found)


def _windows(cells: Cells, times: Values, shots: Rows, length_s: float) -> tuple[Values, Values, Rows, Rows]:
    """The windows of one length that hold a dissolve: evidence, how far the ends are from each other, first and last row."""
    found = [(np.zeros(0), np.zeros(0), np.zeros(0, int), np.zeros(0, int))]
    for start in range(0, len(times), _BLOCK):
        middles = times[start : start + _BLOCK]
        places = np.stack([np.searchsorted(times, middles + share * length_s - _EPSILON_S) for share in _PLACES])
        places = places[:, (middles - length_s / 2 > times[0] - 2 * _EPSILON_S) & (places[-1] < len(times))]
        places = places[:, (shots[places[0]] == shots[places[-1]]) & (shots[places[0]] >= 0)]
        if places.size:
            start_row, end_row = int(places[0, 0]), int(places[-1, -1]) + 1
            evidence, way = _evidence(cells[start_row:end_row].astype(np.float32), places - start_row)
            enough = evidence > _ENOUGH
            found.append((evidence[enough], way[enough], places[0, enough], places[-1, enough]))
    evidence, way, first, last = (np.concatenate(column) for column in zip(*found, strict=True))
    return evidence, way, first, last


def _evidence(cells: Float[np.ndarray, "n c"], places: Int[np.ndarray, "5 w"]) -> tuple[Values, Values]:
    """What speaks for a dissolve in windows given by the rows of their ends and quarters, and how far the ends are from each other.

    For it speaks that most of the picture changes, and that the middle is explained by the ends. Against it, that the ends are alike, as in
    slow pans and where the light changes; that there is more contrast on the way than in a mix, which for unlike pictures has half that of
    either, while what moves keeps its own; and that the way is brighter or darker than the mix.
    """
    pictures = _Pictures(cells)
    evidence = np.full(places.shape[1], -np.inf)
    first, last, both = pictures.contrast[places[0]], pictures.contrast[places[-1]], pictures.product(places[0], places[-1])
    way, alike = first + last - 2 * both, np.maximum(both / np.sqrt(first * last), 0.0)
    able = np.flatnonzero((np.minimum(first, last) > _CONTRAST**2) & (_EXPLAINED + _CHANGED - _ALIKE * alike > _ENOUGH))
    places = places[:, able]
    mixes = [pictures.mix(place, places[0], places[-1]) for place in places[1:-1]]
    zero = np.zeros(len(able))
    parts = np.stack([(zero + 1, zero), *((mix.of_first, mix.of_last) for mix in mixes), (zero, zero + 1)])
    falls, rises = -np.diff(parts[:, 0], axis=0), np.diff(parts[:, 1], axis=0)
    steady = (falls > 0).all(0) & (rises > 0).all(0) & ((falls + rises) / 2 < _STEEPEST).all(0)
    steady &= parts[2].min(0) > _LEAST_PART
    against = _ALIKE * alike[able] + _EXCESS * np.max([mix.excess for mix in mixes], 0) + _OFF * np.max([mix.off for mix in mixes], 0)
    ends = cells[places[0]], cells[places[-1]]
    changed, reshaped = changed_share(*ends), changed_share(*(each - each.mean(1, keepdims=True) for each in ends))
    evidence[able] = np.where(steady & (reshaped >= _RESHAPED), _EXPLAINED * mixes[1].explained + _CHANGED * changed - against, -np.inf)
    return evidence, way


class _Mix(NamedTuple):
    """How pictures are made of two others, by least squares.

    Args:
        of_first: weight of the first.
        of_last: weight of the last.
        explained: share of the contrast, 0 to 1.
        excess: by how much the contrast is larger than that of a mix of both, as a share of this.
        off: by how much the mean brightness is off that of the mix, as a share of the contrast of both.
    """

    of_first: Values
    of_last: Values
    explained: Values
    excess: Values
    off: Values


class _Pictures:
    """The deviations of the cells of pictures from their mean, and what pictures have in common."""

    def __init__(self, cells: Float[np.ndarray, "n c"]) -> None:
        self.means = cells.mean(1)
        self.deviations = (cells - self.means[:, None]) / np.float32(np.sqrt(cells.shape[1]))  # whose squares add up to the variance
        self.contrast = np.einsum("nc,nc->n", self.deviations, self.deviations) + 1e-3

    def product(self, one: Rows, other: Rows) -> Values:
        return np.einsum("nc,nc->n", self.deviations[one], self.deviations[other])

    def mix(self, rows: Rows, first: Rows, last: Rows) -> _Mix:
        of_both, by_first, by_last = self.product(first, last), self.product(rows, first), self.product(rows, last)
        own, of_one, of_other = self.contrast[rows], self.contrast[first], self.contrast[last]
        determinant = of_one * of_other - of_both**2 + 1.0
        weight_first = (by_first * of_other - by_last * of_both) / determinant
        weight_last = (by_last * of_one - by_first * of_both) / determinant
        share = np.clip((weight_last + 1.0 - weight_first) / 2, 0.0, 1.0)
        expected = (1 - share) ** 2 * of_one + share**2 * of_other + 2 * share * (1 - share) * of_both
        off = self.means[rows] - (1 - share) * self.means[first] - share * self.means[last]
        return _Mix(
            weight_first,
            weight_last,
            (weight_first * by_first + weight_last * by_last) / own,
            np.maximum((own + 1.0) / (expected + 1.0) - 1.0, 0.0),
            np.abs(off) / np.sqrt(of_one + of_other),
        )


def _ends(cells: Cells, times: Values, shots: Rows, first: int, last: int) -> tuple[int, int]:
    """First and last row of the dissolve in a window: when a quarter and three quarters are done tell how long all takes."""
    pictures = _Pictures(cells[first : last + 1].astype(np.float32)).deviations
    way = pictures[-1] - pictures[0]
    done = np.maximum.accumulate((pictures - pictures[0]) @ way / (way @ way))
    quarter, three = np.interp((0.25, 0.75), done, times[first : last + 1])
    middle, half = (quarter + three) / 2, (three - quarter) * _SLOW_ENDS
    begin, end = np.searchsorted(times, (middle - half, middle + half))
    inside = np.flatnonzero(shots[begin:end] == shots[first])
    return (int(begin + inside[0]), int(begin + inside[-1])) if len(inside) else (first, last)
