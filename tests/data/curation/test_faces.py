"""Faces: the stage with a model whose faces are known, what wraps OpenCV's models, and real clips where a cascade is there."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from moviegen_core.errors import UsageError
from moviegen_core.media.video import write_video
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.face_models import CascadeFaces, Face, FaceModel, YuNetFaces
from moviegen_data.curation.stages.faces import Faces

CLIP = Clip(key="a", source="a.mp4")


class Colours(FaceModel):
    """Knows red and green squares as two people's faces."""

    recognizes = True

    def find(self, picture):
        faces = []
        for channel in (0, 1):
            mask = (picture[..., channel] > 150) & (picture[..., 1 - channel] < 100)
            if mask.sum() > 20:
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
                height, width = mask.shape
                faces.append(
                    Face((box[0] / width, box[1] / height, box[2] / width, box[3] / height), float(mask.mean()), np.array([channel]))
                )
        return faces

    def embed(self, picture, face):
        return np.array([3.0, 0.3]) if face.raw[0] == 0 else np.array([0.2, 5.0])


class Sightless(Colours):
    recognizes = False


def filmed(path, seconds):
    """Each letter is a second: r and g faces, b both, n none, s a small one."""
    frames = np.full((4 * len(seconds), 96, 128, 3), 60, np.uint8)
    for index, what in enumerate(seconds):
        some = frames[4 * index : 4 * index + 4]
        if what in "rb":
            some[:, 20:60, 10:50] = (220, 20, 20)
        if what in "gb":
            some[:, 20:60, 70:110] = (20, 220, 20)
        if what == "s":
            some[:, 40:48, 40:48] = (220, 20, 20)
    write_video(path, torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1.0, fps=4.0)
    return Media(path)


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [
        ("rrrrrr", None),
        ("rrgggg", "another person"),
        ("rrbrrr", "several faces"),
        ("rrnrrr", "face comes and goes"),
        ("nnn", "no face"),
        ("sss", "small face"),
        ("r", None),
    ],
)
def test_one_person_throughout_passes(tmp_path, seconds, reason):
    found = Faces(faces=Colours()).apply(CLIP, filmed(tmp_path / "a.mp4", seconds))
    assert (found.drop and found.drop.reason) == reason
    assert found.scores["one_face"] == pytest.approx(sum(letter in "rgs" for letter in seconds) / len(seconds), abs=1e-6)
    assert found.scores["faces"] == (2 if "b" in seconds else 0 if seconds == "nnn" else 1)
    if reason == "another person":
        by_hand = (3 * 0.2 + 0.3 * 5) / np.hypot(3, 0.3) / np.hypot(0.2, 5)
        assert found.scores["same_person"] == pytest.approx(by_hand, abs=1e-6)
    if len(seconds) == 1:
        assert "same_person" not in found.scores


def test_five_references_are_given_with_time_and_place(tmp_path):
    media = filmed(tmp_path / "a.mp4", "rrrrrrrr")
    found = Faces(faces=Colours()).apply(CLIP, media)
    references = found.annotations["reference_faces"]
    times = [reference["time_s"] for reference in references]
    assert len(times) == 5 and times == sorted(set(times)) and all(0 <= time_s <= 8 for time_s in times)
    assert references[0]["box"] == pytest.approx([10 / 128, 20 / 96, 40 / 128, 40 / 96], abs=0.02)
    part = Faces(faces=Colours(), num_references=2).apply(CLIP.part(0, 3.0, 7.0), media)
    assert [3 <= reference["time_s"] <= 7 for reference in part.annotations["reference_faces"]] == [True, True]


def test_thresholds_loosen_it(tmp_path):
    media = filmed(tmp_path / "a.mp4", "rrnrrg")
    stage = pickle.loads(pickle.dumps(Faces(faces=Sightless(), min_same=None, min_one_face=0.8)))
    found = stage.apply(CLIP, media)
    assert found.drop is None and "same_person" not in found.scores
    assert Faces(faces=Colours(), min_one_face=0.8, min_same=0.1).apply(CLIP, media).drop is None
    assert Faces(faces=Colours(), min_one_face=0.8).apply(CLIP, media).drop.reason == "another person"
    assert Faces(faces=Colours(), min_one_face=0.9).apply(CLIP, media).drop.reason == "face comes and goes"


def test_who_recognises_nobody_cannot_be_asked():
    with pytest.raises(UsageError, match="does not tell whose"):
        Faces(faces=CascadeFaces())
    with pytest.raises(UsageError, match="does not tell whose"):
        Faces(faces=YuNetFaces(detector_path="yunet.onnx"))
    assert Faces(faces=YuNetFaces(detector_path="yunet.onnx", recognizer_path="sface.onnx")).min_same == 0.5
    for wrong in ({"min_one_face": 0.0}, {"min_same": 1.0}, {"num_references": -1}):
        with pytest.raises(UsageError):
            Faces(faces=Colours(), **wrong)


def test_absent_and_damaged_models_are_told(tmp_path):
    pytest.importorskip("cv2", reason="OpenCV comes with the extra `curation`")
    picture = np.zeros((64, 64, 3), np.uint8)
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    for path, match in (("none.onnx", "no such file"), ("bad.onnx", "cannot read it")):
        with pytest.raises(UsageError, match=match):
            YuNetFaces(detector_path=str(tmp_path / path)).find(picture)
        with pytest.raises(UsageError, match=match):
            both = YuNetFaces(detector_path="none.onnx", recognizer_path=str(tmp_path / path))
            both.embed(picture, Face((0, 0, 1, 1), 1.0, np.zeros(15, np.float32)))


def test_rows_of_the_detector_become_faces():
    class Detector:
        def setInputSize(self, size):  # noqa: N802
            self.size = size

        def detect(self, image):
            assert image.shape == (50, 100, 3) and tuple(image[0, 0]) == (3, 2, 1)  # blue comes first
            small, large = np.zeros(15, np.float32), np.zeros(15, np.float32)
            small[:4], small[-1], large[:4], large[-1] = (10, 5, 10, 10), 0.9, (50, 20, 20, 25), 0.8
            return 1, np.stack([small, large])

    model = YuNetFaces(detector_path="yunet.onnx")
    model.__dict__["_detector"] = Detector()
    picture = np.full((50, 100, 3), (1, 2, 3), np.uint8)
    faces = model.find(picture)
    assert [face.box for face in faces] == [(0.5, 0.4, 0.2, 0.5), (0.1, 0.1, 0.1, 0.2)]
    assert model._detector.size == (100, 50) and faces[0].score == pytest.approx(0.8)
    assert "_detector" not in pickle.loads(pickle.dumps(model)).__dict__


def test_equal_faces_have_one_order_however_threads_found_them():
    class Detector:
        def setInputSize(self, size):  # noqa: N802
            pass

        def detect(self, image):
            return 1, self.rows

    rows = np.zeros((3, 15), np.float32)
    rows[:, :4], rows[:, -1] = [(60, 5, 10, 10), (10, 5, 10, 10), (30, 20, 20, 20)], 0.9
    model = YuNetFaces(detector_path="yunet.onnx")
    model.__dict__["_detector"] = Detector()
    found = []
    for order in ((0, 1, 2), (1, 0, 2)):
        model._detector.rows = rows[list(order)]
        found.append([face.box[0] for face in model.find(np.zeros((50, 100, 3), np.uint8))])
    assert found == [[0.3, 0.1, 0.6]] * 2
    for score in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="min_score"):
            YuNetFaces(detector_path="yunet.onnx", min_score=score)


def _has_cascade():
    cv2 = pytest.importorskip("cv2", reason="OpenCV comes with the extra `curation`")
    return hasattr(cv2, "CascadeClassifier")


def test_where_opencv_carries_no_cascade_it_says_so():
    if _has_cascade():
        pytest.skip("this OpenCV carries a cascade")
    with pytest.raises(UsageError, match="carries no cascade"):
        CascadeFaces().find(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.slow
@pytest.mark.media
def test_single_faces_of_real_media_are_found_by_the_cascade(media):
    if not _has_cascade():
        pytest.skip("OpenCV 5 carries no cascade")
    stage = Faces(faces=CascadeFaces(), min_same=None, min_one_face=0.8)
    single = {"astronaut.png", "man_a_1.jpg", "man_a_2.jpg", "mona_lisa.jpg", "man_talking_540x960.mp4", "face_480x480_33s_voice.mp4"}
    others = {"two_people.jpg", "truck_no_face.jpg", "cat_no_human_face.png", "cat_368x480_20fps.mp4", "raindrops_480x480.mp4"}
    kept = set()
    for name in sorted(single | others):
        folder = "video" if name.endswith("mp4") else "image_ref"
        if stage.apply(CLIP, Media(media / folder / name)).drop is None:
            kept.add(name)
    print("kept", sorted(kept))
    assert len(kept & single) / len(single) >= 0.8 and len(kept & single) / len(kept) >= 0.8


def test_a_picture_is_one_look(tmp_path):
    frame = np.full((96, 128, 3), 60, np.uint8)
    frame[20:60, 10:50] = (220, 20, 20)
    Image.fromarray(frame).save(tmp_path / "a.png")
    found = Faces(faces=Colours()).apply(CLIP, Media(tmp_path / "a.png"))
    assert found.drop is None and found.annotations["reference_faces"][0]["time_s"] == 0.0
