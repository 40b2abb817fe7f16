"""Finding coloured objects on colourless grounds: opponent colours make the matte of an object independent of the pattern behind it."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from moviegen_data.toyworld import COLOURS

# Two axes of colour that brightness does not change.
_OPPONENT = np.array([[2.0, -1.0, -1.0], [0.0, 3.0**0.5, -(3.0**0.5)]], dtype=np.float32) / 6.0**0.5
_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32) @ _OPPONENT.T
_DIRECTIONS = _PALETTE / np.linalg.norm(_PALETTE, axis=1, keepdims=True)

LEAST_CHROMA = 28.0
LEAST_AREA, MOST_AREA = 0.008, 0.45
LEAST_EXPLAINED = 0.6


@dataclass(frozen=True)
class Segment:
    """One object through time.

    Args:
        colour: the palette's name nearest to it.
        colour_confidence: 1 on the palette's hue, 0 halfway to the next.
        matte: how much of each pixel the object covers, about 0 to 1 (t, h, w).
        present: whether the object was found in a frame (t,).
        centre: x and y of its centroid in pixels, gaps filled by interpolation (t, 2).
        area: covered area in pixels, likewise (t,).
        twins: whether a second object of the same colour is there.
    """

    colour: str
    colour_confidence: float
    matte: np.ndarray
    present: np.ndarray
    centre: np.ndarray
    area: np.ndarray
    twins: bool


def segment(video: np.ndarray) -> tuple[list[Segment], np.ndarray]:
    """Find the objects, largest first, and where none of them is: (t, h, w, 3) in 0..255 -> (segments, ground mask (t, h, w))."""
    side = min(video.shape[1:3])
    chroma = video @ _OPPONENT.T
    chroma -= np.median(_border(chroma), axis=0)
    blur = 0.6 * side / 64
    chroma = ndimage.gaussian_filter(chroma, (0, blur, blur, 0))
    strength = np.hypot(chroma[..., 0], chroma[..., 1])
    peak = np.percentile(strength, 99)
    empty = np.ones(video.shape[:3], dtype=bool)
    if peak < LEAST_CHROMA:
        return [], empty
    coloured = strength > 0.4 * peak
    hue = (chroma @ _DIRECTIONS.T).argmax(-1)
    found: list[tuple[Segment, np.ndarray]] = []
    for index, colour in enumerate(COLOURS):
        candidate = _follow(chroma, coloured & (hue == index), colour, index, side)
        if candidate is not None:
            found.append(candidate)
    found.sort(key=lambda pair: -np.median(pair[0].area))
    found = [pair for pair in found if np.median(pair[0].area) > 0.2 * np.median(found[0][0].area)][:2]
    # In noise most of what is coloured belongs to no object.
    explained = sum((mask & coloured).sum() for _, mask in found) / max(coloured.sum(), 1)
    if explained < LEAST_EXPLAINED:
        return [], empty
    return [item for item, _ in found], ~_grow(np.any([mask for _, mask in found], axis=0), 2 + side // 32)


def _follow(chroma: np.ndarray, mask: np.ndarray, colour: str, index: int, side: int) -> tuple[Segment, np.ndarray] | None:
    """One connected piece of a colour through the frames, and all pieces of its size, if they make an object."""
    num_frames = len(mask)
    if mask.sum() < 0.5 * LEAST_AREA * side**2 * num_frames:
        return None
    mean = chroma[mask].mean(0)
    direction = mean / np.linalg.norm(mean)
    projected = chroma @ direction
    matte = projected / np.percentile(projected[mask], 90)
    body = (matte > 0.5) & _grow(mask, 1)
    piece, claimed = np.zeros_like(mask), np.zeros_like(mask)
    present, share, rival = np.zeros(num_frames, dtype=bool), np.zeros(num_frames), np.zeros(num_frames)
    place = None
    for frame in range(num_frames):
        labels, count = ndimage.label(body[frame])
        sizes = np.bincount(labels.ravel(), minlength=2)[1:]
        if sizes.max() < 0.5 * LEAST_AREA * side**2:
            continue
        alike = np.flatnonzero(sizes > 0.4 * sizes.max()) + 1
        centres = np.array(ndimage.center_of_mass(body[frame], labels, alike))
        # Of two alike, the same one is followed through all frames.
        nearest = sizes[alike - 1].argmax() if place is None else np.hypot(*(centres - place).T).argmin()
        place = centres[nearest]
        piece[frame], claimed[frame] = labels == alike[nearest], np.isin(labels, alike)
        present[frame], share[frame], rival[frame] = True, sizes[alike - 1].sum() / sizes.sum(), len(alike) > 1
    twins = present.any() and np.median(rival[present]) > 0.5
    if present.mean() < 0.6 or np.median(share[present]) < 0.45 or (twins and claimed.sum() / piece.sum() > 3):
        return None
    matte = np.clip(matte, 0.0, 1.15) * _grow(piece, 1 + side // 40)
    area, centre = _moments(matte, present)
    if not LEAST_AREA < np.median(area) / side**2 < MOST_AREA:
        return None
    cosine = float(np.clip(direction @ _DIRECTIONS[index], -1, 1))
    confidence = float(np.clip(1 - np.degrees(np.arccos(cosine)) / 30, 0, 1))
    return Segment(colour, confidence, matte, present, centre, area, bool(twins)), claimed


def _moments(matte: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area (t,) and centroid (t, 2) of a matte; frames without the object take their neighbours' values."""
    _, height, width = matte.shape
    area = matte.sum((1, 2))
    safe = np.maximum(area, 1e-6)
    x = (matte.sum(1) @ (np.arange(width) + 0.5)) / safe
    y = (matte.sum(2) @ (np.arange(height) + 0.5)) / safe
    times, known = np.arange(len(matte)), np.flatnonzero(present)
    filled = [np.interp(times, known, values[known]) for values in (area, x, y)]
    return filled[0], np.stack(filled[1:], axis=1)


def _border(frames: np.ndarray) -> np.ndarray:
    """All pixels of the frames' outermost two rows and columns (n, channels)."""
    edges = frames[:, :2], frames[:, -2:], frames[:, :, :2], frames[:, :, -2:]
    return np.concatenate([edge.reshape(-1, frames.shape[-1]) for edge in edges])


def _grow(mask: np.ndarray, distance: int) -> np.ndarray:
    """The mask and what lies within `distance` pixels of it in its frame."""
    return ndimage.maximum_filter(mask, (1, 2 * distance + 1, 2 * distance + 1))
