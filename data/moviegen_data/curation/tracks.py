"""Points that are followed through a film: where they are, and how they move from frame to frame. Needs OpenCV.

Places are from the picture's middle, to the right and downwards, in units of its longer side; n counts points, k steps between frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from moviegen_data.curation.optional import optional

_MIN_SIDE = 32  # pixels; smaller pictures hold too few places that could be told apart
_MAX_POINTS = 200
_WEAKEST = 0.003  # of the strongest corner; a few sharp edges must not hide a soft ground
_BACK_PX = 0.5  # a point that is followed there and back must come home


@dataclass(frozen=True)
class Window:
    """Points that were followed through a few frames.

    Args:
        places: where they begin.
        steps: how far they move from each frame to the next.
        survived: share of the points seen first that could be followed to the end.
    """

    places: Float[np.ndarray, "n 2"]
    steps: Float[np.ndarray, "k n 2"]
    survived: float


def follow(frames: UInt8[np.ndarray, "f h w 3"], *, num_steps: int) -> list[Window]:
    """Follow corners through windows of so many steps, one window after the other; the last may be shorter.

    Args:
        frames: pictures in RGB, evenly spaced in time.
        num_steps: steps between frames in a window.
    """
    if len(frames) < 2 or min(frames.shape[1:3]) < _MIN_SIDE:
        return []
    cv2 = optional("cv2", what="following points")
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    return [_window(cv2, greys[start : start + num_steps + 1]) for start in range(0, len(greys) - 1, num_steps)]


def _window(cv2: Any, greys: Sequence[UInt8[np.ndarray, "h w"]]) -> Window:
    height, width = greys[0].shape
    side = max(height, width)
    corners = cv2.goodFeaturesToTrack(greys[0], _MAX_POINTS, _WEAKEST, max(3.0, side / 40))
    if corners is None:
        return Window(np.empty((0, 2)), np.empty((len(greys) - 1, 0, 2)), 0.0)
    path, alive = [corners.reshape(-1, 1, 2)], np.ones(len(corners), dtype=bool)
    for before, after in zip(greys, greys[1:], strict=False):
        found, there, _ = cv2.calcOpticalFlowPyrLK(before, after, path[-1], None, winSize=(15, 15), maxLevel=3)
        home, back, _ = cv2.calcOpticalFlowPyrLK(after, before, found, None, winSize=(15, 15), maxLevel=3)
        alive &= (there.ravel() > 0) & (back.ravel() > 0) & (np.linalg.norm(home - path[-1], axis=2).ravel() < _BACK_PX)
        alive &= ((found >= 0) & (found <= (width - 1, height - 1))).all(axis=2).ravel()
        path.append(found)
    points = np.stack(path)[:, alive, 0].astype(np.float64)
    middle = np.array([width - 1, height - 1]) / 2
    return Window((points[0] - middle) / side, np.diff(points, axis=0) / side, float(alive.mean()))
