"""The toy world's vocabulary, its scene records, and the held-out rule.

Lengths are fractions of the frame's shorter side, so a scene is independent of resolution, frame count and frame rate.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import product
from typing import Any, Literal

from moviegen_core.errors import UsageError, nearest

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (225, 35, 35),
    "green": (35, 175, 45),
    "blue": (45, 65, 230),
    "yellow": (240, 215, 30),
    "magenta": (215, 45, 210),
    "cyan": (35, 210, 220),
}
SIZES = {"small": (0.16, 0.18), "large": (0.24, 0.27)}
MOTIONS = ("left", "right", "up", "down", "bounce", "grow", "still")
PLAIN_GROUNDS = ("black", "grey", "white")
PATTERNED_GROUNDS = ("stripes", "checker", "gradient")
GROUNDS = PLAIN_GROUNDS + PATTERNED_GROUNDS
WORDS = ("HI", "GO", "YES", "MOVIE", "TOY", "PLAY", "STAR", "WOW", "FILM", "SUN")

# Half the bounding box of a shape, in radii; the triangle is wider than its nominal radius so that areas are alike.
EXTENT = {"circle": 1.0, "square": 0.88, "triangle": 1.09, "cross": 1.0, "ring": 1.0}
GROWTH = (0.65, 1.25)

Split = Literal["train", "held_out", "all"]


@dataclass(frozen=True)
class ObjectSpec:
    """One object and what it does.

    Args:
        shape: one of `SHAPES`.
        colour: one of `COLOURS`.
        size: one of `SIZES`.
        motion: one of `MOTIONS`.
        radius: nominal radius as a fraction of the frame's shorter side; growing runs from 0.65 to 1.25 times that.
        x: where in the horizontal room that its motion leaves free, 0 (left) to 1.
        y: where in the vertical room that its motion leaves free, 0 (top) to 1.
        reach: fraction of the room along its axis that a left, right, up, down or bounce motion covers, in (0, 1].
        phase: where in its bounce it starts, 0 to 1: at 0 at its highest, at 0.5 on the floor.
        pace: how fast it bounces, above 0; 1 is once in about two seconds.
        arrival: the share of the clip after which a left, right, up or down motion is over and the object rests, in (0, 1]. Below 1
            the arrival is heard.
    """

    shape: str
    colour: str
    size: str = "large"
    motion: str = "still"
    radius: float = 0.22
    x: float = 0.5
    y: float = 0.5
    reach: float = 0.9
    phase: float = 0.0
    pace: float = 1.0
    arrival: float = 1.0

    def __post_init__(self) -> None:
        require("shape", self.shape, SHAPES)
        require("colour", self.colour, COLOURS)
        require("size", self.size, SIZES)
        require("motion", self.motion, MOTIONS)
        if not (0.0 <= self.phase <= 1.0 and self.pace > 0.0 and 0.0 < self.arrival <= 1.0):
            given = f"phase={self.phase}, pace={self.pace}, arrival={self.arrival} was given"
            raise UsageError(given, "a phase is in [0, 1], a pace above 0, an arrival in (0, 1]", "give numbers in these ranges")

    @property
    def combination(self) -> tuple[str, str, str]:
        """Shape, colour and motion: what is held out."""
        return self.shape, self.colour, self.motion


@dataclass(frozen=True)
class GroundSpec:
    """What lies behind the objects: nearly colourless, so that the objects' colours stay readable.

    Args:
        kind: one of `GROUNDS`.
        dark: the darker (or only) shade, 0 to 255.
        light: the lighter shade of a pattern, 0 to 255.
        tint: added to red, green and blue.
        period: length of a pattern's period as a fraction of the shorter side.
        direction: 0 vertical stripes or left-to-right, 1 horizontal or top-to-bottom, 2 diagonal.
    """

    kind: str = "black"
    dark: int = 12
    light: int = 200
    tint: tuple[int, int, int] = (0, 0, 0)
    period: float = 0.25
    direction: int = 0

    def __post_init__(self) -> None:
        require("ground", self.kind, GROUNDS)


@dataclass(frozen=True)
class SceneSpec:
    """A whole scene; `render` turns it into pixels, `caption_scene` into words.

    Args:
        objects: the objects, later ones in front.
        ground: what lies behind them.
        seed: chooses the caption's phrasing.
        text: a word to write into the picture, or None.
        moment: which moment of the motion, 0 to 1, a picture of one frame shows.
        music: whether music plays in its sound.
    """

    objects: tuple[ObjectSpec, ...]
    ground: GroundSpec = field(default_factory=GroundSpec)
    seed: int = 0
    text: str | None = None
    moment: float = 0.5
    music: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain json values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SceneSpec":
        """The inverse of `to_dict`, also after a trip through json."""
        ground = dict(values["ground"])
        ground["tint"] = tuple(ground["tint"])
        objects = tuple(ObjectSpec(**item) for item in values["objects"])
        return cls(**{**values, "objects": objects, "ground": GroundSpec(**ground)})


def is_held_out(shape: str, colour: str, motion: str) -> bool:
    """True for the 30 of 210 combinations that training never shows.

    The rule is a Latin one: exactly one motion is held out for each pair of shape and colour, at most one colour for each pair of
    shape and motion, at most one shape for each pair of colour and motion; so training shows every pair.
    """
    require("shape", shape, SHAPES)
    require("colour", colour, COLOURS)
    require("motion", motion, MOTIONS)
    return (SHAPES.index(shape) + 3 * tuple(COLOURS).index(colour) + MOTIONS.index(motion)) % 7 == 0


@cache
def combinations(split: Split = "all") -> tuple[tuple[str, str, str], ...]:
    """Every (shape, colour, motion) of a split, in a fixed order."""
    require("split", split, ("train", "held_out", "all"))
    every = tuple(product(SHAPES, COLOURS, MOTIONS))
    return every if split == "all" else tuple(c for c in every if is_held_out(*c) == (split == "held_out"))


def require(what: str, given: str, known: Collection[str]) -> None:
    """Refuse a name the vocabulary lacks, and say which it has."""
    if given not in known:
        close = nearest(str(given), known)
        exists = f"the toy world has {', '.join(known)}"
        raise UsageError(f"the {what} {given!r} was given", exists, f"did you mean {close[0]!r}?" if close else "choose one of these")
