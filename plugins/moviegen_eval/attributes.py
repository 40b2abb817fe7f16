"""Naming what a segment is and does: shape by correlation with templates, motion from its track, ground from what is left."""

from functools import cache
from itertools import product

import numpy as np
from scipy import ndimage

from moviegen_data.toyworld import MOTIONS, SHAPES
from moviegen_data.toyworld.renderer import signed_distance
from moviegen_eval.segmentation import Segment

_GRID = 44
_SPAN = 3.0  # the grid's width in units of the square root of the area
_BLURS = (0.0, 1.5, 3.0, 4.5)
_SCALES = (1.0, 0.9, 0.8)  # blur dims what is thin, which makes its area, measured in units of its peak, too large
LEAST_CORRELATION = 0.93
LEAST_TRAVEL = 0.2
LEAST_GROWTH = 1.35
SIZE_BORDER = 0.209
MOST_TINT = 40.0


def read_shape(item: Segment) -> tuple[str, float]:
    """The shape's name, or "none" where no template fits, and a confidence."""
    picture = _normalise(item)
    scores = np.array([_correlate(picture, template) for template in _templates()]).reshape(len(SHAPES), -1).max(1)
    order = np.argsort(-scores)
    best, margin = scores[order[0]], scores[order[0]] - scores[order[1]]
    if best < LEAST_CORRELATION:
        return "none", float(np.clip((LEAST_CORRELATION - best) / 0.1, 0, 1))
    return SHAPES[order[0]], float(np.clip((best - LEAST_CORRELATION) / 0.05, 0, 1) * np.clip(margin / 0.04, 0, 1))


def read_motion(item: Segment, side: int) -> tuple[str, float]:
    """The motion's name and a confidence; "none" for fewer than four frames."""
    num_frames = len(item.area)
    if num_frames < 4:
        return "none", 1.0
    smooth = ndimage.median_filter(item.centre, (3, 1), mode="nearest") / side
    scale = ndimage.median_filter(np.sqrt(item.area), 3, mode="nearest")
    ends = max(1, num_frames // 8)
    first, last = smooth[:ends].mean(0), smooth[-ends:].mean(0)
    dx, dy = last - first
    raw = item.centre[:, 1] / side
    dip = np.sort(raw)[-max(1, num_frames // 12) :].mean() - max(first[1], last[1])
    growth = np.log(max(scale[-ends:].mean(), 1e-6) / max(scale[:ends].mean(), 1e-6)) / np.log(LEAST_GROWTH)
    evidence = {
        "left": -dx / LEAST_TRAVEL,
        "right": dx / LEAST_TRAVEL,
        "up": -dy / LEAST_TRAVEL,
        "down": dy / LEAST_TRAVEL,
        "bounce": dip / LEAST_TRAVEL,
        "grow": growth,
    }
    ranked = sorted(evidence, key=evidence.get, reverse=True)
    best, next_best = evidence[ranked[0]], evidence[ranked[1]]
    if best < 1:
        return "still", float(np.clip(1 - best, 0, 1))
    assert ranked[0] in MOTIONS
    return ranked[0], float(np.clip(best - 1, 0, 1) * np.clip((best - next_best) / best, 0, 1))


def read_size(item: Segment, shape: str, side: int) -> tuple[str, float]:
    """Size, "small" or "large", by the radius that the shape's area implies, and a confidence."""
    if shape == "none":
        return "none", 1.0
    radius = float(np.sqrt(item.area / _unit_area(shape)).mean()) / side
    return ("small" if radius < SIZE_BORDER else "large"), float(np.clip(abs(radius - SIZE_BORDER) / 0.03, 0, 1))


def read_ground(video: np.ndarray, free: np.ndarray) -> tuple[str, float]:
    """The kind of ground in the pixels that are free of objects, and a confidence."""
    seen = free.sum(0)
    known = seen > 0
    if known.mean() < 0.3:
        return "none", 1.0
    tint = np.abs(np.median(video[free], axis=0) - np.median(video[free])).max()
    if tint > MOST_TINT:
        return "none", float(np.clip(tint / MOST_TINT - 1, 0, 1))
    luma = video.mean(-1)
    shade = (luma * free).sum(0) / np.maximum(seen, 1)
    values = shade[known]
    spread = float(values.std())
    if spread < 11:
        level = float(np.median(values))
        kind = "black" if level < 64 else "grey" if level < 184 else "white"
        return kind, float(np.clip(min(abs(level - 64), abs(level - 184)) / 40, 0, 1))
    rows, columns = np.nonzero(known)
    plane = np.stack([rows, columns, np.ones(len(rows))], axis=1)
    residual = values - plane @ np.linalg.lstsq(plane, values, rcond=None)[0]
    flat = 1 - residual.var() / values.var()
    if flat > 0.8:
        return "gradient", float(np.clip((flat - 0.8) / 0.15, 0, 1))
    inner = ndimage.binary_erosion(known, iterations=2)
    blurred = ndimage.gaussian_filter(shade, 0.8)
    gy, gx = (ndimage.sobel(blurred, axis=axis)[inner] for axis in (0, 1))
    xx, yy, xy = (gx * gx).sum(), (gy * gy).sum(), (gx * gy).sum()
    coherence = float(np.hypot(xx - yy, 2 * xy) / max(xx + yy, 1e-6))
    return ("stripes" if coherence > 0.55 else "checker"), float(np.clip(abs(coherence - 0.55) / 0.3, 0, 1))


def _normalise(item: Segment) -> np.ndarray:
    """The matte averaged over frames on a grid centred at the centroid and as large as the root of the area asks for."""
    steps = ((np.arange(_GRID) + 0.5) / _GRID - 0.5) * _SPAN
    pictures = []
    frames = np.flatnonzero(item.present)
    for frame in frames[:: max(1, len(frames) // 12)]:
        scale = np.sqrt(item.area[frame])
        rows, columns = item.centre[frame, 1] + steps * scale - 0.5, item.centre[frame, 0] + steps * scale - 0.5
        grid = np.meshgrid(rows, columns, indexing="ij")
        pictures.append(ndimage.map_coordinates(item.matte[frame], grid, order=1))
    return np.mean(pictures, axis=0)


@cache
def _templates() -> tuple[np.ndarray, ...]:
    """Every shape at every blur, normalised the way a segment is; flat over (shape, scale, blur)."""
    fine = 3
    offsets = ((np.arange(_GRID * fine) + 0.5) / (_GRID * fine) - 0.5) * _SPAN
    pictures = []
    for shape, scale in product(SHAPES, _SCALES):
        radius = scale * _unit_area(shape) ** -0.5
        y = offsets[:, None] + _centroid_y(shape) * radius
        inside = (signed_distance(shape, offsets[None, :], y, radius) < 0).astype(float)
        coverage = inside.reshape(_GRID, fine, _GRID, fine).mean((1, 3))
        pictures += [ndimage.gaussian_filter(coverage, blur) if blur else coverage for blur in _BLURS]
    return tuple(pictures)


@cache
def _unit_area(shape: str) -> float:
    """Area of a shape of radius one."""
    return float(_unit(shape).sum()) * _UNIT_STEP**2


@cache
def _centroid_y(shape: str) -> float:
    """How far below the middle of its box the centroid of a shape of radius one lies."""
    inside = _unit(shape)
    return float((inside.sum(1) * (np.arange(len(inside)) + 0.5)).sum() / inside.sum() * _UNIT_STEP - 1.25)


_UNIT_STEP = 2.5 / 500


def _unit(shape: str) -> np.ndarray:
    offsets = (np.arange(500) + 0.5) * _UNIT_STEP - 1.25
    return signed_distance(shape, *np.broadcast_arrays(offsets[None, :], offsets[:, None]), 1.0) < 0


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9))
