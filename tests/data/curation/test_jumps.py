"""Jumps from frame to frame: thrown cameras are no cuts, cuts in the dark are."""

import math

import numpy as np
import pytest
from motion_clips import file_of, hold, pan, texture

from moviegen_data.curation import Media
from moviegen_data.curation.cells import displaced_likeness
from moviegen_data.curation.jumps import dark_cuts, thrown
from moviegen_data.curation.shots import cuts
from moviegen_data.curation.stages.scenes import Scenes


def _thrown(num_frames, seed=0, still=()):
    """A camera that looks elsewhere in every frame, by up to a twelfth of the width, but for some in which it stays."""
    wide, places = texture(180, 320, seed=seed), np.random.default_rng(seed).integers(-26, 27, (num_frames, 2))
    for row in still:
        places[row] = places[row - 1]
    return np.stack([wide[40 + y // 2 : 136 + y // 2, 80 + x : 240 + x] for y, x in places])


def _measures(tmp_path, media_maker, frames):
    return Media(file_of(tmp_path, media_maker, frames.astype(np.uint8))).measures


def test_thrown_cameras_do_not_cut(tmp_path, media_maker):
    measures = _measures(tmp_path, media_maker, _thrown(30, still=(8, 9, 17, 18)))
    jumps = cuts(measures.scene_score, measures.times_s, 10.0)
    assert jumps and thrown(measures, jumps) == jumps
    assert Scenes().cut_rows(measures) == []


def test_cuts_between_thrown_cameras_are_cuts(tmp_path, media_maker):
    frames = np.concatenate([_thrown(15, still=(12, 13, 14)), _thrown(15, seed=1, still=(1, 2))])
    assert Scenes().cut_rows(_measures(tmp_path, media_maker, frames)) == [15]


@pytest.mark.parametrize(("rows", "columns"), [(slice(None), slice(56, 104)), (slice(24, 72), slice(None))])
def test_bars_do_not_make_a_cut_a_throw(rows, columns, tmp_path, media_maker):
    frames = np.concatenate([_thrown(15, seed=2, still=(12, 13, 14)), _thrown(15, seed=3, still=(1, 2))])
    barred = np.zeros_like(frames)
    barred[:, rows, columns] = frames[:, rows, columns]
    measures = _measures(tmp_path, media_maker, barred)
    assert displaced_likeness(*measures.cells[14:16]) > 0.8 and thrown(measures, [15]) == []


def test_a_jump_in_a_calm_shot_is_a_cut(tmp_path, media_maker):
    wide = texture(96, 200)
    frames = np.concatenate([np.repeat(wide[None, :, at : at + 160], 12, 0) for at in (0, 24)])
    measures = _measures(tmp_path, media_maker, frames)
    assert displaced_likeness(*measures.cells[11:13]) > 0.8 and thrown(measures, [12]) == []
    assert Scenes().cut_rows(measures) == [12]


def test_cuts_in_the_dark_are_found(tmp_path, media_maker):
    frames = np.concatenate([pan(12, 1, seed=seed, least=10, most=60) for seed in (0, 1)])
    measures = _measures(tmp_path, media_maker, frames)
    assert measures.scene_score[12] < 10.0 and dark_cuts(measures) == [12] == Scenes().cut_rows(measures)[0:1]
    assert Scenes(find_dark_cuts=False).cut_rows(measures) == []


@pytest.mark.parametrize(
    "kind", ["light", "a thing appears", "a thing moves into the light", "noise", "pan", "black", "one frame", "flash"]
)
def test_what_is_no_cut_in_the_dark(tmp_path, media_maker, kind):
    frames = hold(24, least=10, most=60).astype(float)
    if kind == "light":
        frames[12:] *= 1.8
    elif kind == "a thing appears":
        frames[12:, 20:80, 30:80] = 120
    elif kind == "a thing moves into the light":
        frames[:12], frames[12:] = 20, 34
        frames[:12, 20:60, 20:60] = frames[12:, 20:60, 80:120] = 80
    elif kind == "noise":
        frames += np.random.default_rng(0).normal(0, 10, frames.shape)
    elif kind == "pan":
        frames = pan(24, 12, least=10, most=60)
    elif kind == "black":
        frames[:] = 0
    elif kind == "one frame":
        frames = frames[:1]
    elif kind == "flash":
        frames[12:14] = texture(seed=3, least=10, most=60)
    assert Scenes().cut_rows(_measures(tmp_path, media_maker, np.clip(frames, 0, 255))) == []


def test_likeness_is_that_of_the_best_place():
    random = np.random.default_rng(0)
    wide = random.integers(0, 256, (9, 40)).astype(np.uint8)
    assert displaced_likeness(wide[:, 10:26], wide[:, 10:26]) == pytest.approx(1.0)
    assert displaced_likeness(wide[:, 10:26], wide[:, 13:29]) > 0.95
    assert displaced_likeness(wide[:, 10:26], wide[:, 23:39]) < 0.7  # too far away
    assert math.isnan(displaced_likeness(wide[:, :16], np.full((9, 16), 80, np.uint8)))
    assert math.isnan(displaced_likeness(wide[:3, :16], wide[:3, :16]))
