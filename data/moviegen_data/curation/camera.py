"""How the camera moved, from how points of the picture move: rotation and zoom move all depths alike, a travelling camera does not.

Places and lengths are in units of the picture's longer side, velocities in those units per second; x is to the right, y downwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from moviegen_data.curation.tracks import Window

_MIN_POINTS = 12
_NOISE = 0.002  # velocity that following points is off by
_INNER, _OUTER = 0.17, 0.25  # radii: what a camera that follows a subject keeps in the middle, and what it passes


@dataclass(frozen=True)
class Flow:
    """How the picture moves in a window of time.

    Args:
        places: of the points.
        velocities: of the points.
        shift: velocity of the picture's middle.
        growth: rate at which the picture grows.
        rest: velocities but for what one shift, scale, turn and its perspective explain.
        free: velocities but for scale and turn.
        shifts: how far the middle moves from each frame to the next.
        survived: share of points that could be followed.
    """

    places: Float[np.ndarray, "n 2"]
    velocities: Float[np.ndarray, "n 2"]
    shift: Float[np.ndarray, "2"]
    growth: float
    rest: Float[np.ndarray, "n 2"]
    free: Float[np.ndarray, "n 2"]
    shifts: Float[np.ndarray, "k 2"]
    survived: float


def flow_of(window: Window, fps: float) -> Flow | None:
    """Fit a window robustly: what a minority of points does (people, cars) is no motion of the camera. None where points are few."""
    places = window.places
    if len(places) < _MIN_POINTS:
        return None
    velocities = window.steps.sum(axis=0) * fps / len(window.steps)
    design = _design(places)
    ridge = np.diag([0.0, 0.0, 0.0, 0.0, 1e-3, 1e-3]) * len(places)  # few points do not tell perspective
    distance = np.linalg.norm(velocities - np.median(velocities, axis=0), axis=1)
    for _ in range(12):
        weights = 1.0 / (1.0 + (distance / (2.0 * (1.48 * np.median(distance) + _NOISE))) ** 2)
        weighted = design * weights[:, None, None]
        solve = np.linalg.solve(np.einsum("nip,niq->pq", weighted, design) + ridge, weighted.reshape(-1, 6).T)
        parameters = solve @ velocities.reshape(-1)
        rest = velocities - design @ parameters
        distance = np.linalg.norm(rest, axis=1)
    shifts = window.steps.reshape(len(window.steps), -1) @ solve[:2].T
    free = velocities - design[:, :, 2:4] @ parameters[2:4]
    return Flow(places, velocities, parameters[:2], float(parameters[2]), rest, free, shifts, window.survived)


def _design(places: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2 6"]:
    """Velocity by shift (2), scale, turn, and the perspective of a turn to the side and upwards."""
    x, y = places.T
    one, none = np.ones_like(x), np.zeros_like(x)
    return np.stack([[one, none, x, -y, x * x, x * y], [none, one, y, x, x * y, y * y]]).transpose(2, 0, 1)


def likelihoods(flows: Sequence[Flow], fps: float) -> dict[str, float]:
    """How likely each of the paper's 16 classes is (B.2): a tree of soft questions, whose leaves sum to 1.

    Shaken? Moving at all? Towards the middle or away from it, and then at all depths alike (zoom) or not (push, pull)? Near and far in
    opposite directions (arc)? The middle alone at rest (tracking)? Sideways or upwards, at all depths alike (pan, tilt) or not
    (truck, pedestal)?
    """
    handheld, moving = _handheld(flows, fps), _rises(_typical(flows, _outer_speed), 0.008)
    # Where points lie on one side, or near ones left and far ones right, other motions lead away from the middle too: but not in all
    # directions alike, and not growing with the distance.
    radial = _rises(abs(_radial(flows)), 0.6, 8) * _rises(_typical(flows, _growth), 1.0) * _rises(_typical(flows, _isotropy), 0.3, 4)
    arc, tracking = _rises(_typical(flows, _opposed), 0.12), _typical(flows, _followed)
    steady = (1 - handheld) * moving
    lateral = steady * (1 - radial)
    plain = lateral * (1 - arc) * (1 - tracking)
    found = {
        "handheld shot": handheld,
        "static shot": (1 - handheld) * (1 - moving),
        "arc shot": lateral * arc,
        "tracking shot": lateral * (1 - arc) * tracking,
    }
    inwards, deep = _share([_expansion(flow) for flow in flows]), _rises(_typical(flows, _radial_depth), 0.19, 4)
    for name, part in (("zoom", 1 - deep), ("push", deep)):
        found["zoom in" if name == "zoom" else "push in"] = steady * radial * part * inwards
        found["zoom out" if name == "zoom" else "pull out"] = steady * radial * part * (1 - inwards)
    sideways = _sideways(flows)
    # What the camera turns to comes in from there: the picture moves the other way.
    for axis, share, names in ((0, sideways, ("right", "left")), (1, 1 - sideways, ("down", "up"))):
        first = _share([-flow.shift[axis] for flow in flows])
        depth = _rises(_typical(flows, lambda flow, axis=axis: _lateral_depth(flow, axis)), 0.075, 4)
        for direction, part in zip(names, (first, 1 - first), strict=True):
            found[f"{'tilt' if axis else 'pan'} {direction}"] = plain * share * part * (1 - depth)
            found[f"{'pedestal' if axis else 'truck'} {direction}"] = plain * share * part * depth
    return found


def trust(flows: Sequence[Flow | None]) -> float:
    """How far the points are to be trusted: whether there are some all the time, and can be followed."""
    seen = [flow for flow in flows if flow is not None]
    if not seen:
        return 0.0
    spread = np.mean([_rises(float(flow.places.std(axis=0).min()), 0.06) for flow in seen])
    return len(seen) / len(flows) * float(spread) * _rises(float(np.mean([flow.survived for flow in seen])), 0.25, 4)


def _handheld(flows: Sequence[Flow], fps: float) -> float:
    """Shaken, and not on its way to anywhere."""
    steps = np.concatenate([flow.shifts for flow in flows])
    path = np.cumsum(steps, axis=0)
    reach = max(3, 2 * round(0.35 * fps) + 1)
    padded = np.pad(path, ((reach // 2, reach // 2), (0, 0)), mode="reflect", reflect_type="odd") if len(path) > reach // 2 else path
    if len(padded) == len(path):
        return 0.0  # too short to tell
    smooth = np.stack([np.convolve(column, np.full(reach, 1 / reach), mode="valid") for column in padded.T], axis=1)
    shake = float(np.sqrt(((path - smooth) ** 2).sum(axis=1).mean()))
    length = float(np.linalg.norm(steps, axis=1).sum())
    directness = float(np.linalg.norm(path[-1])) / max(length, 1e-9)
    return _rises(shake, 0.0015) * (1 - _rises(directness, 0.5, 4))


def _outer_speed(flow: Flow) -> float:
    speeds = np.linalg.norm(flow.velocities, axis=1)
    outer = np.linalg.norm(flow.places, axis=1) > _OUTER
    return float(np.median(speeds[outer] if outer.sum() >= 5 else speeds))


def _radial(flows: Sequence[Flow]) -> float:
    """Share of all motion that leads away from the middle (1) or towards it (-1)."""
    outwards = sum(float((flow.velocities * _directions(flow.places)).sum()) for flow in flows)
    return outwards / max(sum(float(np.linalg.norm(flow.velocities, axis=1).sum()) for flow in flows), 1e-9)


def _growth(flow: Flow) -> float:
    """Typical velocity by growth, beside that by shift."""
    radius = float(np.sqrt((flow.places**2).sum(axis=1).mean()))
    return abs(flow.growth) * radius / max(float(np.linalg.norm(flow.shift)), _NOISE)


def _isotropy(flow: Flow) -> float:
    """How alike rows and columns grow: 1 where they do, 0 where one of them shrinks or stays."""
    growths = ((flow.velocities - flow.shift) * flow.places).sum(axis=0) / np.maximum((flow.places**2).sum(axis=0), 1e-9)
    less, more = sorted(abs(growths))
    return float(less / max(more, 1e-9)) if growths[0] * growths[1] > 0 else 0.0


def _expansion(flow: Flow) -> float:
    return float((flow.velocities * flow.places).sum() / max((flow.places**2).sum(), 1e-9))


def _radial_depth(flow: Flow) -> float:
    """How much the rate of growth differs between points, beside how much it would by noise alone."""
    radius = np.linalg.norm(flow.places, axis=1)
    far = radius > 0.15  # near the middle the rate is mostly noise
    if far.sum() < 5:
        return 0.0
    out = _directions(flow.places[far])
    rates = (flow.velocities[far] * out).sum(axis=1) / radius[far]
    turns = (flow.velocities[far, 1] * out[:, 0] - flow.velocities[far, 0] * out[:, 1]) / radius[far]
    return _excess(rates, turns) / max(abs(float(np.median(rates))), _NOISE)


def _lateral_depth(flow: Flow, axis: int) -> float:
    """How much the velocity along an axis differs between points, beside how much it does across."""
    return _excess(flow.rest[:, axis], flow.rest[:, 1 - axis]) / max(abs(float(flow.shift[axis])), _NOISE)


def _opposed(flow: Flow) -> float:
    """Share of the moving points that go against the others along the main axis."""
    along = flow.free[:, _axis(flow)]
    across = flow.free[:, 1 - _axis(flow)]
    least = max(0.3 * float(np.percentile(np.abs(along), 80)), 2 * _NOISE)
    one, other = int((along > least).sum()), int((along < -least).sum())
    is_clean = _rises(float(np.sqrt((along**2).mean() / max((across**2).mean(), _NOISE**2))), 2.0)
    return min(one, other) / max(one + other, 1) * is_clean


def _followed(flow: Flow) -> float:
    """Whether the middle rests while all around passes by in one direction."""
    radius = np.linalg.norm(flow.places, axis=1)
    inner, outer = flow.velocities[radius < _INNER], flow.velocities[radius > _OUTER]
    if len(inner) < 4 or len(outer) < 4:
        return 0.0
    passing = np.linalg.norm(outer, axis=1)
    one_way = float(np.linalg.norm(outer.mean(axis=0)) / max(passing.mean(), 1e-9))
    at_rest = float((np.linalg.norm(inner, axis=1) < 0.25 * np.median(passing)).mean())
    return _rises(at_rest, 0.45, 6) * _rises(one_way, 0.7, 8)


def _sideways(flows: Sequence[Flow]) -> float:
    energy = sum((flow.free**2).sum(axis=0) for flow in flows)
    return float(energy[0] ** 2 / max((energy**2).sum(), 1e-12))


def _axis(flow: Flow) -> int:
    return int(np.argmax((flow.free**2).sum(axis=0)))


def _directions(places: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    return places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-9)


def _excess(values: Float[np.ndarray, "n"], noise: Float[np.ndarray, "n"]) -> float:
    """Spread of the one beyond that of the other, both of the middle four fifths."""
    one, other = (float(np.diff(np.percentile(each, [10, 90]))[0]) / 2.56 for each in (values, noise))
    return float(np.sqrt(max(0.0, one**2 - other**2)))


def _share(values: Sequence[float]) -> float:
    """Share of the positive ones in the sum of all sizes; half where there is nothing."""
    above, below = sum(max(0.0, value) for value in values), sum(max(0.0, -value) for value in values)
    return float((above + 1e-6) / (above + below + 2e-6))


def _typical(flows: Sequence[Flow], measure: Callable[[Flow], float]) -> float:
    return float(np.median([measure(flow) for flow in flows]))


def _rises(value: float, half: float, steepness: float = 3.0) -> float:
    """From 0 to 1 as a value grows from 0; a half at `half`."""
    return 0.0 if value <= 0 else float(1.0 / (1.0 + (half / value) ** steepness))
