"""Frames around the film: letterbox, pillarbox, frames of any plain colour, blurred fill (B.1: first derivatives and a scan line)."""

import math
from dataclasses import astuple, dataclass
from itertools import groupby, takewhile

import numpy as np
from jaxtyping import Bool, Float, Int16
from numpy.lib.stride_tricks import sliding_window_view

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import looks
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage

# Levels of 256. Coding noise of plain areas stays below 12, the weakest border's edge that a viewer notices is above.
_STEP = 12
_PLAIN_SPREAD = 14
_STRAY = 0.02  # of a plain line's pixels may be odd: noise, ringing of the codec
_SOFT_LINES = 3  # over which a scaled edge is spread
_EDGE_LOOKS = 0.25  # of the looks must show a border's edge; in the others the film may be as dark as its border
_LEAST_FILM = 0.3  # of width and height
_LEAST_TEXTURE = 0.005  # of a film's pixels differ from their neighbours by half a step; a plain shape's do not
_MOST_LOOKS = 8
# A film is sharper than the fill beside it, and the seam is steeper than either.
_AROUND = np.array([*range(-10, -2), *range(3, 11)])  # lines beside a seam
_FILL_SHARPNESS, _SEAM_STEEPNESS, _LEAST_FILL = 0.5, 2.5, 0.06


@dataclass(frozen=True)
class Sides:
    """Something of each side of a picture.

    Args:
        left: of the left.
        top: of the top.
        right: of the right.
        bottom: of the bottom.
    """

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


class Borders(ClipStage):
    """Drops clips with borders around the film (Table 39: no border).

    A border lies at the same place in the whole clip. Plain ones, of any colour, are lines without large differences of neighbouring
    pixels, all of one colour, up to a straight edge that spans the film. Blurred ones, as portrait films are given, lie on two opposite
    sides and are less sharp than the film from a straight seam on. So a dark scene or a plain ground is no border, for it does not end in
    a straight line; nor is one found where the film is as dark as its border all the time.

    Score `border`: width of the widest border as a share of the picture's width or height. Annotation `borders`, where there are any:
    `left`, `top`, `right` and `bottom` in pixels of the medium as it is shown, and `film`, the rectangle within as [left, top, width,
    height]. They are exact to a pixel of the looked-at size, whose longer side is 960 at most.

    Args:
        min_share: share of the width or height from which on a border counts, 0 to 0.5. Narrower ones, such as the black lines that
            analogue recorders left, are annotated only.
        edge_share: share of a border's edge that must show a large difference, 0 to 1.
        find_blurred: whether blurred fill counts.

    Raises:
        UsageError: a share is out of range.
    """

    def __init__(self, *, min_share: float = 0.01, edge_share: float = 0.5, find_blurred: bool = True) -> None:
        if not 0.0 < min_share < 0.5 or not 0.0 < edge_share <= 1.0:
            given = f"min_share={min_share} and edge_share={edge_share} were given"
            raise UsageError(
                given, "a border takes less than half of a side, and an edge at most the whole", "give shares, e.g. 0.01 and 0.5"
            )
        self.min_share, self.edge_share, self.find_blurred = min_share, edge_share, find_blurred

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Measure the borders of a clip."""
        pictures, _ = looks(clip, media)
        pictures = pictures[:: math.ceil(len(pictures) / _MOST_LOOKS)].astype(np.int16)
        height, width = pictures.shape[1:3]
        sides, kind = plain_borders(pictures, edge_share=self.edge_share), "plain"
        if self.find_blurred and sides == Sides():
            sides, kind = blurred_borders(pictures), "blurred"
        sides = sides if sides == Sides() or not _striped(pictures) else Sides()
        share = max(sides.left / width, sides.right / width, sides.top / height, sides.bottom / height)
        clip = clip.scored(border=share)
        if sides == Sides():
            return clip
        clip = clip.annotated(borders=_in_medium(sides, (height, width), _shown_size(media, (height, width)), kind))
        if share < self.min_share:
            return clip
        return clip.dropped(f"{kind} border", measured=f"{share:.1%} of a side", wanted=f"less than {self.min_share:.1%}")


def plain_borders(pictures: Int16[np.ndarray, "n h w 3"], *, edge_share: float = 0.5) -> Sides:
    """Widths of the plain borders of some pictures of a clip, in pixels.

    Args:
        pictures: looks at a clip.
        edge_share: share of an edge that must show a large difference.
    """
    height, width = pictures.shape[1:3]
    sides = Sides()
    # The edge of a side's border spans the film only, which is known once the other sides are; twice, since each waits for the other.
    for _ in range(2):
        inner = pictures[:, :, sides.left : width - sides.right]
        top, bottom = _scan(inner, edge_share), _scan(inner[:, ::-1], edge_share)
        inner = pictures[:, top : height - bottom].swapaxes(1, 2)
        sides = Sides(_scan(inner, edge_share), top, _scan(inner[:, ::-1], edge_share), bottom)
    sides = sides if sides != Sides() else _surrounding(pictures, edge_share)
    return sides if sides == Sides() or _is_film(pictures, sides) else Sides()


def blurred_borders(pictures: Int16[np.ndarray, "n h w 3"]) -> Sides:
    """Widths of blurred fill at the left and right, or at the top and bottom, in pixels."""
    height, width = pictures.shape[1:3]
    left = _seam(pictures.swapaxes(1, 2))
    if left:
        return Sides(left=left, right=left)
    top = _seam(pictures) if height > 1 and width > 1 else 0
    return Sides(top=top, bottom=top)


def _scan(pictures: Int16[np.ndarray, "n h w 3"], edge_share: float, *, spans: tuple[float, float] | None = None) -> int:
    """Lines from the first on that belong to a plain border; 0 where there is none.

    Args:
        pictures: with the side that is looked at as the first lines.
        edge_share: share of the edge that must show a large difference.
        spans: least share of the length that the edge covers, and share of the looks that show it, where it need not span all.
    """
    num_looks, height, width = pictures.shape[:3]
    limit = int(height * (1.0 - _LEAST_FILM))
    if limit < 2 or width < 8:
        return 0
    colour = np.median(pictures[:, 0].reshape(-1, 3), axis=0)
    if _unlike(pictures[:, :1], colour)[0] > _STRAY:  # as most films are, at a small part of the cost
        return 0
    disturbed = np.flatnonzero(_unlike(pictures[:, :limit], colour) > _STRAY)
    first = int(disturbed[0]) if len(disturbed) else limit
    if first >= limit - 1:
        return 0
    # Across two lines, since a soft edge is halfway in one; the steepest line next to the first that is not plain is the edge.
    lines = range(max(1, first - 1), min(first + _SOFT_LINES, height - 1))
    needed = math.ceil(num_looks * (spans[1] if spans else _EDGE_LOOKS))
    for line in lines:
        across = _largest(np.abs(pictures[:, line + 1] - pictures[:, line - 1])) > _STEP
        shares = np.array([_density(row, spans[0]) for row in across]) if spans else across.mean(1)
        if np.sort(shares)[-needed] >= edge_share:
            return first
    return 0


def _unlike(lines: Int16[np.ndarray, "n h w 3"], colour: np.ndarray) -> Float[np.ndarray, " h"]:
    """Share of each line's pixels that are not like a plain line's of a colour, in the look where it is least plain."""
    along = _largest(np.abs(np.diff(lines, axis=2))) > _STEP  # large differences within a line
    odd = _largest(np.abs(lines - colour)) > _PLAIN_SPREAD
    return np.maximum(along.mean(2), odd.mean(2)).max(0)


def _largest(pixels: np.ndarray) -> np.ndarray:
    """The largest channel; many times as fast as `max` over an axis of three."""
    return np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])


def _density(row: np.ndarray, least_span: float) -> float:
    """Share of large differences between the first and the last one, where these lie far enough apart."""
    where = np.flatnonzero(row)
    if len(where) < 2 or where[-1] - where[0] + 1 < least_span * len(row):
        return 0.0
    return len(where) / float(where[-1] - where[0] + 1)


def _surrounding(pictures: Int16[np.ndarray, "n h w 3"], edge_share: float) -> Sides:
    """Borders on all four sides, so wide that no edge spans half of the picture."""
    spans = (_LEAST_FILM, 0.5)
    turned = pictures.swapaxes(1, 2)
    sides = Sides(*(_scan(some, edge_share, spans=spans) for some in (turned, pictures, turned[:, ::-1], pictures[:, ::-1])))
    return sides if all(astuple(sides)) else Sides()


def _is_film(pictures: Int16[np.ndarray, "n h w 3"], sides: Sides) -> bool:
    """Whether what borders surround is large enough and has some texture in some look, unlike a plain shape on a plain ground."""
    height, width = pictures.shape[1:3]
    film = pictures[:, sides.top + 2 : height - sides.bottom - 2, sides.left + 2 : width - sides.right - 2]
    if film.shape[1] < _LEAST_FILM * height - 4 or film.shape[2] < _LEAST_FILM * width - 4 or min(film.shape[1:3]) < 4:
        return False
    differences = _largest(np.abs(np.diff(film, axis=2))) > _STEP // 2
    return bool(differences.mean((1, 2)).max() > _LEAST_TEXTURE)


def _striped(pictures: Int16[np.ndarray, "n h w 3"]) -> bool:
    """Whether two bands at a side, seen through what lies on them, come again one after the other, about as wide."""
    turned = pictures.swapaxes(1, 2)
    for some in (pictures, pictures[:, ::-1], turned, turned[:, ::-1]):
        bands = _bands(some)[:4]
        widths = [width for _, width in bands[1:]]  # the first may be cut off
        if [name for name, _ in bands] == ["own", "other", "own", "other"] and max(widths) <= 2 * min(widths):
            return True
    return False


def _bands(pictures: Int16[np.ndarray, "n h w 3"]) -> list[tuple[str, int]]:
    """The bands from the first line on, as far as most of their pixels have the `own` colour of that line or the `other` behind it."""
    own = _like(pictures, np.median(pictures[:, 0].reshape(-1, 3), axis=0))
    behind = int(np.argmin(own)) + _SOFT_LINES
    if own.all() or behind >= len(own):
        return []
    other = _like(pictures, np.median(pictures[:, behind].reshape(-1, 3), axis=0)) & ~own
    runs = [(name, len(list(run))) for name, run in groupby(np.where(own, "own", np.where(other, "other", "edge")).tolist())]
    steady = takewhile(lambda run: run[0] != "edge" or run[1] <= _SOFT_LINES, runs)
    return [run for run in steady if run[0] != "edge"]


def _like(pictures: Int16[np.ndarray, "n h w 3"], colour: np.ndarray) -> Bool[np.ndarray, " h"]:
    """Of each line, whether most of its pixels have a colour, in most looks."""
    return np.median((_largest(np.abs(pictures - colour)) <= _PLAIN_SPREAD).mean(2), axis=0) > 0.5


def _seam(pictures: Int16[np.ndarray, "n h w 3"]) -> int:
    """Lines of blurred fill, the same at the first and the last lines; 0 where there is none."""
    num_lines = pictures.shape[1]
    if num_lines < 32 or pictures.shape[2] < 32:
        return 0
    steepness, sharpness = _profiles(pictures)
    least, half = max(4, int(num_lines * _LEAST_FILL)), int(num_lines * (1.0 - _LEAST_FILM) / 2)
    if least >= half:
        return 0
    pairs = np.minimum(_spikes(steepness, least, half), _spikes(steepness[::-1], least, half))
    best, best_line = float(pairs.max()), least + int(pairs.argmax())
    if best < _SEAM_STEEPNESS:
        return 0
    outside = np.concatenate([sharpness[: best_line - 2], sharpness[num_lines - best_line + 2 :]]).mean()
    inside = sharpness[best_line + 2 : num_lines - best_line - 2].mean()
    steepest = best_line - 1 + int(np.argmax((steepness + steepness[::-1])[best_line - 1 : best_line + 2]))
    return steepest if outside < _FILL_SHARPNESS * inside else 0


def _profiles(pictures: Int16[np.ndarray, "n h w 3"]) -> tuple[Float[np.ndarray, " h"], Float[np.ndarray, " h"]]:
    """Of every line, over all looks: how much it differs from the one before, by the median pixel; and how sharp it is along itself."""
    grey = pictures.astype(np.float32).mean(3)
    across = np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    steepness = np.quantile(across.mean(0), 0.4, axis=1)  # a seam is steep almost everywhere; what moves or is short is not
    along = np.abs(np.diff(grey, n=2, axis=2)).mean((0, 2))
    return steepness, along


def _spikes(steepness: Float[np.ndarray, " h"], first: int, end: int) -> Float[np.ndarray, " k"]:
    """How much steeper the lines from `first` to before `end`, or their neighbours, are than those around them.

    Args:
        steepness: of 32 lines or more.
        first: at least 4.
        end: at most the middle, so that there are ten lines behind each.
    """
    lines = np.arange(first, end)
    steepest = sliding_window_view(steepness, 3)[lines - 1].max(1)
    # Near the first line, which differs from none before it, there are fewer to compare with.
    near = [np.concatenate([steepness[1 : line - 2], steepness[line + 3 : line + 11]]) for line in lines[lines < 11]]
    levels = [np.quantile(around, 0.75) for around in near]
    levels.extend(np.quantile(steepness[lines[lines >= 11, None] + _AROUND], 0.75, axis=1))
    return steepest / (1.0 + np.array(levels))


def _shown_size(media: Media, looked: tuple[int, int]) -> tuple[int, int]:
    if media.kind == "picture":
        return media.stills(0.0, 0.0).shape[1:3]
    return (media.info.height, media.info.width) if max(looked) else looked


def _in_medium(sides: Sides, looked: tuple[int, int], shown: tuple[int, int], kind: str) -> dict[str, object]:
    scale_y, scale_x = shown[0] / looked[0], shown[1] / looked[1]
    left, right = math.ceil(sides.left * scale_x), math.ceil(sides.right * scale_x)
    top, bottom = math.ceil(sides.top * scale_y), math.ceil(sides.bottom * scale_y)
    film = [left, top, shown[1] - left - right, shown[0] - top - bottom]
    return {"kind": kind, "left": left, "top": top, "right": right, "bottom": bottom, "film": film}
