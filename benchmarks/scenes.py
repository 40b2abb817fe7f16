"""How well changes of scene are found, beside FFmpeg's score alone and PySceneDetect's detectors, on clips mixed by chance.

    MOVIEGEN_MEDIA=... python benchmarks/scenes.py --seed 1

Shots of real films, on which a camera of ours moves, are joined by cuts (in calm, in motion, in the dark), fades through black and
dissolves of 5 to 40 frames; others are left whole, under pans, zooms, shaking, swaying, whips, changing and flickering light, noise and
titles. Every clip is encoded and read again. A change is found where a boundary lies within 3 frames of it; any other boundary is wrong.
The rules of `Scenes` were made with clips of this kind and with shots of these films, but with other draws: what is new in each is the mix.

Results go to benchmarks/results/scenes.json.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scenedetect
import torch
from curation_examples import CHANGES, DISSOLVES, FILMS, TOLERANCE, Boundaries, Frames, boundaries_of, use_one_thread
from jaxtyping import Float
from measuring import media_parser, parse_media, processor, write_record

from moviegen_core.media.video import write_video
from moviegen_data.curation import Media
from moviegen_data.curation.stages.scenes import Scenes
from moviegen_data.stills import read_stills

FPS, WIDTH, HEIGHT, MOST_S, SHORTEST = 25.0, 256, 144, 16.0, 30
COUNTS = {"cut": 60, "cut in motion": 40, "cut in the dark": 40, "fade": 40, "dissolve": 100}
WHOLE = ("plain", "pan", "zoom", "shake", "sway", "whip", "light", "flicker", "noise", "title")


@dataclass(frozen=True)
class Mix:
    """A clip that was made.

    Args:
        kind: of change, or why there is none.
        frames: in RGB, 0 to 255.
        change: first and last frame of the change.
    """

    kind: str
    frames: Float[np.ndarray, "n h w 3"]
    change: tuple[int, int] | None = None


class Mixer:
    """Mixes clips by chance.

    Args:
        films: folder of the real films.
        seed: of everything random.
    """

    def __init__(self, films: Path, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shots: list[tuple[str, Frames]] = []
        for name in FILMS:
            if not name.startswith("testcard"):
                self.shots += [(name, shot) for shot in shots_of(films / name)]
        self.names = sorted({name for name, _ in self.shots})

    def all(self, share: float) -> Iterator[Mix]:
        """A share of `COUNTS`, and as many clips that are whole as there are changes."""
        counts = {kind: max(1, round(count * share)) for kind, count in COUNTS.items()}
        for kind, count in counts.items():
            for _ in range(count):
                yield self.changed(kind)
        for number in range(sum(counts.values())):
            yield self.whole(WHOLE[number % len(WHOLE)])

    def changed(self, kind: str) -> Mix:
        """Two shots of different films and what lies between."""
        first, second = self.random.choice(self.names, 2, replace=False)
        before, after = (int(self.random.integers(30, 60)) for _ in range(2))
        length = round(float(np.exp(self.random.uniform(np.log(5), np.log(40))))) if kind == "dissolve" else 0
        moving = ("shake", "pan", "sway") if kind == "cut in motion" else ("", "", "pan", "zoom", "sway")
        one, other = (self.shot(name, count + length, self.random.choice(moving)) for name, count in ((first, before), (second, after)))
        if kind == "dissolve":
            part = each_of(np.arange(1, length + 1) / (length + 1))
            part = part * part * (3 - 2 * part) if self.random.random() < 0.25 else part  # some begin and end slowly
            mixed = (1 - part) * one[before:] + part * other[:length]
            return Mix(kind, np.concatenate([one[:before], mixed, other[length:]]), (before, before + length - 1))
        if kind == "fade":
            out, into, black = (int(self.random.integers(*span)) for span in ((5, 25), (5, 25), (2, 10)))
            one[-out:] *= each_of(np.linspace(1, 0, out + 2)[1:-1])
            other[:into] *= each_of(np.linspace(0, 1, into + 2)[1:-1])
            frames = np.concatenate([one, np.zeros((black, HEIGHT, WIDTH, 3)), other])
            return Mix(kind, frames, (before - out, before + black + into - 1))
        light = 1.0
        if kind == "cut in the dark":  # but brighter than what counts as black
            darkest = min(frames.mean((1, 2, 3)).min() for frames in (one, other))
            light = min(1.0, max(float(self.random.uniform(0.1, 0.3)), 18.0 / max(1.0, darkest)))
        return Mix(kind, np.concatenate([one, other]) * light, (before, before))

    def whole(self, kind: str) -> Mix:
        """One shot without a change."""
        count, random = int(self.random.integers(75, 150)), self.random
        frames = self.shot(random.choice(self.names), count, kind if kind in MOVES else "")
        at, length, each = random.integers(20, count - 20), random.integers(3, 40), np.arange(count)
        done = each_of(np.clip((each - at) / length, 0, 1))
        if kind == "light":
            dim, bright = np.exp(random.uniform(-1.2, 0.9, 2))
            frames = frames * (dim * (1 - done) + bright * done) + random.uniform(0, 30) * done
        elif kind == "flicker":
            frames = frames * each_of(1 + 0.25 * np.sin(each * random.uniform(0.1, 1.5)))
        elif kind == "noise":
            frames = frames[:1] + random.normal(0, random.uniform(1, 6), frames.shape)
        elif kind == "title":
            top, layer = int(random.integers(10, 100)), np.zeros((HEIGHT, WIDTH, 1))
            layer[top : top + int(random.integers(8, 30)), 32:224] = (random.random((192, 1)) > 0.5) * 255.0
            frames = np.where(layer > 0, frames * (1 - done) + layer * done, frames)
        return Mix(kind, frames)

    def shot(self, name: str, count: int, move: str) -> Float[np.ndarray, "n h w 3"]:
        """A stretch of a shot of a film, back and forth where it is too short, seen by a camera that moves."""
        choice = [shot for film, shot in self.shots if film == name]
        film = choice[self.random.integers(len(choice))]
        last = len(film) - 1
        places = (self.random.integers(0, max(1, last - count)) + np.arange(count)) % (2 * last)
        return seen(film[np.where(places > last, 2 * last - places, places)], *MOVES[move](count, self.random))


# -- cameras -----------------------------------------------------------------------------------------------------------------------

Way = tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n 2"]]  # enlargement, and where it looks in widths and heights


def still(count: int, random: np.random.Generator) -> Way:
    """A camera that stands still."""
    return np.ones(count), np.zeros((count, 2))


def pan(count: int, random: np.random.Generator) -> Way:
    """Straight on, 0.03 to 1 widths a second."""
    angle, way = random.uniform(0, 2 * np.pi), np.exp(random.uniform(np.log(0.03), 0)) * count / FPS
    return np.full(count, 1.4), way * np.linspace(-0.5, 0.5, count)[:, None] * [np.cos(angle), np.sin(angle)]


def zoom(count: int, random: np.random.Generator) -> Way:
    """In or out, up to four times."""
    way = np.linspace(0, 1, count) if random.random() < 0.5 else np.linspace(1, 0, count)
    return random.uniform(1.2, 4.0) ** way, np.zeros((count, 2))


def shake(count: int, random: np.random.Generator) -> Way:
    """Thrown about from frame to frame."""
    return np.full(count, 1.25), random.uniform(0.01, 0.08) * random.uniform(-1, 1, (count, 2))


def sway(count: int, random: np.random.Generator) -> Way:
    """As hands do, gently or not."""
    times = np.arange(count)[:, None] / FPS
    return np.full(count, 1.25), random.uniform(0.01, 0.08) * np.sin(2 * np.pi * np.array([1.1, 1.7]) * times + random.uniform(0, 6, 2))


def whip(count: int, random: np.random.Generator) -> Way:
    """To another place within 0.15 to 0.6 s."""
    begin, length = random.uniform(0.3, 0.6) * count, random.uniform(0.15, 0.6) * FPS
    done = np.clip((np.arange(count) - begin) / length, 0, 1)
    way = random.uniform(0.3, 2.0) * random.choice([-1, 1]) * done * done * (3 - 2 * done)
    return np.full(count, 1.4), np.stack([way, np.zeros(count)], 1)


MOVES: dict[str, Callable[[int, np.random.Generator], Way]] = {
    "": still,
    "pan": pan,
    "zoom": zoom,
    "shake": shake,
    "sway": sway,
    "whip": whip,
}


def seen(frames: Frames, enlargement: Float[np.ndarray, "n"], places: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n h w 3"]:
    """Frames as a camera saw them; what lies beyond them is mirrored."""
    out = []
    for frame, scale, (x, y) in zip(frames, enlargement, places, strict=True):
        matrix = np.array([[scale, 0, WIDTH / 2 * (1 - scale) - x * WIDTH], [0, scale, HEIGHT / 2 * (1 - scale) - y * HEIGHT]])
        out.append(cv2.warpAffine(frame, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))
    return np.stack(out).astype(np.float32)


def each_of(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n 1 1 1"]:
    """One value per frame, for all of its pixels."""
    return values[:, None, None, None]


def shots_of(path: Path) -> list[Frames]:
    """The shots of a film that are long enough, in 16 : 9, at 25 frames a second."""
    media, changes = Media(path), sorted([*CHANGES.get(path.name, ()), *DISSOLVES.get(path.name, ())])
    fps = media.info.fps
    begins = [0.0, *((last + 1) / fps for _, last in changes)]
    ends = [*(first / fps for first, _ in changes), min(media.extent[1], MOST_S)]
    shots = []
    for begin, end in zip(begins, ends, strict=True):
        times = np.arange(begin + 0.5 / fps, end - 0.5 / fps, 1 / FPS)
        if len(times) >= SHORTEST:
            shots.append(np.stack([filling(picture) for picture in read_stills(path, times.tolist(), max_side=2 * WIDTH)]))
    return shots


def filling(picture: Frames) -> Frames:
    """The middle of a picture, 16 : 9."""
    height, width = picture.shape[:2]
    scale = max(WIDTH / width, HEIGHT / height)
    picture = cv2.resize(picture, (max(WIDTH, round(width * scale)), max(HEIGHT, round(height * scale))), interpolation=cv2.INTER_AREA)
    top, left = (picture.shape[0] - HEIGHT) // 2, (picture.shape[1] - WIDTH) // 2
    return picture[top : top + HEIGHT, left : left + WIDTH]


# -- finders -----------------------------------------------------------------------------------------------------------------------


def by_scenes(**settings: bool) -> Callable[[Media], Boundaries]:
    """Ours."""
    stage = Scenes(**settings)

    def find(media: Media) -> Boundaries:
        return boundaries_of(stage, media.measures)

    return find


def by_score(media: Media) -> Boundaries:
    """FFmpeg's `scdet` with its own threshold, and nothing else."""
    measures = media.measures
    return [(float(measures.times_s[row]),) * 2 for row in np.flatnonzero(measures.scene_score >= 10.0)]


def by_pyscenedetect(*detectors: type) -> Callable[[Media], Boundaries]:
    """PySceneDetect's detectors as they come, but for the shortest scene, of which there is none."""

    def find(media: Media) -> Boundaries:
        found: Boundaries = []
        for detector in detectors:
            parts = scenedetect.detect(str(media.path), detector(min_scene_len=1))
            found += [(before[1].seconds, after[0].seconds) for before, after in zip(parts, parts[1:])]
        return found

    return find


FINDERS = {
    "Scenes": by_scenes(),
    "Scenes without dissolves and dark cuts": by_scenes(find_dissolves=False, find_dark_cuts=False),
    "FFmpeg scdet >= 10": by_score,
    "PySceneDetect content": by_pyscenedetect(scenedetect.ContentDetector),
    "PySceneDetect adaptive, threshold": by_pyscenedetect(scenedetect.AdaptiveDetector, scenedetect.ThresholdDetector),
}


def main() -> None:
    """Mix, find, count, print, write."""
    parser = media_parser(__doc__, output="scenes.json")
    parser.add_argument("--seed", type=int, default=1, help="of what is mixed")
    parser.add_argument("--share", type=float, default=1.0, help="share of the clips; below 1 no results are written")
    arguments = parse_media(parser, "video")
    use_one_thread()
    mixes = Mixer(arguments.media / "video", arguments.seed).all(arguments.share)
    clips, found, wrong = Counter[str](), defaultdict(Counter[str]), defaultdict(Counter[str])
    with tempfile.TemporaryDirectory() as folder:
        for number, mix in enumerate(mixes):
            path = Path(folder) / f"{number}.mp4"
            write_video(path, torch.from_numpy(np.clip(mix.frames, 0, 255)).permute(3, 0, 1, 2).float() / 127.5 - 1.0, fps=FPS, crf=20)
            clips[mix.kind] += 1
            for name, find in FINDERS.items():
                hits, misses = judged(find(Media(path)), mix.change)
                found[name][mix.kind] += hits
                wrong[name][mix.kind] += misses
            path.unlink()
    rows = {name: row(clips, found[name], wrong[name]) for name in FINDERS}
    for name, told in rows.items():
        print(name)
        for key, value in told.items():
            print(f"  {key}: {value}")
    if arguments.share >= 1:
        record = {"machine": {"cpu": processor()}, "seed": arguments.seed, "tolerance_frames": TOLERANCE, "clips": dict(clips)}
        write_record({**record, "finders": rows}, arguments.output)


def judged(boundaries: Sequence[tuple[float, float]], change: tuple[int, int] | None) -> tuple[int, int]:
    """Whether a change was found, and how many boundaries are wrong."""
    if change is None:
        return 0, len(boundaries)
    first, last = (change[0] - TOLERANCE) / FPS, (change[1] + TOLERANCE) / FPS
    hits = sum(end <= last and first <= begin for end, begin in boundaries)
    return int(hits > 0), len(boundaries) - hits


def row(clips: Counter[str], found: Counter[str], wrong: Counter[str]) -> dict[str, object]:
    """A finder's figures."""
    kinds = {kind: f"{found[kind]} of {clips[kind]}" for kind in COUNTS}
    total = found.total()
    share = total / max(1, total + wrong.total())
    told = {kind: count for kind, count in sorted(wrong.items()) if count}
    return {**kinds, "precision": round(share, 3), "recall": round(total / sum(clips[kind] for kind in COUNTS), 3), "wrong": told}


if __name__ == "__main__":
    main()
