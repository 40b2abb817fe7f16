"""Where an object is, and how large, at each moment of a clip."""

import numpy as np

from moviegen_data.toyworld.scene import EXTENT, GROWTH, ObjectSpec

BOUNCE_PERIOD_S = 2.0
TRAVELS = ("left", "right", "up", "down")


def count_bounces(duration_s: float) -> int:
    """How many times a bouncing object touches the floor in a clip: about every two seconds, at least once."""
    return max(1, int(duration_s / BOUNCE_PERIOD_S + 0.5))


def trace(item: ObjectSpec, times: np.ndarray, *, width: float = 1.0, height: float = 1.0, bounces: int = 1) -> np.ndarray:
    """Centre and radius of an object at `times` in [0, 1] of the clip: (t, 3) in units of `radius`, x to the right and y downward.

    Args:
        item: the object.
        times: moments, 0 the first frame and 1 the last (t,).
        width: the frame's width in units of its shorter side.
        height: the frame's height in units of its shorter side.
        bounces: touches of the floor in the clip at a pace of 1.
    """
    radii = np.full(len(times), item.radius)
    if item.motion == "grow":
        radii = item.radius * (GROWTH[0] + (GROWTH[1] - GROWTH[0]) * times)
    margin = EXTENT[item.shape] * radii.max()
    room_x, room_y = max(width - 2 * margin, 0.0), max(height - 2 * margin, 0.0)
    gone = np.minimum(times / item.arrival, 1.0)
    fallen = _fall(times * (bounces * item.pace) + item.phase)
    along = {"left": 1 - gone, "right": gone, "up": 1 - gone, "down": gone, "bounce": fallen}.get(item.motion)
    x, y = np.full(len(times), item.x * room_x), np.full(len(times), item.y * room_y)
    if item.motion in ("left", "right"):
        x = room_x * (item.x * (1 - item.reach) + item.reach * along)
    elif along is not None:
        y = room_y * (item.y * (1 - item.reach) + item.reach * along)
    return np.stack([x + margin, y + margin, radii], axis=1)


def keep_apart(first: ObjectSpec, second: ObjectSpec, *, gap: float = 0.03, num_moments: int = 17) -> bool:
    """True when two objects never come nearer than `gap` in a square clip, as far as the moments that are looked at show."""
    times = np.linspace(0.0, 1.0, num_moments)
    a, b = trace(first, times), trace(second, times)
    near = EXTENT[first.shape] * a[:, 2] + EXTENT[second.shape] * b[:, 2] + gap
    return bool((np.maximum(abs(a[:, 0] - b[:, 0]), abs(a[:, 1] - b[:, 1])) >= near).all())


def _fall(phase: np.ndarray) -> np.ndarray:
    """Depth of a bouncing object, 0 at its highest and 1 on the floor; it falls from rest, touches at half a period and returns."""
    return (1 - abs(2 * (phase % 1.0) - 1)) ** 2
