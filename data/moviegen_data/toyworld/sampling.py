"""Drawing scenes at random, the same on every machine for the same seed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moviegen_core.errors import UsageError
from moviegen_data.toyworld.events import heard_moments
from moviegen_data.toyworld.scene import (
    GROUNDS,
    PLAIN_GROUNDS,
    SIZES,
    WORDS,
    GroundSpec,
    ObjectSpec,
    SceneSpec,
    Split,
    combinations,
)
from moviegen_data.toyworld.tracks import TRAVELS, keep_apart

_CENTRAL_REACH = 0.75  # the least of spread 1: short paths leave more of the frame to the shape, which is what takes longest to learn
_CROWDED = (0.14, 0.16)  # radii of two small objects whose ways leave no room for larger ones
# Varied timing. A bouncing object starts and ends well above the floor, so that a few frames tell a bounce.
_ARRIVALS, _PACES = (0.3, 0.9), (0.75, 1.75)
_IN_THE_AIR, _OFF_THE_FLOOR = (0.28, 0.72), (0.15, 0.85)  # periods from a touch
_BOUNCES = (1, 2, 3)  # in clips of up to seven seconds
_LEAST_PAUSE = 0.15  # between the sounds of two objects, of a clip of one bounce


def sample_scene(
    seed: int,
    *,
    num_objects: int = 1,
    grounds: Sequence[str] = PLAIN_GROUNDS,
    split: Split = "all",
    text_probability: float = 0.0,
    combination: tuple[str, str, str] | None = None,
    spread: float = 1.0,
    vary_timing: bool = False,
    music: float = 0.0,
) -> SceneSpec:
    """Draw a scene; the same arguments give the same scene on every machine.

    Args:
        seed: any non-negative integer.
        num_objects: one or two; two objects differ in colour and do not touch.
        grounds: the kinds of ground to draw from.
        split: every object's combination is of this split.
        text_probability: how often a word is written into the picture.
        combination: shape, colour and motion of the first object; None draws them.
        spread: share of the ranges of radius, position and path length that is drawn from, 0 to 1. At 0 objects of one combination and
            size all take the same path, through the middle of the frame and as short as the shortest at 1. A small spread is a small world,
            learnt in minutes. Positions and paths of two objects always have their whole ranges, because the two must keep apart.
        vary_timing: draw when and how fast objects bounce, and when those that travel arrive and rest; otherwise everything takes the
            whole clip and bounces touch the floor at the same times in all scenes. Nothing else of a scene changes.
        music: how often music plays in the scene's sound, 0 to 1.
    """
    if num_objects not in (1, 2):
        raise UsageError(f"num_objects={num_objects} was given", "the toy world has scenes of 1 or 2 objects", "choose one of these")
    if seed < 0:
        raise UsageError(f"seed={seed} was given", "scenes are numbered from 0", "give a non-negative integer")
    if not 0.0 <= spread <= 1.0:
        raise UsageError(f"spread={spread} was given", "0 draws from the middle of a range, 1 from all of it", "give a number between them")
    if not 0.0 <= music <= 1.0:
        raise UsageError(f"music={music} was given", "a probability lies between 0 and 1", "give such a number")
    if not grounds:
        raise UsageError("no grounds were given", f"there are {', '.join(GROUNDS)}", "name at least one")
    rng = np.random.default_rng(seed)
    first = _pick(rng, combinations(split)) if combination is None else combination
    chosen = [first]
    if num_objects == 2:
        chosen.append(_pick(rng, [c for c in combinations(split) if c[1] != first[1]]))
    objects = _place(rng, chosen, spread=spread)
    ground = _sample_ground(rng, _pick(rng, grounds))
    text = _pick(rng, WORDS) if rng.random() < text_probability else None
    moment = float(rng.random())
    # Generators of their own: what is seen does not depend on what is heard.
    if vary_timing:
        objects = _vary_timing(np.random.default_rng([seed, 17]), objects)
    plays = bool(np.random.default_rng([seed, 18]).random() < music)
    return SceneSpec(objects, ground, seed=int(seed), text=text, moment=moment, music=plays)


def _place(rng: np.random.Generator, chosen: Sequence[tuple[str, str, str]], *, spread: float) -> tuple[ObjectSpec, ...]:
    """Sizes and positions; two objects are drawn again until they keep apart, small ones with shorter ways when that is hard."""
    for attempt in range(6000):
        crowded, packed = attempt >= 40, attempt >= 2000
        least_reach = 0.75 if len(chosen) == 1 else (0.5 if crowded else 0.65)
        reaches = (0.35, 0.5) if packed else (least_reach, 1.0)
        objects = []
        for shape, colour, motion in chosen:
            size = _pick(rng, tuple(SIZES)) if not crowded else "small"
            radii = _CROWDED if crowded else SIZES[size]
            radius = _narrowed(rng.uniform(*radii), sum(radii) / 2, spread)
            x, y, reach = rng.random(), rng.random(), rng.uniform(*reaches)
            if len(chosen) == 1:
                x, y, reach = _narrowed(x, 0.5, spread), _narrowed(y, 0.5, spread), _narrowed(reach, _CENTRAL_REACH, spread)
            objects.append(ObjectSpec(shape, colour, size, motion, radius, x, y, reach))
        if len(objects) == 1 or keep_apart(*objects):
            return tuple(objects)
    raise AssertionError(f"no room for {chosen}")


def _vary_timing(rng: np.random.Generator, objects: tuple[ObjectSpec, ...]) -> tuple[ObjectSpec, ...]:
    """The objects with timings of their own; two are drawn again until they keep apart, and keep the usual timing when that is hard."""
    for _ in range(100):
        timed = tuple(_draw_timing(rng, item) for item in objects)
        if len(timed) == 1 or (keep_apart(*timed, num_moments=65) and _sound_apart(*timed)):
            return timed
    return objects


def _draw_timing(rng: np.random.Generator, item: ObjectSpec) -> ObjectSpec:
    if item.motion in TRAVELS:
        return replace(item, arrival=float(rng.uniform(*_ARRIVALS)))
    if item.motion != "bounce":
        return item
    while True:
        first, pace = rng.uniform(*_IN_THE_AIR), rng.uniform(*_PACES)
        after_last = [(bounces * pace - first) % 1.0 for bounces in _BOUNCES]
        if _within(after_last[0], _IN_THE_AIR) and all(_within(after, _OFF_THE_FLOOR) for after in after_last):
            return replace(item, phase=float((0.5 - first) % 1.0), pace=float(pace))


def _within(value: float, ends: tuple[float, float]) -> bool:
    return ends[0] <= value <= ends[1]


def _sound_apart(first: ObjectSpec, second: ObjectSpec) -> bool:
    """True when two objects are never heard at nearly the same time, in clips of up to seven seconds."""
    return all(
        abs(a - b) >= _LEAST_PAUSE / bounces
        for bounces in _BOUNCES
        for a in heard_moments(first, bounces=bounces)
        for b in heard_moments(second, bounces=bounces)
    )


def _narrowed(drawn: float, centre: float, spread: float) -> float:
    """What was drawn, brought nearer to a centre; exactly what was drawn at a spread of 1."""
    return float((1.0 - spread) * centre + spread * drawn)


def _sample_ground(rng: np.random.Generator, kind: str) -> GroundSpec:
    low, high = {"black": (0, 28), "grey": (100, 145), "white": (222, 250)}.get(kind, (30, 90))
    dark = int(rng.integers(low, high + 1))
    tint = tuple(int(v) for v in rng.integers(-7, 8, size=3))
    return GroundSpec(kind, dark, int(rng.integers(150, 226)), tint, float(rng.uniform(0.18, 0.34)), int(rng.integers(0, 3)))


def _pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]
