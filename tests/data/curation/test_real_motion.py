"""Cuts, still and moving pictures on labelled real clips: precision and recall of what the stages say of them."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from moviegen_data.curation import Clip, Media
from moviegen_data.curation.stages.jitter import Jitter
from moviegen_data.curation.stages.motion import Motion
from moviegen_data.curation.stages.scenes import Scenes
from moviegen_data.curation.stages.static import Static

pytestmark = pytest.mark.media
CLIP = Clip("a", "a.mp4")
MOVING = (
    "basketball_426x240.mp4",
    "carphone_176x144.mp4",
    "cat_368x480_20fps.mp4",
    "dog_barks_480x360_15fps.mp4",
    "hammer_anvil_640x360.mp4",
    "weightlifting_320x240.mp4",
)
STATIC = ("testcard_1080p.mp4", "raindrops_480x480.mp4")
CUTS = {
    "bikes_cuts_640x272.mp4": [30, 76, 137, 187, 242],
    "congas_cut_640x360.mp4": [98],
    "nasa_320x180_two_video_streams.mp4": [202],
    **{name: [] for name in (*MOVING, *STATIC)},
}


@functools.cache
def _media(path: Path) -> Media:
    return Media(path)


def _compared(found: list[int], true: list[int]) -> tuple[int, int, int]:
    """Cuts that are right, found and there; two frames aside are right."""
    right = sum(any(abs(row - cut) <= 2 for row in found) for cut in true)
    return right, len(found), len(true)


@pytest.mark.parametrize(("method", "precision"), [("ffmpeg", 1.0), ("pyscenedetect", 0.87), ("both", 0.87)])
def test_labelled_cuts(media, method, precision):
    counts = [_compared(Scenes(method=method).cut_rows(_media(media / "video" / name).measures), true) for name, true in CUTS.items()]
    right, found, true = np.sum(counts, axis=0)
    assert right == true == 7  # recall 1
    assert right / found >= precision, counts  # the content score also finds where a dissolve begins


def test_static_and_moving_ones_are_told_apart(media):
    for name in CUTS:
        clip = Static().apply(CLIP, _media(media / "video" / name))
        assert (clip.drop is not None) == (name in STATIC), (name, clip.scores)
    assert Motion().apply(CLIP, _media(media / "video" / "testcard_1080p.mp4")).drop.reason == "too little motion"
    for name in ("basketball_426x240.mp4", "weightlifting_320x240.mp4"):
        assert Motion().apply(CLIP, _media(media / "video" / name)).drop is None


def test_steady_cameras_and_ordinary_cuts_are_no_jitter(media):
    for name in CUTS:
        clip = Jitter().apply(CLIP, _media(media / "video" / name))
        assert clip.drop is None, (name, clip.scores)


def test_rows_are_those_of_the_manifest(media):
    for entry in json.loads((media / "MANIFEST.json").read_text()):
        if Path(entry["file"]).name in CUTS:
            measures = _media(media / entry["file"]).measures
            assert (len(measures), measures.height) == (entry["frames"], entry["height"])
            assert measures.duration_s == pytest.approx(entry["duration_s"], abs=0.1)


@pytest.mark.slow
def test_films_with_dark_scenes_and_titles(media):
    hard = [286, 348, 356, 372, 523, 573, 610, 624]  # seen by eye; the others of its changes are fades
    measures = _media(media / "video" / "sintel_30s_cuts_854x480.mp4").measures
    assert _compared(Scenes().cut_rows(measures), hard) == (8, 8, 8)
    assert _compared(Scenes(find_dark_cuts=False).cut_rows(measures), hard) == (6, 6, 8)  # two are between dark or like pictures
    bunny = _media(media / "video" / "bunny_30s_720p_vp8.webm").measures
    assert bunny.vectors == "estimated" and _compared(Scenes().cut_rows(bunny), [283, 376, 551])[0] == 3
