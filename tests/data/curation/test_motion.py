"""Slow, wild, static, sliding and jittery clips are told from good ones."""

import pickle

import numpy as np
import pytest
from motion_clips import file_of, hold, measures_of, pan, texture

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.stages.jitter import Jitter
from moviegen_data.curation.stages.motion import Motion
from moviegen_data.curation.stages.static import Static

CLIP = Clip("a", "a.mp4")


class _Film:
    """A medium whose measures are given."""

    kind = "video"

    def __init__(self, measures):
        self.measures = measures


def _times(count, fps=10):
    return (np.arange(count) / fps).tolist()


def _moving(count, motion=3.0, vector_px=2.0):
    return _Film(measures_of(_times(count), count / 10, motion=np.full(count, motion), vector_px=np.full(count, vector_px)))


@pytest.mark.parametrize(
    ("motion", "vector_px", "reason"),
    [
        (3.0, 2.0, None),
        (2.0, 2.0, "too little motion"),
        (3.0, 0.5, "too little motion"),
        (3.0, 7.0, "too much motion"),
        (2.01, 6.99, None),
    ],
)
def test_limits_are_those_of_the_paper(motion, vector_px, reason):
    clip = Motion().apply(CLIP, _moving(20, motion, vector_px))
    assert (clip.drop.reason if clip.drop else None) == reason
    assert clip.scores == pytest.approx({"motion_score": motion, "motion_vector_px": vector_px}, abs=1e-5)
    assert Motion(min_score=None, min_vector_px=None, max_vector_px=None).apply(CLIP, _moving(20, motion, vector_px)).drop is None


def test_only_the_clip_counts():
    motion = np.concatenate([np.full(10, 0.1), [50.0], np.full(9, 3.0)])  # 50 is the cut that the clip begins after
    film = _Film(measures_of(_times(20), 2.0, motion=motion, vector_px=np.full(20, 2.0)))
    assert Motion().apply(Clip("a", "a.mp4", start_s=1.0), film).scores["motion_score"] == pytest.approx(3.0)
    assert Motion().apply(Clip("a", "a.mp4", end_s=1.0), film).drop.reason == "too little motion"


def test_vectors_may_be_told_for_one_size():
    clip = Motion(reference_px=720).apply(CLIP, _moving(20, 3.0, 2.0))
    assert clip.scores["motion_vector_px"] == pytest.approx(2.0 * 720 / 96)


def test_films_of_all_frame_rates_compare(tmp_path, media_maker):
    clip = Motion(reference_fps=30).apply(CLIP, _moving(20, 3.0, 2.0))  # of 10 fps
    assert clip.scores == pytest.approx({"motion_score": 1.0, "motion_vector_px": 2 / 3}, abs=1e-5)
    stage, told = Motion(reference_fps=20, min_score=None, min_vector_px=None, max_vector_px=None), {}
    for fps in (10, 20):  # one camera move in a second
        path = file_of(tmp_path, media_maker, pan(2 * fps, 40 // fps), name=f"{fps}.mp4", fps=fps)
        told[fps] = stage.apply(CLIP, Media(path)).scores
    assert told[10] == pytest.approx(told[20], rel=0.2)


def test_few_frames_and_no_vectors_are_no_accident():
    assert Motion().apply(CLIP, _moving(1)).drop.reason == "no motion"
    clip = Motion().apply(CLIP, _moving(5, 3.0, np.nan))
    assert clip.scores["motion_vector_px"] == 0.0 and clip.drop.reason == "too little motion"


def test_rendered_pans_and_stills(tmp_path, media_maker):
    def judged(stage, frames, name):
        return stage.apply(CLIP, Media(file_of(tmp_path, media_maker, frames, name=name))).drop

    assert judged(Motion(), pan(10, 3), "pan.mp4") is None
    assert judged(Motion(), pan(10, 14), "fast.mp4").reason == "too much motion"
    assert judged(Motion(), hold(10), "still.mp4").reason == "too little motion"
    assert judged(Motion(), np.zeros((10, 32, 32, 3), np.uint8), "black.mp4").reason == "too little motion"
    assert judged(Static(), pan(10, 3), "pan.mp4") is None
    assert judged(Static(), hold(10), "still.mp4").reason == "static"
    slides = np.concatenate([hold(10, seed=seed) for seed in range(3)])
    assert judged(Static(), slides, "slides.mp4").reason == "slideshow"
    rain = np.stack([np.random.default_rng(n).integers(0, 60, (96, 160, 1)) for n in range(8)]) + texture(least=40, most=190)
    drop = judged(Static(), rain.astype(np.uint8), "rain.mp4")
    assert drop.reason == "static" and drop.measured == "0% of the picture moves"


def test_a_low_rate_shown_at_a_high_one_is_no_slideshow():
    motion = np.tile([9.0, 0.0, 0.0, 0.0, 0.0], 12)  # 6 pictures a second, shown at 30
    cells = np.zeros((60, 9, 16), np.uint8)
    cells[30:] = 200
    clip = Static().apply(CLIP, _Film(measures_of(_times(60, 30), 2.0, motion=motion, cells=cells)))
    assert clip.drop is None and clip.scores == {"moving_area": 1.0, "still_share": 0.0}


def test_still_time_counts_by_the_clock():
    cells = np.arange(4, dtype=np.uint8)[:, None, None] * np.full((1, 9, 16), 60, np.uint8)
    film = _Film(measures_of([0.0, 1.5, 1.6, 3.2], 3.3, motion=[0.0, 9.0, 9.0, 9.0], cells=cells))  # frames that stay on for long
    assert Static().apply(CLIP, film).scores["still_share"] == pytest.approx(3.1 / 3.3, abs=1e-5)


def _shaken(shift, fps=25, num_frames=50):
    generator = np.random.default_rng(1)
    wide = texture(96 + 2 * shift, 160 + 2 * shift, 3, 0, 255)
    rows, columns = generator.integers(0, 2 * shift + 1, (2, num_frames))
    return np.stack([wide[row : row + 96, column : column + 160] for row, column in zip(rows, columns)])


def test_shaking_is_jitter_and_panning_is_not(tmp_path, media_maker):
    for shift, jittery in ((20, True), (1, False)):
        media = Media(file_of(tmp_path, media_maker, _shaken(shift), name=f"{shift}.mp4", fps=25))
        clip = Jitter().apply(CLIP, media)
        assert (clip.drop is not None) == jittery, clip.scores
    assert Jitter().apply(CLIP, Media(file_of(tmp_path, media_maker, pan(20, 4)))).scores == {"shots_per_s": 0.0}


def test_shots_are_counted_over_the_clip():
    content = np.zeros(100)
    content[[20, 40, 43, 60]] = 30.0  # the third comes too soon after the second
    film = _Film(measures_of(_times(100), 10.0, content=content))
    assert Jitter().apply(CLIP, film).scores["shots_per_s"] == pytest.approx(0.4)
    assert Jitter(max_shots_per_s=0.39).apply(CLIP, film).drop.reason == "jittery"
    assert Jitter(min_shot_s=0.2).apply(CLIP, film).scores["shots_per_s"] == pytest.approx(0.5)
    assert Jitter().apply(Clip("a", "a.mp4", start_s=2.0, end_s=4.0), film).scores["shots_per_s"] == 0.0  # it begins at the cut


@pytest.mark.parametrize(
    ("fps", "score", "jittery"), [(25, 16, True), (60, 16, True), (15, 16, False), (15, 26, True), (8, 26, False), (8, 28, True)]
)
def test_a_low_frame_rate_is_no_jitter(fps, score, jittery):
    film = _Film(measures_of(_times(4 * fps, fps), 4.0, content=np.full(4 * fps, float(score))))
    assert (Jitter().apply(CLIP, film).drop is not None) == jittery
    assert Jitter(threshold=40.0).apply(CLIP, film).drop is None


def test_one_flash_is_no_jitter_however_short_the_clip():
    for flashes, jittery in (([20], False), ([20, 40], True)):
        content = np.zeros(50)
        content[flashes] = 40.0
        clip = Jitter().apply(CLIP, _Film(measures_of(_times(50, 25), 2.0, content=content)))
        assert (clip.drop is not None) == jittery and clip.scores["shots_per_s"] == (1.5 if jittery else 1.0)


def test_settings_are_checked_and_travel(tmp_path):
    for make in (
        lambda: Motion(min_vector_px=7.0),
        lambda: Motion(reference_px=0),
        lambda: Motion(reference_fps=0.0),
        lambda: Motion(reference_fps=float("nan")),
        lambda: Static(min_moving_area=2.0),
        lambda: Static(max_still_share=-0.1),
        lambda: Jitter(threshold=-1.0),
    ):
        with pytest.raises(UsageError):
            make()
    for stage in (Motion(min_score=1.0), Static(change=9.0), Jitter(threshold=9.0)):
        assert vars(pickle.loads(pickle.dumps(stage))) == vars(stage)
        for name in ("a.png", "a.wav"):
            assert stage.apply(CLIP, Media(tmp_path / name)) is CLIP
