"""Dissolves in mixes with known answers, and what is none: pans, zooms, light, fades, noise, cuts."""

import numpy as np
import pytest
from motion_clips import hold, measures_of, pan, texture

from moviegen_data.curation.dissolves import find_dissolves
from moviegen_data.curation.shots import Scene, scenes

FPS = 25
SHOT = {"height": 90, "width": 160}


def _cells(frames):
    """Luma of blocks of 10 px."""
    luma = frames.reshape(*frames.shape[:3], -1).mean(-1)
    return luma.reshape(len(luma), 9, 10, 16, 10).mean((2, 4)).round().astype(np.uint8)


def _measures(cells, times=None):
    times = np.arange(len(cells)) / FPS if times is None else times
    luma = cells.mean((1, 2))
    return measures_of(times.tolist(), float(times[-1]) + 1 / FPS, cells=cells, luma=luma)


def _found(cells, times=None, shots=None):
    return find_dissolves(_measures(cells, times), np.zeros(len(cells), int) if shots is None else shots)


def _dissolve(before, after, length, share=lambda s: s):
    """The end of one shot over the beginning of the other."""
    mixed = share(np.arange(1, length + 1) / (length + 1))[:, None, None, None]
    return np.concatenate([before[:-length], before[-length:] * (1 - mixed) + after[:length] * mixed, after[length:]])


def _zoom(num_frames, factor):
    wide = texture(180, 320)
    frames = []
    for scale in factor ** np.linspace(0, 1, num_frames):
        rows, columns = (centre + (np.arange(size) - size / 2) / scale for centre, size in ((90, 90), (160, 160)))
        frames.append(wide[np.ix_(rows.astype(int), columns.astype(int))])
    return np.stack(frames)


@pytest.mark.parametrize(("length", "step"), [(5, 0), (8, 0), (13, 0), (25, 0), (45, 0), (5, 1), (8, 1), (13, 1)])
def test_mixes_of_two_shots_are_found(length, step):
    before, after = pan(70, step, seed=1, **SHOT), pan(70, step, seed=2, **SHOT)
    ((first, last),) = _found(_cells(_dissolve(before, after, length)))
    slack = max(2, length // 4)
    assert first <= 70 - length + 1 + step * slack and last >= 69 - 1 - step * slack  # hardly a mixed frame is left outside
    assert first >= 70 - length - slack and last <= 69 + slack  # and not much else is inside


def test_slow_beginnings_and_ends_are_inside():
    before, after = hold(70, seed=1, **SHOT), hold(70, seed=2, **SHOT)
    ((first, last),) = _found(_cells(_dissolve(before, after, 30, lambda s: s * s * (3 - 2 * s))))
    assert 37 <= first <= 42 and 67 <= last <= 72


def test_several_are_found_in_order_and_the_order_of_pictures_does_not_matter():
    shots = [hold(40, seed=seed, **SHOT) for seed in range(4)]
    frames = shots[0]
    for shot in shots[1:]:
        frames = _dissolve(frames, shot, 10)
    cells = _cells(frames)
    found = _found(cells)
    assert [abs(first - at) <= 3 and abs(last - at - 9) <= 3 for (first, last), at in zip(found, (30, 60, 90), strict=True)] == [True] * 3
    back = [(len(cells) - 1 - last, len(cells) - 1 - first) for first, last in reversed(_found(cells[::-1]))]
    assert np.abs(np.array(back) - found).max() <= 1


def test_a_short_one_beside_a_long_one_is_found():
    shots = [hold(1, seed=seed, **SHOT).astype(float) for seed in (1, 2, 3)]
    shots[1] = 128 + (shots[1] - 128) / 2  # so flat that the way from the first picture to the last is longer than to it
    parts = np.concatenate([np.zeros(40), np.arange(1, 26) / 26, np.ones(5), 1 + np.arange(1, 9) / 9, np.full(40, 2.0)])
    shares = np.stack([np.maximum(1 - np.abs(parts - shot), 0) for shot in range(3)])[..., None, None, None]
    (_, last), (first, end) = _found(_cells(sum(share * shot for share, shot in zip(shares, shots, strict=True))))
    assert 61 <= last <= 70 and 66 <= first <= 72 and 76 <= end <= 80


def test_times_count_and_not_frames():
    cells = _cells(_dissolve(hold(100, seed=1, **SHOT), hold(100, seed=2, **SHOT), 40))
    assert len(_found(cells, np.arange(len(cells)) / 50)) == 1  # 0.8 s
    assert _found(cells, np.arange(len(cells)) / 4) == []  # 10 s
    keep = np.sort(np.random.default_rng(0).permutation(len(cells))[:80])  # half of the frames, at their own times
    ((first, last),) = _found(cells[keep], keep / 50)
    assert 50 <= keep[first] <= 62 and 97 <= keep[last] <= 109


def test_borders_do_not_make_pictures_alike():
    cells = _cells(_dissolve(hold(60, seed=1, **SHOT), hold(60, seed=2, **SHOT), 15))
    cells[:, [0, 1, 7, 8]] = 0
    assert len(_found(cells)) == 1


def _noisy(frames, seed=0):
    return np.clip(frames + np.random.default_rng(seed).normal(0, 12, frames.shape), 0, 255)


def _lit(light):
    return hold(80, **SHOT) * np.asarray(light)[:, None, None, None]


def _moving():
    """A bright thing that moves while all around gets darker."""
    frames = np.repeat(np.linspace(160, 60, 80)[:, None, None, None], 90, 1) * np.ones((1, 1, 160, 3))
    for row in range(80):
        frames[row, 30:60, row : row + 40] = 250
    return frames


def _fade():
    fades = np.concatenate([np.ones(30), np.linspace(1, 0, 15), np.zeros(5), np.linspace(0, 1, 15), np.ones(30)])[:, None, None, None]
    return np.concatenate([hold(48, seed=1, **SHOT), hold(47, seed=2, **SHOT)]) * fades


NONE = {
    "one frame": lambda: hold(1, **SHOT),
    "two frames": lambda: hold(2, **SHOT),
    "black": lambda: np.zeros((40, 90, 160, 3)),
    "still": lambda: hold(80, **SHOT),
    "noise": lambda: _noisy(hold(80, **SHOT)),
    "slow pan": lambda: pan(80, 1, **SHOT),
    "pan": lambda: pan(80, 3, **SHOT),
    "fast pan": lambda: pan(80, 12, **SHOT),
    "slow zoom": lambda: _zoom(80, 1.3),
    "zoom": lambda: _zoom(80, 4.0),
    "darker": lambda: _lit(np.interp(np.arange(80), (30, 50), (1.0, 0.4))),
    "flicker": lambda: _lit(0.8 + 0.2 * np.sin(np.arange(80) / 3)),
    "a thing that moves": _moving,
    "a cut": lambda: np.concatenate([pan(40, 2, seed=1, **SHOT), pan(40, 2, seed=2, **SHOT)]),
    "a fade in": lambda: _lit(np.interp(np.arange(80), (20, 50), (0.0, 1.0))),
    "fades through black": _fade,
}


@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_dissolve(kind):
    assert _found(_cells(np.asarray(NONE[kind]()))) == []


def test_a_title_over_a_picture_is_none():
    frames = hold(80, **SHOT).astype(float)
    title = frames[0].copy()
    title[35:55, 30:130] = 255
    share = np.interp(np.arange(80), (30, 45), (0.0, 1.0))[:, None, None, None]
    assert _found(_cells(frames * (1 - share) + title * share)) == []


def test_none_reaches_over_a_cut_or_black_frames():
    cells = _cells(_dissolve(hold(60, seed=1, **SHOT), hold(60, seed=2, **SHOT), 15))
    assert len(_found(cells)) == 1
    assert _found(cells, shots=np.arange(len(cells)) // 52) == []
    assert _found(cells, shots=np.full(len(cells), -1)) == []


def test_long_films_are_read_in_blocks():
    one = _cells(_dissolve(hold(60, seed=1, **SHOT), hold(60, seed=2, **SHOT), 15))
    film = np.concatenate([one, one[::-1]] * 40)  # where one ends, the next begins with the same picture
    found = _found(film)
    assert len(found) == 80
    assert np.ptp([first % 210 for first, _ in found[::2]]) == 0 == np.ptp([last % 210 for _, last in found[1::2]])


def test_frames_of_dissolves_are_part_of_no_scene():
    measures = _measures(_cells(_dissolve(hold(60, seed=1, **SHOT), hold(60, seed=2, **SHOT), 15)))
    before, after = scenes(measures, [], 12.0, dissolves=True)
    assert before.start_s == 0.0 and 1.6 <= before.end_s <= 1.88 and 2.36 <= after.start_s <= 2.64 and after.end_s == measures.end_s
    assert scenes(measures, [], 12.0) == [Scene(0.0, measures.end_s)]
