"""Scenes between cuts and fades, and clips from within them."""

import pickle

import numpy as np
import pytest
from motion_clips import file_of, measures_of, pan

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.shots import Scene, cuts, scenes
from moviegen_data.curation.stages.scenes import Scenes


class _Film:
    """A medium whose measures are given."""

    kind = "video"

    def __init__(self, measures):
        self.measures = measures


def _film(duration_s, cut_times=(), fps=10, **columns):
    times = (np.arange(round(duration_s * fps)) / fps).tolist()
    score = np.zeros(len(times), np.float32)
    score[[round(time * fps) for time in cut_times]] = 40.0
    return _Film(measures_of(times, duration_s, **{"scene_score": score, "content": score, **columns}))


def test_rendered_cuts_are_found_by_every_method(tmp_path, media_maker):
    frames = np.concatenate([pan(10, 2, least=least, most=least + 60) for least in (0, 190, 40)])
    media = Media(file_of(tmp_path, media_maker, frames))
    for method in ("ffmpeg", "pyscenedetect", "both"):
        stage = Scenes(method=method, min_scene_s=None, min_s=0.4, max_s=2.0, head_s=0.0, max_scenes=3)
        assert stage.cut_rows(media.measures) == [10, 20]
        clips = list(stage.apply(Clip("a", "a.mp4"), media))
        assert [clip.key for clip in clips] == ["a+000", "a+001", "a+002"] and clips[0].scores == {"num_scenes": 3.0}
        for number, clip in enumerate(clips):
            assert number + 0.09 <= clip.start_s < clip.end_s <= number + 0.91


def test_one_shot_has_no_cut(tmp_path, media_maker):
    media = Media(file_of(tmp_path, media_maker, pan(12, 3)))
    assert Scenes(method="both").cut_rows(media.measures) == []


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_flash_is_no_cut_and_a_short_shot_is_one(tmp_path, media_maker, length):
    frames = pan(24, 2, least=10, most=90)
    frames[12 : 12 + length] = 250
    media = Media(file_of(tmp_path, media_maker, frames))
    assert Scenes(method="both").cut_rows(media.measures) == ([] if length <= 3 else [12, 16])


def test_a_flash_at_a_cut_leaves_the_cut(tmp_path, media_maker):
    before, after = pan(12, 2, least=10, most=90), pan(12, 2, seed=5, least=120, most=180)
    media = Media(file_of(tmp_path, media_maker, np.concatenate([before, np.full_like(before[:1], 250), after])))
    assert Scenes(method="both").cut_rows(media.measures) == [12, 13]


def test_clips_keep_the_promises():
    film = _film(100.0, cut_times=(1.0, 30.0, 40.0, 62.0))
    stage = Scenes(max_scenes=2)
    lengths, starts = [], []
    for number in range(300):
        clips = list(stage.apply(Clip(f"video-{number}", "a.mp4"), film))
        assert len(clips) == 2
        for clip in clips:
            lengths.append(clip.end_s - clip.start_s)
            starts.append(clip.start_s)
            inside = [(a, b) for a, b in ((1.0, 30.0), (40.0, 62.0), (62.0, 100.0)) if a < clip.start_s and clip.end_s < b]
            assert inside and clip.start_s >= 2.0 and 4.0 <= lengths[-1] <= 16.0
    assert np.mean(np.array(lengths) >= 15.0) > 0.5  # B.1: more than half of the clips
    assert min(lengths) < 5.0 and len(set(starts)) == 600  # and the others of any length, anywhere
    again = list(stage.apply(Clip("video-7", "a.mp4"), film))
    elsewhere = list(Scenes(max_scenes=2).apply(Clip("video-7", "b.mp4"), film))  # the key decides, not the path
    assert [(clip.start_s, clip.end_s) for clip in elsewhere] == [(clip.start_s, clip.end_s) for clip in again]
    other = list(Scenes(max_scenes=2, seed=1).apply(Clip("video-7", "a.mp4"), film))
    assert [clip.start_s for clip in other] != [clip.start_s for clip in again]


def test_several_clips_of_a_scene_do_not_overlap():
    clips = list(Scenes(clips_per_scene=4, max_scenes=1).apply(Clip("a", "a.mp4"), _film(40.0)))
    assert len(clips) == 4
    assert all(before.end_s <= after.start_s for before, after in zip(clips, clips[1:]))


def test_a_part_is_cut_within_itself():
    film = _film(60.0, cut_times=(25.0,))
    clip = Clip("a", "a.mp4", start_s=5.0, end_s=24.0)
    (part,) = Scenes().apply(clip, film)
    assert 5.0 < part.start_s < part.end_s < 24.0 and part.scores == {"num_scenes": 1.0}


def test_videos_without_a_long_scene_are_dropped():
    clip = Scenes().apply(Clip("a", "a.mp4"), _film(30.0, cut_times=(10.0, 20.0)))
    assert str(clip.drop) == ": no long scene (the longest of 3 is 10.00 s, wanted more than 16 s without a cut)"
    assert clip.scores == {"num_scenes": 3.0}


def test_black_frames_and_fades_are_no_scene():
    luma = np.full(100, 100.0)
    luma[40:50] = 2.0
    luma[50:58] = np.linspace(12, 96, 8)  # fades in; the cut to black before it is hard
    film = _film(10.0, luma=luma)
    assert scenes(film.measures, [], 12.0) == [Scene(0.0, 4.0), Scene(5.9, 10.0)]
    assert scenes(film.measures, [], None) == [Scene(0.0, 10.0)]
    assert scenes(_film(3.0, luma=np.zeros(30)).measures, [], 12.0) == []


def test_drawings_on_black_are_no_black_frames():
    luma = np.full(100, 10.0)
    luma[50:] = 60.0
    drawn = np.full((100, 9, 16), 4, np.uint8)
    drawn[:, 3:6, 4:12] = 100
    assert len(scenes(_film(10.0, luma=luma, cells=drawn).measures, [], 12.0)) == 1
    noisy = np.random.default_rng(0).integers(0, 28, drawn.shape)  # some frames are lit, some are not
    assert scenes(_film(10.0, luma=luma, cells=noisy.astype(np.uint8)).measures, [], 12.0) == [Scene(5.0, 10.0)]
    assert scenes(_film(10.0, luma=luma, cells=drawn // 8).measures, [], 12.0) == [Scene(5.0, 10.0)]


def test_cuts_are_as_pyscenedetect_suppresses_them():
    detector = pytest.importorskip("scenedetect.detector", reason="the reference for shortest shots")
    from scenedetect import FrameTimecode

    scores = np.random.default_rng(0).uniform(0, 40, 400).astype(np.float32)
    flashes = detector.FlashFilter(detector.FlashFilter.Mode.SUPPRESS, 15)
    theirs = [
        row for row, score in enumerate(scores) if flashes.filter(timecode=FrameTimecode(row, fps=25.0), above_threshold=bool(score >= 27))
    ]
    assert cuts(scores, np.arange(400) / 25, 27.0, 0.6) == theirs and len(theirs) > 10


def test_settings_are_checked_and_travel():
    for wrong in ({"method": "magic"}, {"min_s": 9.0, "max_s": 8.0}, {"max_scenes": 0}, {"head_s": -1.0}, {"min_s": 0.0}):
        with pytest.raises(UsageError):
            Scenes(**wrong)
    assert vars(pickle.loads(pickle.dumps(Scenes(seed=3)))) == vars(Scenes(seed=3))


def test_pictures_pass(tmp_path):
    clip = Clip("a", "a.png")
    assert Scenes().apply(clip, Media(tmp_path / "a.png")) is clip
