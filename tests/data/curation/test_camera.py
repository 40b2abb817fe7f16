"""Camera motions: rendered moves of a known camera, and pictures in which nothing can be followed."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from moviegen_core.errors import UsageError
from moviegen_core.media.video import write_video
from moviegen_core.prompts import PRETRAINING_CAMERA_MOTIONS
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.camera import flow_of, likelihoods
from moviegen_data.curation.stages.camera import CameraClassifier, CameraMotion, CameraPrediction, GeometricCamera
from moviegen_data.curation.stages.perceptual_hash import PerceptualHash
from moviegen_data.curation.tracks import Window, follow
from moviegen_data.faults import SampleError

cv2 = pytest.importorskip("cv2", reason="the extra `curation` is not installed")

FPS = 12.0


def write(path, frames, fps=FPS):
    write_video(path, torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float() / 127.5 - 1.0, fps=fps)
    return Media(path)


def windows(motion, *, depths, seed=0, noise=0.0003):
    """Points of a scene at given depths under a camera's velocity, by the equations of the motion field."""
    rng = np.random.default_rng(seed)
    places = rng.uniform((-0.5, -0.28), (0.5, 0.28), (150, 2))
    nearness = 1.0 / rng.choice(depths, 150)
    x, y = places.T
    focal = 0.9
    turn = {"pan right": (-(focal + x**2 / focal), -x * y / focal), "tilt up": (x * y / focal, focal + y**2 / focal)}
    travel = {"truck right": (-focal * nearness, 0 * x), "pedestal up": (0 * x, focal * nearness), "push in": (x * nearness, y * nearness)}
    speed = {**dict.fromkeys(turn, 0.1), **dict.fromkeys(travel, 0.5), "zoom in": 0.1}
    field = np.stack({**turn, **travel, "zoom in": (x, y)}[motion], axis=1) * speed[motion]
    return [Window(places, field / FPS + rng.normal(0, noise, (6, 150, 2)), 0.9) for _ in range(4)]


@pytest.mark.parametrize("motion", ["pan right", "tilt up", "truck right", "pedestal up", "push in", "zoom in"])
def test_the_equations_of_the_motion_field_are_told_apart(motion):
    found = likelihoods([flow_of(window, FPS) for window in windows(motion, depths=[2.0, 4.0, 8.0])], FPS)
    assert set(found) == set(PRETRAINING_CAMERA_MOTIONS) and sum(found.values()) == pytest.approx(1.0)
    assert found[motion] > 0.7


@pytest.mark.parametrize(("motion", "flat"), [("truck right", "pan right"), ("pedestal up", "tilt up"), ("push in", "zoom in")])
def test_in_front_of_a_wall_travel_looks_like_a_turn_or_a_zoom(motion, flat):
    found = likelihoods([flow_of(window, FPS) for window in windows(motion, depths=[4.0])], FPS)
    assert found[flat] > 0.7


def test_what_a_minority_does_is_no_motion_of_the_camera():
    window = windows("pan right", depths=[4.0])[0]
    steps = window.steps.copy()
    steps[:, :45] += [0.0, 0.02]
    clean, mixed = (flow_of(Window(window.places, each, 0.9), FPS) for each in (window.steps, steps))
    np.testing.assert_allclose(mixed.shift, clean.shift, atol=0.005)


@pytest.mark.slow
def test_rendered_moves_are_named():
    """Two films of each class in scenes that nothing was tuned on; chance is 1 in 16."""
    import moves

    camera, confusions, sure = GeometricCamera(), Counter(), []
    for seed in (1000, 1001):
        for motion in PRETRAINING_CAMERA_MOTIONS:
            name, confidence = camera.predict(moves.film(motion, seed), moves.FPS)
            confusions[motion, name] += 1
            sure += [name == motion] if confidence >= CameraMotion().min_confidence else []
    told = ", ".join(f"{count} x {motion} as {name}" for (motion, name), count in confusions.items() if motion != name)
    right = sum(count for (motion, name), count in confusions.items() if motion == name)
    assert right >= 24, told
    assert len(sure) >= 12 and np.mean(sure) >= 0.9, told


@pytest.mark.parametrize("motion", ["pan left", "static shot", "zoom out", "handheld shot"])
def test_the_stage_reads_a_film_as_encoded(motion, tmp_path):
    import moves

    media = write(tmp_path / "a.mp4", moves.film(motion, 7))
    stage = pickle.loads(pickle.dumps(CameraMotion(min_confidence=0.0)))
    found = stage.apply(Clip(key="a", source="a.mp4"), media)
    assert found.annotations == {"camera_motion": motion}
    assert stage.apply(Clip(key="a", source="a.mp4"), media).to_json() == found.to_json()
    unsure = CameraMotion(min_confidence=1.0).apply(Clip(key="a", source="a.mp4"), media)
    assert unsure.annotations == {} and unsure.scores == found.scores


def test_a_clip_is_judged_by_its_own_stretch(tmp_path):
    import moves

    first, second = moves.film("static shot", 8), moves.film("pan right", 8)
    media = write(tmp_path / "a.mp4", np.concatenate([first, second]))
    stage = CameraMotion(min_confidence=0.0)
    names = [
        stage.apply(Clip(key="a", source="a.mp4", start_s=start, end_s=start + 3.0), media).annotations["camera_motion"]
        for start in (0.0, 3.0)
    ]
    assert names == ["static shot", "pan right"]


HOSTILE = {
    "black": np.zeros((24, 72, 128, 3), np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (24, 72, 128, 3), dtype=np.uint8),
    "flicker": np.repeat((np.arange(24) % 2 * 200).astype(np.uint8), 72 * 128 * 3).reshape(24, 72, 128, 3),
    "tiny": np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8),
    "one": np.full((1, 72, 128, 3), 90, np.uint8),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_where_nothing_can_be_followed_nothing_is_claimed(kind):
    name, confidence = GeometricCamera().predict(HOSTILE[kind], FPS)
    assert name in PRETRAINING_CAMERA_MOTIONS and 0.0 <= confidence < 0.5
    assert follow(HOSTILE["one"], num_steps=6) == []


def test_pictures_and_single_frames_have_no_motion(tmp_path):
    Image.fromarray(np.full((72, 128, 3), 90, np.uint8)).save(tmp_path / "a.png")
    media = [Media(tmp_path / "a.png"), write(tmp_path / "b.mp4", HOSTILE["one"])]
    for medium in media:
        found = CameraMotion(min_confidence=0.0).apply(Clip(key="a", source=medium.path.name), medium)
        assert found.scores == {"camera_confidence": 0.0} and not found.annotations


class Oracle(CameraClassifier):
    def __init__(self, *, name="zoom in", confidence=0.9):
        self.name, self.confidence = name, confidence

    def predict(self, frames, fps):
        self.seen = frames.shape, fps
        return CameraPrediction(self.name, self.confidence)


def test_a_model_may_take_its_place(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), dtype=np.uint8)
    media, clip = write(tmp_path / "a.mp4", frames), Clip(key="a", source="a.mp4")
    oracle = Oracle()
    found = CameraMotion(classifier=oracle, rate_hz=6.0).apply(clip, media)
    assert found.annotations["camera_motion"] == "zoom in" and found.scores["camera_confidence"] == 0.9
    assert oracle.seen == ((12, 48, 64, 3), 6.0)
    for wrong in ({"name": "zoom inn"}, {"confidence": 1.5}, {"confidence": float("nan")}):
        with pytest.raises(UsageError, match="Oracle said"):
            CameraMotion(classifier=Oracle(**wrong)).apply(clip, media)
    for settings in ({"min_confidence": 1.5}, {"rate_hz": 0.0}, {"max_side": 0}):
        with pytest.raises(UsageError):
            CameraMotion(**settings)


@pytest.mark.slow
@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "motion"),
    [
        ("soccer_juggle_720p_24fps.mp4", "static shot"),
        ("dog_leash_720p_silent_track.mp4", "static shot"),
        ("chaplin_640x360.mp4", "static shot"),
        ("basketball_426x240.mp4", "handheld shot"),
        ("cat_368x480_20fps.mp4", "handheld shot"),
        ("weightlifting_320x240.mp4", "handheld shot"),
    ],
)
def test_real_films(media, name, motion):
    """What a person sees in them: people who move before a ground that rests, or that shakes as a whole."""
    found = CameraMotion().apply(Clip(key=name, source=name, start_s=0.0, end_s=4.0), Media(media / "video" / name))
    assert found.annotations["camera_motion"] == motion


@pytest.mark.media
@pytest.mark.parametrize(
    "name", ["one_frame.mp4", "rotated_90.mp4", "variable_frame_rate.mp4", "odd_321x241.mp4", "alpha_vp9.webm", "audio_only.mp4"]
)
def test_hostile_files_are_judged_or_dropped(media, name):
    clip, medium = Clip(key="a", source=name), Media(media / "hostile" / name)
    for stage in (CameraMotion(), PerceptualHash()):
        if name == "audio_only.mp4":
            with pytest.raises(SampleError):
                stage.apply(clip, medium)
        else:
            assert stage.apply(clip, medium).drop is None
