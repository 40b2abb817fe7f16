"""The oracle: right on ground truth, robust to what generators do to pixels, and silent on garbage."""

import io
import json

import av
import numpy as np
import pytest
import torch
from scipy import ndimage

from moviegen_core.errors import UsageError
from moviegen_data.toyworld import (
    PATTERNED_GROUNDS,
    PLAIN_GROUNDS,
    GroundSpec,
    ObjectSpec,
    SceneSpec,
    combinations,
    render,
    sample_scene,
    write_media_folder,
)
from moviegen_data.toyworld.stream import to_pixels
from moviegen_eval import Oracle, OracleAccuracy, chance
from moviegen_eval.commands import oracle as oracle_command
from moviegen_eval.oracle import as_frames, match


def scenes(count, start=0, **settings):
    """Scenes that go through all 210 combinations in a scattered order."""
    every = combinations("all")
    if settings.get("num_objects", 1) == 2:
        return [sample_scene(start + i, **settings) for i in range(count)]
    return [sample_scene(start + i, combination=every[(start + i) * 37 % 210], **settings) for i in range(count)]


def compress(video, crf=30):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = video.shape[1], video.shape[2], "yuv420p"
        for picture in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def degrade(video, seed):
    """Blur of one pixel, 5 % noise and a hard h264."""
    blurred = ndimage.gaussian_filter(video.astype(np.float32), (0, 1, 1, 0))
    noisy = blurred + np.random.default_rng(seed).normal(0, 0.05 * 255, video.shape)
    return compress(np.clip(noisy, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("count", "start", "settings", "form"),
    [
        (105, 0, {"grounds": PLAIN_GROUNDS}, {}),
        (35, 1000, {"grounds": PATTERNED_GROUNDS}, {}),
        (7, 2000, {"grounds": PLAIN_GROUNDS}, {"height": 128, "width": 128}),
        (14, 3000, {"grounds": PLAIN_GROUNDS}, {"num_frames": 24}),
        (14, 4000, {"grounds": PLAIN_GROUNDS}, {"width": 96}),
        (14, 5000, {"grounds": PLAIN_GROUNDS, "text_probability": 1.0}, {}),
        (70, 10000, {"grounds": PLAIN_GROUNDS, "spread": 0.1}, {}),
    ],
    ids=["plain", "patterned", "128px", "24frames", "wide", "with-words", "small-world"],
)
def test_ground_truth_is_read_right(count, start, settings, form):
    specs = scenes(count, start, **settings)
    score = Oracle().score([render(spec, **form).video for spec in specs], specs)
    assert score.num_scored == count
    assert min(score.colour, score.shape, score.motion, score.num_objects) >= 0.99


def test_size_and_ground_are_read_too():
    specs = scenes(40, 6000, grounds=(*PLAIN_GROUNDS, *PATTERNED_GROUNDS))
    readings = [Oracle().read(render(spec).video) for spec in specs]
    assert np.mean([reading.size == spec.objects[0].size for reading, spec in zip(readings, specs, strict=True)]) >= 0.97
    assert np.mean([reading.ground == spec.ground.kind for reading, spec in zip(readings, specs, strict=True)]) >= 0.97


def test_blur_noise_and_compression_are_survived():
    specs = scenes(35, 7000, grounds=(*PLAIN_GROUNDS, *PATTERNED_GROUNDS))
    score = Oracle().score([degrade(render(spec).video, seed) for seed, spec in enumerate(specs)], specs)
    assert min(score.colour, score.motion) >= 0.95
    assert score.shape >= 0.9


def test_both_of_two_objects_are_read():
    specs = scenes(15, 8000, num_objects=2)
    score = Oracle().score([render(spec).video for spec in specs], specs)
    assert score.num_scored == 30
    assert min(score.colour, score.shape, score.motion, score.num_objects) >= 0.99


def test_the_track_is_that_of_the_object():
    clip = render(sample_scene(4, combination=("circle", "blue", "bounce")))
    (found,) = Oracle().read(clip.video).objects
    assert np.abs(found.track[:, :2] - clip.track[0, :, :2]).max() < 1.0


def test_a_wrong_clip_scores_zero():
    shown = SceneSpec((ObjectSpec("circle", "red", motion="still"),))
    wanted = SceneSpec((ObjectSpec("square", "blue", motion="grow"),))
    score = Oracle().score([render(shown).video], [wanted])
    assert (score.colour, score.shape, score.motion, score.all) == (0, 0, 0, 0)


def test_only_the_largest_object_counts_where_one_is_wanted():
    small = ObjectSpec("circle", "red", "small", radius=0.14, x=0.0, y=0.0)
    spec = SceneSpec((small, ObjectSpec("square", "blue", radius=0.22, x=1.0, y=1.0)))
    reading = Oracle().read(render(spec).video)
    assert reading.num_objects == 2
    assert match(reading, SceneSpec((small,))) == [(False, False, True)]


def test_two_of_a_kind_are_counted():
    items = [ObjectSpec("circle", "red", "small", radius=0.15, x=x, y=x) for x in (0.0, 1.0)]
    assert Oracle().read(render(SceneSpec(tuple(items))).video).num_objects == 2


def noise(smooth, seed=0):
    raw = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (16, 64, 64, 3)), (smooth / 3, smooth, smooth, 0))
    return np.clip(128 + raw / raw.std() * 70, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "video",
    [
        np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8),
        noise(1.0),
        noise(3.0),
        np.zeros((16, 64, 64, 3), np.uint8),
        np.full((16, 64, 64, 3), [210, 30, 30], np.uint8),
        np.repeat(np.linspace(0, 255, 64).astype(np.uint8), 3).reshape(1, 1, 64, 3).repeat(64, 1).repeat(16, 0),
        np.full((3, 16, 64, 64), np.nan, np.float32),
        np.full((3, 16, 64, 64), 1e9, np.float32),
    ],
    ids=["white-noise", "fine-noise", "coarse-noise", "black", "red", "grey-ramp", "nan", "overflow"],
)
def test_garbage_reads_none(video):
    reading = Oracle().read(video)
    assert (reading.colour, reading.shape, reading.size, reading.motion, reading.num_objects) == ("none", "none", "none", "none", 0)
    assert all(reading.confidence[name] == 1.0 for name in ("colour", "shape", "size", "motion"))


@pytest.mark.parametrize("ground", PATTERNED_GROUNDS)
def test_an_empty_ground_reads_no_object(ground):
    spec = SceneSpec((), GroundSpec(ground, dark=40))
    video = np.stack([render(SceneSpec((ObjectSpec("ring", "red"),), spec.ground)).video[0]])
    empty = video.mean(-1, keepdims=True).repeat(3, -1).repeat(16, 0).astype(np.uint8)
    assert Oracle().read(empty).num_objects == 0


def test_an_object_that_is_there_half_the_time_is_none():
    video = render(sample_scene(2, combination=("circle", "red", "still"), grounds=["grey"])).video.copy()
    video[::2] = 120
    assert Oracle().read(video).colour == "none"


def test_a_picture_has_no_motion():
    reading = Oracle().read(render(sample_scene(1, combination=("ring", "cyan", "left")), num_frames=1).video)
    assert (reading.colour, reading.shape, reading.motion) == ("cyan", "ring", "none")


def test_all_forms_of_a_clip_read_alike():
    clip = render(sample_scene(0))
    pixels = to_pixels([clip])[0]
    for form in (pixels, pixels.numpy(), pixels.permute(1, 2, 3, 0), torch.from_numpy(clip.video), pixels.bfloat16()):
        assert np.abs(as_frames(form) - clip.video).max() < 1.0
    with pytest.raises(UsageError, match="move the axes"):
        Oracle().read(np.zeros((16, 64, 64)))


def test_score_wants_as_many_scenes_as_videos():
    with pytest.raises(UsageError, match="give as many"):
        Oracle().score([], [])


def test_chance_is_one_over_the_number_of_names():
    assert chance() == {"colour": 1 / 6, "shape": 1 / 5, "motion": 1 / 7}


def test_the_metric_accumulates_what_score_says():
    specs = scenes(4, 9000)
    videos = [render(spec) for spec in specs]
    wrong = [*specs[:3], scenes(1, 9100)[0]]
    metric = OracleAccuracy()
    for part in (slice(0, 2), slice(2, 4)):
        metric.update(to_pixels(videos[part]), [{"scene": spec.to_dict()} for spec in wrong[part]])
    expected = Oracle().score([clip.video for clip in videos], wrong)
    assert {name: float(value) for name, value in metric.compute().items()} == pytest.approx(
        {"colour": expected.colour, "shape": expected.shape, "motion": expected.motion, "all": expected.all}
    )
    with pytest.raises(UsageError, match="ToyWorldData"):
        metric.update(to_pixels(videos[:1]), [{}])


def test_the_command_scores_a_folder_of_files(tmp_path, capsys):
    folder = write_media_folder(tmp_path / "clips", num_clips=6)
    oracle_command(folder, json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["oracle"] == {"colour": 1.0, "shape": 1.0, "motion": 1.0}
    assert report["num_scored"] == 6
    next(folder.glob("*.mp4")).unlink()
    with pytest.raises(UsageError, match="lacks 1 of its 6"):
        oracle_command(folder)
    with pytest.raises(UsageError, match="ground_truth"):
        oracle_command(tmp_path)
