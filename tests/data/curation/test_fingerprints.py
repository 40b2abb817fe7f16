"""A changed file behind a path has answers made anew, also where it lies beside a medium."""

import os

import pytest

from moviegen_audio.curation import SoundTags
from moviegen_data.curation.face_models import YuNetFaces
from moviegen_data.curation.fingerprints import fingerprint_of
from moviegen_data.curation.pipeline import Named, steps_of
from moviegen_data.curation.stage import ClipStage
from moviegen_data.curation.stages.camera import CameraMotion, GeometricCamera
from moviegen_data.curation.stages.captions import SidecarCaptions
from moviegen_data.curation.stages.concept_embedding import ConceptEmbedding
from moviegen_data.curation.stages.copy_embedding import CopyEmbedding
from moviegen_data.curation.stages.faces import Faces
from moviegen_data.curation.stages.model_captions import ModelCaptions
from moviegen_data.curation.stages.quality import Aesthetics
from moviegen_data.curation.work import Work


class OwnCamera(GeometricCamera):
    def __init__(self, path):
        self.path = path

    def fingerprint(self):
        return fingerprint_of(self.path)


MAKERS = {
    "copy": lambda path: CopyEmbedding(path=path),
    "concept": lambda path: ConceptEmbedding(path=path),
    "captioner": lambda path: ModelCaptions(path=path),
    "clip of aesthetics": lambda path: Aesthetics(clip_path=path, head_path="head"),
    "head of aesthetics": lambda path: Aesthetics(clip_path="clip", head_path=path),
    "captions": lambda path: SidecarCaptions(source=path),
    "detector": lambda path: Faces(faces=YuNetFaces(detector_path=path, recognizer_path="sface.onnx")),
    "recogniser": lambda path: Faces(faces=YuNetFaces(detector_path="yunet.onnx", recognizer_path=path)),
    "camera": lambda path: CameraMotion(classifier=OwnCamera(path)),
    "tagger": lambda path: SoundTags(pretrained=path),
    "likeness": lambda path: SoundTags(pretrained="tagger", likeness=path),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_stage_that_names_a_file_tells_when_it_changes(name, tmp_path):
    path = tmp_path / "weights"

    def digest():
        return steps_of([Named("it", MAKERS[name](str(path)), {})])[0].digest

    absent = digest()
    path.write_bytes(b"one")
    one = digest()
    assert one == digest() and one != absent
    path.write_bytes(b"other")
    assert digest() != one


def test_files_in_folders_count_and_hidden_ones_do_not(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "model.safetensors").write_bytes(b"one")
    (tmp_path / ".cache").mkdir()
    before = fingerprint_of(str(tmp_path))
    (tmp_path / ".cache" / "download.lock").write_bytes(b"x")
    assert fingerprint_of(str(tmp_path)) == before
    os.utime(tmp_path / "deep" / "model.safetensors", ns=(1, 1))
    touched = fingerprint_of(str(tmp_path))
    (tmp_path / "config.json").write_bytes(b"{}")
    assert len({before, touched, fingerprint_of(str(tmp_path))}) == 3
    assert fingerprint_of(None, str(tmp_path)) == fingerprint_of(str(tmp_path))


def test_a_changed_caption_beside_a_medium_has_its_part_read_anew(tmp_path):
    (tmp_path / "media").mkdir()
    media = [(f"k{number}", tmp_path / "media" / f"{number}.mp4") for number in range(8)]
    for _, path in media:
        path.write_bytes(b"film")
    work = Work(tmp_path / "work", tmp_path / "media", 1)
    begun = work.begin(media)

    def names(**settings):
        (step,) = steps_of([Named("it", SidecarCaptions(**settings), {})])
        return work.results(step, begun).names

    before, elsewhere = names(), names(source=str(tmp_path / "c.csv"))
    (tmp_path / "media" / "3.txt").write_text("a red ball")
    changed = [one != other for one, other in zip(before, names(), strict=True)]
    sources = [[clip.source for clip in begun.read(number)] for number in range(begun.num_parts)]
    assert len(sources) > 1 and changed == ["3.mp4" in part for part in sources]
    assert names(source=str(tmp_path / "c.csv")) == elsewhere


def test_a_stage_without_files_tells_nothing():
    class Passes(ClipStage):
        def apply(self, clip, media):
            return clip

    assert Passes().fingerprint() == CameraMotion().fingerprint() == "" and Passes().beside is None
