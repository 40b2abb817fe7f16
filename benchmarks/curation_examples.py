"""Labelled clips for `curation.py`: real films, scenes of the toy world, and clips made from both, which have what was put there.

`scenes.py` takes its shots from the same films, and has here what the two have in common.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import copyfile

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from moviegen_core.media.video import write_video
from moviegen_data.curation import Media
from moviegen_data.curation.measures import Measures
from moviegen_data.curation.stages.scenes import Scenes
from moviegen_data.stills import read_stills
from moviegen_data.toyworld import render_scenes
from moviegen_data.toyworld.scene import GROUNDS

Frames = UInt8[np.ndarray, "n h w 3"]
Changes = Sequence[tuple[int, int]]
Boundaries = list[tuple[float, float]]  # seconds at which one scene ends and the next begins
TOLERANCE = 3  # frames between a change of scene and a boundary that is it
WORDS = ("border", "jittery", "poor", "portrait", "short", "slow", "static", "text", "tiny", "wild")
# The real films. What is not named does not hold of a film; a word with `?` is not judged, e.g. signs that may be read or not.
FILMS = {
    "basketball_426x240.mp4": "text?",
    "bikes_cuts_640x272.mp4": "text?",
    "bunny_30s_720p_vp8.webm": "text",
    "bunny_720p_6ch_audio.mp4": "",
    "carphone_176x144.mp4": "",
    "cat_368x480_20fps.mp4": "portrait",
    "chaplin_640x360.mp4": "border",
    "congas_cut_640x360.mp4": "",
    "dog_barks_480x360_15fps.mp4": "",
    "dog_leash_720p_silent_track.mp4": "",
    "drummer_204x360_36s.mp4": "portrait text?",
    "face_480x480_33s_voice.mp4": "",
    "goldfish_480x480.mp4": "",
    "hammer_anvil_640x360.mp4": "",
    "line_art_1200x1200_60fps.mp4": "poor?",
    "makeup_320x240.avi": "",
    "man_talking_540x960.mp4": "portrait text?",
    "motorcycle_2160p.mp4": "",
    "nasa_320x180_two_video_streams.mp4": "poor? slow?",
    "pancake_426x240.mkv": "",
    "raindrops_480x480.mp4": "static slow",
    "sintel_30s_cuts_854x480.mp4": "text border poor? jittery?",
    "soccer_juggle_720p_24fps.mp4": "",
    "swans_480x480.mp4": "",
    "testcard_1080p.mp4": "text border static slow poor?",
    "two_people_1080p_28fps.mp4": "",
    "weightlifting_320x240.mp4": "text",
}
# First and last frame of each change of scene: the same for a cut, up to the first full picture for a fade through black.
CHANGES: dict[str, Changes] = {
    "bikes_cuts_640x272.mp4": [(30, 30), (76, 76), (137, 137), (187, 187), (242, 242)],
    "bunny_30s_720p_vp8.webm": [(283, 283), (376, 376), (551, 551)],
    "congas_cut_640x360.mp4": [(98, 98)],
    "nasa_320x180_two_video_streams.mp4": [(202, 202)],
    "sintel_30s_cuts_854x480.mp4": [
        *((150, 258), (286, 286), (312, 348), (356, 356), (372, 400), (452, 490), (523, 523), (573, 573), (610, 610), (624, 640))
    ],
}
DISSOLVES: dict[str, Changes] = {"nasa_320x180_two_video_streams.mp4": [(127, 148)], "sintel_30s_cuts_854x480.mp4": [(66, 90)]}
# What clips are made of: stretches free of text, borders and cuts, by the second at which they begin; a second one is another moment.
MOMENTS: dict[str, tuple[str, *tuple[float, ...]]] = {
    "leash": ("dog_leash_720p_silent_track.mp4", 2.0, 6.5),
    "soccer": ("soccer_juggle_720p_24fps.mp4", 1.0, 7.0),
    "pancake": ("pancake_426x240.mkv", 1.0, 6.0),
    "hammer": ("hammer_anvil_640x360.mp4", 0.5),
    "face": ("face_480x480_33s_voice.mp4", 5.0, 25.0),
    "makeup": ("makeup_320x240.avi", 0.5, 3.5),
    "bunny": ("bunny_720p_6ch_audio.mp4", 1.0),
    "barks": ("dog_barks_480x360_15fps.mp4", 0.5),
    "goldfish": ("goldfish_480x480.mp4", 0.3),
    "cat": ("cat_368x480_20fps.mp4", 0.5),
    "people": ("two_people_1080p_28fps.mp4", 0.1),
    "motorcycle": ("motorcycle_2160p.mp4", 0.5),
}
SECONDS, SIDE_PX, MOST_FPS = 2.2, 480, 25.0


@dataclass(frozen=True)
class Example:
    """A clip and what is true of it.

    Args:
        name: its path in the folder of media; the first part is its kind.
        labels: words that hold or do not; those absent are not judged.
        changes: first and last frame of every change of scene; None is not judged.
        dissolves: likewise, of dissolves, which are counted beside the changes.
        alike: group of copies that it belongs to; empty is not judged.
    """

    name: str
    labels: Mapping[str, bool] = field(default_factory=dict)
    changes: Changes | None = None
    dissolves: Changes = ()
    alike: str = ""

    def truth(self, words: Sequence[str]) -> bool | None:
        """Whether one of some words holds; None where that is not known."""
        known = [self.labels.get(word) for word in words]
        return True if True in known else None if None in known else False


@dataclass(frozen=True)
class Piece:
    """A stretch of a film in memory.

    Args:
        name: of the film.
        frames: in RGB.
        fps: frames per second.
        labels: what is true of it.
    """

    name: str
    frames: Frames
    fps: float
    labels: Mapping[str, bool]


class Maker:
    """Writes clips into a folder and says what is true of them.

    Args:
        films: folder of the real films.
        folder: where to.
        small: only some of each kind, and no large film.
    """

    def __init__(self, films: Path, folder: Path, *, small: bool = False) -> None:
        self.films, self.folder, self.small = films, folder, small
        self.pieces = [self.piece(name, MOMENTS[name][1]) for name in list(MOMENTS)[: 4 if small else None]]

    def all(self) -> Iterator[Example]:
        """Everything, kind by kind."""
        kinds: list[Callable[[], Iterator[Example]]] = [self.real, self.bases, self.toys, self.borders, self.captions, self.stills]
        kinds += [self.pans, self.shakes, self.cuts, self.copies, self.flaws]
        for kind in kinds:
            yield from kind()

    def piece(self, name: str, start_s: float) -> Piece:
        """A stretch of a film of `MOMENTS`, at most 480 px and 25 frames a second."""
        film = MOMENTS[name][0]
        fps = min(Media(self.films / film).info.fps, MOST_FPS)
        times = start_s + (np.arange(round(SECONDS * fps)) + 0.5) / fps
        frames = read_stills(self.films / film, list(times), max_side=SIDE_PX)
        return Piece(name, frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2], fps, labels_of(FILMS[film]))

    def write(
        self, name: str, frames: Frames, fps: float, labels: str | Mapping[str, bool] = "", *, crf: int = 20, **known: object
    ) -> Example:
        """Write a clip. A word of its labels that begins with `-` does not hold."""
        path = self.folder / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float() / 127.5 - 1.0, fps=fps, crf=crf)
        told = {word.strip("-"): not word.startswith("-") for word in labels.split()} if isinstance(labels, str) else labels
        return Example(f"{name}.mp4", told, **known)

    # -- what is there -------------------------------------------------------------------------------------------------------------

    def real(self) -> Iterator[Example]:
        """The films as they are."""
        (self.folder / "real").mkdir(parents=True)
        for name, words in FILMS.items():
            if self.small and (self.films / name).stat().st_size > 800_000:
                continue
            copyfile(self.films / name, self.folder / "real" / name)
            alike = "" if any(name == film for film, *_ in MOMENTS.values()) else name
            yield Example(f"real/{name}", labels_of(words), CHANGES.get(name, ()), DISSOLVES.get(name, ()), alike)

    def bases(self) -> Iterator[Example]:
        """The pieces of which clips are made, and other moments of the same films, which are no copies."""
        for piece in self.pieces:
            yield self.write(f"base/{piece.name}", piece.frames, piece.fps, piece.labels, changes=(), alike=piece.name)
        for piece in self.pieces:
            for start_s in MOMENTS[piece.name][2:]:
                later = self.piece(piece.name, start_s)
                yield self.write(f"moment/{later.name}", later.frames, later.fps, later.labels, changes=(), alike=f"{later.name} later")

    def toys(self) -> Iterator[Example]:
        """Scenes of the toy world, some with a word in them, and copies of some."""
        world = {"num_frames": 36, "height": 180, "width": 320, "fps": 12.0, "grounds": GROUNDS, "text_probability": 0.3}
        for key, clip in render_scenes(6 if self.small else 24, **world):
            name, still = key.split("-")[-1][-2:], all(each.motion == "still" for each in clip.spec.objects)
            labels = {"text": clip.spec.text is not None, "static": still, "border": False, "jittery": False, "portrait": False}
            labels |= {"slow": True} if still else {"wild": False}
            yield self.write(f"toy/{name}", clip.video, clip.fps, labels, changes=(), alike=f"toy {name}")
            if int(name) < 4:
                yield self.write(f"copy/toy_{name}_recompressed", clip.video, clip.fps, crf=36, alike=f"toy {name}")
                yield self.write(f"copy/toy_{name}_smaller", resized(clip.video, 160, 90), clip.fps, alike=f"toy {name}")

    # -- what is made --------------------------------------------------------------------------------------------------------------

    def borders(self) -> Iterator[Example]:
        """Letterbox, pillarbox, frames, blurred fill, thin lines."""
        kinds = {"letterbox": (0, 0.12, 0), "pillarbox": (0.15, 0, 0), "window": (0.08, 0.1, 235), "thin": (0, 0.022, 0)}
        for piece in self.pieces[:6]:
            for kind, (across, down, shade) in kinds.items():
                yield self.write(f"border/{piece.name}_{kind}", framed(piece.frames, across, down, shade), piece.fps, "border -portrait")
            yield self.write(f"border/{piece.name}_blurred", filled(piece.frames), piece.fps, "border -portrait")

    def captions(self) -> Iterator[Example]:
        """Subtitles, titles and watermarks; the same without are the bases."""
        kinds = {"subtitle": ("the river was high that year", 0.07, 0.85, 1.0), "title": ("SECOND DAY", 0.16, 0.4, 1.0)}
        kinds |= {"watermark": ("stockfilms.net", 0.055, 0.05, 0.6), "faint": ("preview copy", 0.05, 0.9, 0.3)}
        for piece in self.pieces[:6]:
            for kind, (words, size, top, opacity) in kinds.items():
                frames = written(piece.frames, words, size=size, top=top, opacity=opacity)
                yield self.write(f"text/{piece.name}_{kind}", frames, piece.fps, "text -border")

    def stills(self) -> Iterator[Example]:
        """One picture all the time, with noise, several after each other; and slow zooms, which move."""
        generator = np.random.default_rng(0)
        for piece in self.pieces[:5]:
            count, still = len(piece.frames), piece.frames[:1]
            frozen = np.repeat(still, count, 0)
            yield self.write(f"still/{piece.name}_frozen", frozen, piece.fps, "static slow -wild -border -jittery", changes=())
            noisy = np.clip(frozen + generator.normal(0, 3, frozen.shape), 0, 255).astype(np.uint8)
            yield self.write(f"still/{piece.name}_noisy", noisy, piece.fps, "static slow -wild -border -jittery", changes=())
            zoomed = moved(still[0], count, lambda share: (1.0 + 0.15 * share, 0.0))
            yield self.write(f"still/{piece.name}_zoom", zoomed, piece.fps, "-static -wild -border -jittery", changes=())
        for start in (0, 1):
            pictures = [resized(piece.frames[:1], 480, 270) for piece in self.pieces[start : start + 3]]
            slides = np.concatenate([np.repeat(picture, 50, 0) for picture in pictures])
            yield self.write(f"still/slides_{start}", slides, 25.0, "static -border", changes=[(50, 50), (100, 100)])

    def pans(self) -> Iterator[Example]:
        """Camera moves over a picture at known speeds, in widths a second, and frame rates, which are all one to who sees them."""
        # At 768 px and 30 frames a second, Table 39's 0.5 and 7 px are 0.011 and 0.15 widths a second of a picture of 16 : 9.
        speeds = {0.003: "slow", 0.05: "-slow -wild -static", 0.1: "-slow -wild -static", 1.5: "wild -static"}
        for piece in self.pieces[:2]:
            still = resized(piece.frames[:1], 480, 270)[0]
            for fps in (10.0, 25.0, 50.0):
                for speed, labels in speeds.items():
                    frames = moved(still, round(SECONDS * fps), lambda share, speed=speed: (1.0, speed * SECONDS * share))
                    yield self.write(f"pan/{piece.name}_{speed:g}_{fps:g}fps", frames, fps, f"{labels} -border", changes=())

    def shakes(self) -> Iterator[Example]:
        """A camera that is thrown about from frame to frame, by a twelfth of the width or a thirtieth, and one that sways as hands do."""
        for number, piece in enumerate(self.pieces[:5]):
            for kind, amount in (("thrown", 0.08), ("shaken", 0.03)):
                frames = displaced(piece.frames, np.random.default_rng(number).uniform(-amount, amount, (len(piece.frames), 2)))
                yield self.write(f"shake/{piece.name}_{kind}", frames, piece.fps, "jittery -static", changes=())
            times = np.arange(len(piece.frames))[:, None] / piece.fps
            sway = 0.008 * np.sin(2 * np.pi * np.array([[1.1, 1.7]]) * times) + 0.003 * np.sin(
                2 * np.pi * np.array([[3.1, 2.3]]) * times + 1.0
            )
            yield self.write(f"shake/{piece.name}_held", displaced(piece.frames, sway), piece.fps, "-jittery -static -wild", changes=())
        for start in (0, 2):
            shots = [resized(piece.frames[:18], 480, 270) for piece in self.pieces[start : start + 4] if len(piece.frames) >= 18]
            changes = [(18 * number, 18 * number) for number in range(1, len(shots))]
            yield self.write(f"shake/montage_{start}", np.concatenate(shots), 25.0, "jittery -static", changes=changes)

    def cuts(self) -> Iterator[Example]:
        """Two films after each other: cut, faded through black, dissolved; and a flash, which is no cut."""
        pairs = list(zip(self.pieces, [*self.pieces[1:], self.pieces[0]]))
        for number, (first, second) in enumerate(pairs):
            before, after = (resized(piece.frames[:30], 480, 270) for piece in (first, second))
            write = partial(self.write, fps=25.0, labels="-static")
            at, name = len(before), f"{first.name}_{second.name}"
            yield write(f"cut/{name}", np.concatenate([before, after]), changes=[(at, at)])
            if number % 3 == 0:
                frames, black = np.concatenate([faded(before), np.zeros_like(before[:5]), faded(after[::-1])[::-1]]), at + 5
                yield write(f"cut/{name}_fade", frames, changes=[(at - 10, black + 10)])
            if number % 3 == 1:
                share = np.linspace(0, 1, 15)[:, None, None, None]
                mixed = (before[-15:] * (1 - share) + after[:15] * share).astype(np.uint8)
                yield write(
                    f"cut/{name}_dissolve", np.concatenate([before[:-15], mixed, after[15:]]), changes=(), dissolves=[(at - 15, at)]
                )
            if number % 3 == 2:
                flash = first.frames.copy()
                flash[len(flash) // 2] = 255 - (255 - flash[len(flash) // 2]) // 3
                yield self.write(f"cut/{first.name}_flash", flash, first.fps, "-jittery -static", changes=())

    def copies(self) -> Iterator[Example]:
        """The same moment once more: recompressed, smaller, a little shorter, brighter, at half the frame rate."""
        for piece in self.pieces[:6]:
            frames, fps, known = piece.frames, piece.fps, {"alike": piece.name}
            height, width = frames.shape[1:3]
            yield self.write(f"copy/{piece.name}_recompressed", frames, fps, crf=38, **known)
            yield self.write(f"copy/{piece.name}_smaller", resized(frames, width // 4 * 2, height // 4 * 2), fps, **known)
            yield self.write(f"copy/{piece.name}_trimmed", frames[5:], fps, **known)
            yield self.write(f"copy/{piece.name}_brighter", np.clip(frames * 1.2 + 12.0, 0, 255).astype(np.uint8), fps, **known)
            yield self.write(f"copy/{piece.name}_half_rate", frames[::2], fps / 2, **known)

    def flaws(self) -> Iterator[Example]:
        """Blurred, dark, washed out and burnt out ones; upright, tiny and short ones."""
        for piece in self.pieces[:3]:
            frames, write = piece.frames, partial(self.write, fps=piece.fps)
            height, width = frames.shape[1:3]
            blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 8) for frame in frames])
            yield write(f"flaw/{piece.name}_blurred", blurred, labels="poor")
            yield write(f"flaw/{piece.name}_dark", (frames * 0.06).astype(np.uint8), labels="poor")
            yield write(f"flaw/{piece.name}_washed", (frames * 0.08 + 120).astype(np.uint8), labels="poor")
            yield write(f"flaw/{piece.name}_burnt", np.clip(frames * 4.0 + 150, 0, 255).astype(np.uint8), labels="poor")
            upright = frames[:, :, (width - height // 16 * 9) // 2 :][:, :, : height // 32 * 18]
            yield write(f"flaw/{piece.name}_upright", upright, labels="portrait -border")
            yield write(f"flaw/{piece.name}_tiny", resized(frames, 128, 72), labels="tiny -short")
            yield write(f"flaw/{piece.name}_short", frames[: round(piece.fps)], labels="short -tiny")


def labels_of(words: str) -> dict[str, bool]:
    """All labels of a real film, from its line in `FILMS`."""
    named = words.split()
    return {word: word in named for word in WORDS if f"{word}?" not in named}


# -- changed frames ----------------------------------------------------------------------------------------------------------------


def resized(frames: Frames, width: int, height: int) -> Frames:
    """At another size."""
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def framed(frames: Frames, across: float, down: float, shade: int) -> Frames:
    """With plain borders of these shares of the width and the height."""
    height, width = frames.shape[1:3]
    x, y, out = round(across * width), round(down * height), np.full_like(frames, shade)
    out[:, y : height - y, x : width - x] = frames[:, y : height - y, x : width - x]
    return out


def filled(frames: Frames) -> Frames:
    """The film's upright middle on its own blurred enlargement."""
    height, width = frames.shape[1:3]
    part = height * 9 // 16
    left, out = (width - part) // 2, []
    for frame in frames:
        middle = frame[:, left : left + part]
        ground = cv2.resize(middle[height // 3 : height * 2 // 3], (width, height), interpolation=cv2.INTER_CUBIC)
        ground = cv2.GaussianBlur(ground, (0, 0), width / 30)
        ground[:, left : left + part] = middle
        out.append(ground)
    return np.stack(out)


def written(frames: Frames, words: str, *, size: float, top: float, opacity: float) -> Frames:
    """With white words on them, whose height and place are shares of the picture's height."""
    height, width = frames.shape[1:3]
    layer = Image.new("L", (width, height))
    font = ImageFont.load_default(size=size * height)
    draw = ImageDraw.Draw(layer)
    left = max(4.0, (width - draw.textlength(words, font=font)) / 2)
    shade = Image.new("L", (width, height))
    ImageDraw.Draw(shade).text((left + 1, top * height + 1), words, font=font, fill=255)
    draw.text((left, top * height), words, font=font, fill=255)
    white, dark = (np.asarray(each, np.float32)[None, :, :, None] / 255 * opacity for each in (layer, shade))
    return (frames * (1 - dark) * (1 - white) + 255 * white).astype(np.uint8)


def moved(still: UInt8[np.ndarray, "h w 3"], count: int, way: Callable[[float], tuple[float, float]]) -> Frames:
    """A camera over a picture, which is mirrored beyond its left and right.

    Args:
        still: the picture.
        count: frames.
        way: from the share of the time to enlargement and widths to the right.
    """
    height, width = still.shape[:2]
    wide = np.concatenate([still, still[:, ::-1], still, still[:, ::-1]], axis=1)
    frames = []
    for number in range(count):
        scale, across = way(number / count)
        matrix = np.array([[scale, 0, (0.5 - (0.5 + across % 2) * scale) * width], [0, scale, (0.5 - 0.5 * scale) * height]])
        frames.append(cv2.warpAffine(wide, matrix, (width, height), flags=cv2.INTER_CUBIC))
    return np.stack(frames)


def displaced(frames: Frames, places: Float[np.ndarray, "n 2"]) -> Frames:
    """Each frame as a camera saw it that looked elsewhere, by these shares of the width to the right and downwards."""
    height, width = frames.shape[1:3]
    margin = float(np.abs(places).max()) * width
    zoom = height / (height - 2 * margin)
    out = []
    for frame, (x, y) in zip(frames, places * width):
        matrix = np.array([[zoom, 0, width / 2 - zoom * (width / 2 + x)], [0, zoom, height / 2 - zoom * (height / 2 + y)]])
        out.append(cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return np.stack(out)


def faded(frames: Frames) -> Frames:
    """Whose last ten frames turn black."""
    out = frames.copy()
    out[-10:] = (out[-10:] * np.linspace(0.9, 0.0, 10)[:, None, None, None]).astype(np.uint8)
    return out


# -- what both benchmarks do -----------------------------------------------------------------------------------------------------------


def boundaries_of(stage: Scenes, measures: Measures) -> Boundaries:
    """Where a stage finds that one scene ends and the next begins."""
    parts = stage.scenes_of(measures)
    return [(before.end_s, after.start_s) for before, after in zip(parts, parts[1:])]


def use_one_thread() -> None:
    """Have PyTorch and OpenCV take one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
