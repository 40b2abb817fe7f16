"""One pass over a video: each column against what the picture was made of, or against FFmpeg and PySceneDetect themselves."""

import dataclasses

import numpy as np
import pytest
from motion_clips import file_of, hold, measures_of, pan, texture

from moviegen_data.curation.measures import measure
from moviegen_data.faults import SampleError


def test_vectors_of_a_pan_are_its_speed(tmp_path, media_maker):
    for codec, ending, kind in (("libx264", "mp4", "exported"), ("mpeg4", "avi", "exported"), ("libvpx-vp9", "webm", "estimated")):
        path = file_of(tmp_path, media_maker, pan(8, 4), name=f"pan.{ending}", codec=codec, container=ending)
        measures = measure(path)
        assert measures.vectors == kind and len(measures) == 8
        assert np.isnan(measures.vector_px[0]) and np.isfinite(measures.vector_px[1:]).all()
        assert np.median(measures.vector_px[1:]) == pytest.approx(4.0, rel=0.4 if codec == "libx264" else 0.25)  # x264 points over B frames


def test_key_frames_alone_are_estimated(tmp_path, media_maker):
    measures = measure(file_of(tmp_path, media_maker, pan(6, 4), keyframe_every=1))
    assert measures.vectors == "estimated" and np.nanmedian(measures.vector_px) == pytest.approx(4.0, rel=0.25)


def test_motion_is_the_mean_change_of_luma(tmp_path, media_maker):
    measures = measure(file_of(tmp_path, media_maker, media_maker.grey_steps(6, step=10)))
    # A plain grey stays plain when it is blurred. 10 of 255 levels are 10 * 219 / 255 of the stored 16 to 235.
    assert np.isnan(measures.motion[0]) and measures.motion[1:] == pytest.approx(10 * 219 / 255, abs=0.6)
    assert np.isnan(measures.scene_score[:2]).all() and measures.scene_score[2:] == pytest.approx(0.0, abs=0.4)  # what goes on is no cut
    assert measures.content[1:] == pytest.approx(10 / 3, abs=0.4)  # value alone, of three channels
    assert measures.luma == pytest.approx(20 + 10 * np.arange(6), abs=1.5)
    assert (measures.cells == measures.luma.round().astype(np.uint8)[:, None, None]).mean() > 0.9


def test_a_cut_scores_its_change_in_per_cent(tmp_path, media_maker):
    grey = np.repeat(np.array([50, 50, 50, 150, 150], np.uint8), 32 * 32 * 3).reshape(5, 32, 32, 3)
    assert measure(file_of(tmp_path, media_maker, grey)).scene_score[2:] == pytest.approx([0.0, 100 * 219 / 255 / 256 * 100, 0.0], abs=0.5)


def test_a_still_picture_measures_nothing(tmp_path, media_maker):
    measures = measure(file_of(tmp_path, media_maker, hold(6)))
    for name in ("motion", "scene_score", "content", "vector_px"):
        assert np.nanmax(getattr(measures, name)) < 0.3, name


def test_scores_hardly_depend_on_the_size_they_are_taken_at(tmp_path, media_maker):
    path = file_of(tmp_path, media_maker, pan(5, 6, height=240, width=320))
    own, small = measure(path, side_px=None), measure(path, side_px=160)
    assert np.nanmean(small.motion) == pytest.approx(np.nanmean(own.motion), rel=0.25)
    assert np.nanmean(small.vector_px) == np.nanmean(own.vector_px) and (small.width, small.height) == (320, 240)


def test_content_is_that_of_pyscenedetect(tmp_path, media_maker):
    scenedetect = pytest.importorskip("scenedetect", reason="the reference for content scores")
    frames = np.concatenate([pan(8, 5, height=180, width=320, seed=seed) for seed in (0, 1)])
    path = file_of(tmp_path, media_maker, frames)
    stats = scenedetect.StatsManager()
    manager = scenedetect.SceneManager(stats)
    manager.add_detector(scenedetect.ContentDetector())
    manager.detect_scenes(scenedetect.open_video(str(path)))
    stats.save_to_csv(csv_file=str(tmp_path / "stats.csv"))
    lines = [line.split(",") for line in (tmp_path / "stats.csv").read_text().splitlines()]
    column = lines[0].index("content_val")
    theirs = np.array([float(line[column]) for line in lines[1:]])
    ours = measure(path).content[-len(theirs) :]
    assert len(theirs) >= 14 and np.abs(ours - theirs)[np.isfinite(ours)].max() < 1.0
    assert np.nanargmax(ours) == theirs.argmax()


def test_variable_rates_keep_their_times(tmp_path, media_maker):
    times = [0.0, 0.1, 0.2, 0.9, 1.6]
    measures = measure(file_of(tmp_path, media_maker, hold(5), times=times))
    assert measures.times_s == pytest.approx(times, abs=2e-3) and measures.end_s > 1.6


def test_rotation_turns_the_size(tmp_path, media_maker):
    measures = measure(file_of(tmp_path, media_maker, hold(2), rotation=90))
    assert (measures.width, measures.height) == (96, 160)


@pytest.mark.parametrize(("num_frames", "side"), [(1, 32), (3, 8)])
def test_tiny_and_short_ones_are_measured(tmp_path, media_maker, num_frames, side):
    measures = measure(file_of(tmp_path, media_maker, media_maker.grey_steps(num_frames, height=side, width=side)))
    assert len(measures) == num_frames and np.isnan(measures.motion[0]) and np.isfinite(measures.motion[1:]).all()


def test_sizes_may_change_on_the_way(tmp_path, media_maker):
    parts = [media_maker.encode_clip(pan(6, 2, height=height, width=160), fps=10, container="mpegts") for height in (96, 64)]
    (tmp_path / "two.ts").write_bytes(b"".join(parts))
    measures = measure(tmp_path / "two.ts")
    assert len(measures) == 12 and (measures.width, measures.height) == (160, 96) and (np.diff(measures.times_s) >= 0).all()


def test_what_cannot_be_decoded_is_told(tmp_path, media_maker):
    whole = media_maker.encode_clip(pan(12, 3), fps=10)
    for name, data in (("empty.mp4", b""), ("text.mp4", b"no video" * 50), ("cut.mp4", whole[: len(whole) // 2])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SampleError):
            measure(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        measure(tmp_path / "absent.mp4")


def test_a_stretch_holds_its_frames_and_forgets_the_one_before():
    whole = measures_of([0.0, 0.5, 1.0, 1.5], 2.0, motion=[9.0, 1.0, 2.0, 3.0])
    part = whole.between(0.7, 1.5)
    assert part.times_s.tolist() == [0.5, 1.0] and part.duration_s == pytest.approx(0.8)  # the frame of 0.5 s is on the screen at 0.7 s
    assert np.isnan(part.motion[0]) and part.motion[1] == 2.0 and whole.motion[1] == 1.0
    assert len(whole.between(0.6, 0.7)) == 1 and len(whole.between(1.0)) == 2
    for start_s, end_s in ((2.0, None), (-1.0, 1.0), (1.0, 1.0)):
        with pytest.raises(SampleError, match="no such stretch"):
            whole.between(start_s, end_s)
    assert {field.name for field in dataclasses.fields(whole)} >= {"scene_score", "motion", "vector_px", "content", "luma", "cells"}


def test_texture_is_no_flat_colour():
    assert texture().std() > 20
