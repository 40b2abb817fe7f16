"""Captioners without a model: whose turn a clip is, what counts as a caption, files and templates."""

import json
import pickle
from dataclasses import replace

import pytest

from moviegen_core.errors import UsageError
from moviegen_core.prompts import parse
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.captioner import Captioner, Said, tidy
from moviegen_data.curation.pipeline import build_stages
from moviegen_data.curation.prompted import filled
from moviegen_data.curation.stages.captions import SidecarCaptions, TemplateCaptions
from moviegen_data.faults import SampleError, SourceError


class Parrot(Captioner):
    def __init__(self, says="a red ball rolls over the floor", **settings):
        super().__init__(**settings)
        self.says = says

    def say(self, clips, media):
        return [self.says if isinstance(self.says, SampleError) else Said(self.says) for _ in clips]


def clips(count=1, **known):
    return [Clip(key=f"clip-{number:05d}", source=f"{number}.mp4", annotations=known) for number in range(count)]


def test_two_captioners_share_the_clips_seventy_to_thirty(tmp_path):
    given = clips(2000)
    media = [Media(tmp_path / clip.source) for clip in given]
    first = Parrot("the small model says this", portion=(0.0, 0.7)).apply_batch(given, media)
    both = Parrot("the large model says that", portion=(0.7, 1.0)).apply_batch(first, media)
    small = sum(clip.caption.startswith("the small") for clip in both)
    assert all(clip.caption for clip in both)
    assert abs(small / 2000 - 0.7) < 0.03  # three standard deviations
    again = Parrot("the small model says this", portion=(0.0, 0.7)).apply_batch(given[::-1], media)
    assert {clip.key for clip in again if clip.caption} == {clip.key for clip in first if clip.caption}
    other = Parrot(portion=(0.0, 0.7), seed=1).apply_batch(given, media)
    assert {clip.key for clip in other if clip.caption} != {clip.key for clip in first if clip.caption}


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("", "empty caption"),
        (" \n\t", "empty caption"),
        ("FPS-16 zoom in. ", "empty caption"),
        ("I'm sorry, but I can't help with that.", "refused caption"),
        ("I cannot describe people in this picture.", "refused caption"),
        ("As an AI language model, I see nothing.", "refused caption"),
        ("ball", "caption too short"),
        (SampleError("cannot be decoded", "at 2 s"), "cannot be decoded"),
    ],
)
def test_what_is_no_caption_drops_the_clip(says, reason, tmp_path):
    found = Parrot(says).apply(clips()[0], Media(tmp_path / "0.mp4"))
    assert found.drop.reason == reason and not found.caption


@pytest.mark.parametrize("says", ["I can see a man who is sorry for it all", "A sign says sorry", "Canned fish lies on a table"])
def test_what_only_resembles_a_refusal_is_a_caption(says, tmp_path):
    found = Parrot(says).apply(clips()[0], Media(tmp_path / "0.mp4"))
    assert found.drop is None and found.caption == says
    assert found.scores["caption_words"] == len(says.split()) and found.annotations["captioner"] == "Parrot"


def test_a_caption_is_one_line_without_prefixes():
    assert tidy("Caption: FPS-24 pan left. A dog\n\nruns. ") == "A dog runs."
    assert parse(tidy("zoom in. a ball")).camera_motion is None
    assert tidy("A dog runs. It barks at a ca", is_cut=True) == "A dog runs."
    assert tidy('It says "go." Then the', is_cut=True) == 'It says "go."'
    assert tidy("no sentence ends he", is_cut=True) == "no sentence ends he"
    assert tidy("It costs 3.50 in all. And", is_cut=True) == "It costs 3.50 in all."
    assert tidy("A dog runs. It barks") == "A dog runs. It barks"


def test_existing_captions_may_stay(tmp_path):
    clip = replace(clips()[0], caption="what a person wrote")
    assert Parrot(keep_existing=True).apply(clip, Media(tmp_path / "0.mp4")) is clip
    assert Parrot().apply(clip, Media(tmp_path / "0.mp4")).caption.startswith("a red ball")


def test_settings_of_captioners_are_checked():
    for portion in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.5), (float("nan"), 1.0)):
        with pytest.raises(UsageError, match="portion"):
            Parrot(portion=portion)
    assert filled("in {words} words, {{so}}", words=7) == "in 7 words, {so}"
    for prompt in ("{color}", "{0}", "{words", "{words.real.x}"):
        with pytest.raises(UsageError, match="the prompt"):
            filled(prompt, words=7)


def test_sidecars(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("\ufeffa red ball\nrolls\n", encoding="utf-8")
    clip = Clip(key="a", source="in/a.mp4", start_s=2.0, end_s=4.0)
    assert SidecarCaptions().apply(clip, Media(tmp_path / "in" / "a.mp4")).caption == "a red ball rolls"
    absent = SidecarCaptions().apply(Clip(key="b", source="in/b.mp4"), Media(tmp_path / "in" / "b.mp4"))
    assert absent.drop.reason == "no caption"
    (tmp_path / "in" / "b.txt").mkdir()
    (tmp_path / "in" / "c.txt").symlink_to("x" * 300)
    for name in "bc":
        clip, medium = Clip(key=name, source=f"in/{name}.mp4"), Media(tmp_path / "in" / f"{name}.mp4")
        assert SidecarCaptions().apply(clip, medium).drop.reason == "no caption"
        assert SidecarCaptions(absent="keep").apply(clip, medium).drop is None
    (tmp_path / "in" / "d.txt").symlink_to("/proc/self/mem")  # it can be opened, and reading its first byte is an error of the device
    with pytest.raises(SourceError, match=r"d.txt was to be read; the system says: Input/output error; see to the machine"):
        SidecarCaptions().apply(Clip(key="d", source="in/d.mp4"), Media(tmp_path / "in" / "d.mp4"))


def test_caption_files(tmp_path):
    (tmp_path / "lists").mkdir()
    for folder in (tmp_path, tmp_path / "lists"):
        (folder / "c.csv").write_text("file,said,camera_motion,fps\nin/a.mp4,a red ball,zoom in,7\n./in/b.mp4,,,\n")
        stage = pickle.loads(pickle.dumps(SidecarCaptions(source=str(folder / "c.csv"), column="said")))
        found = stage.apply_batch(
            [Clip(key=name, source=f"in/{name}.mp4") for name in "abc"], [Media(tmp_path / "in" / f"{name}.mp4") for name in "abc"]
        )
        assert found[0].caption == "a red ball"
        assert found[0].annotations == {"camera_motion": "zoom in", "captioner": "SidecarCaptions"}
        assert [clip.drop.reason for clip in found[1:]] == ["empty caption", "no caption"]
        pickle.dumps(stage)
    with pytest.raises(UsageError, match="no such file"):
        SidecarCaptions(source=str(tmp_path / "d.csv")).apply(Clip(key="a", source="a.mp4"), Media(tmp_path / "a.mp4"))
    with pytest.raises(
        UsageError, match="the annotation 'fps' of SidecarCaptions was given; .*, and in shards .* mean something else; give another"
    ):
        SidecarCaptions(source=str(tmp_path / "c.csv"), column="said", annotations=["camera_motion", "fps"])
    with pytest.raises(UsageError, match="the annotation 'captioner' of SidecarCaptions"):
        SidecarCaptions(source=str(tmp_path / "c.csv"), annotations=["captioner"])
    with pytest.raises(UsageError, match="columns are"):
        SidecarCaptions(source=str(tmp_path / "c.csv")).apply(Clip(key="a", source="a.mp4"), Media(tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        (["palce"], "'palce' was asked for as an annotation; beside files and captions .* has place, mood; the nearest is 'place'; name"),
        (["place", "camera_motion"], "'camera_motion' was asked for as an annotation; .* has place, mood; name a column that is there"),
        (["file"], "the column 'file' was asked for"),
    ],
)
def test_annotations_that_no_column_has(tmp_path, annotations, told):
    (tmp_path / "c.csv").write_text("file,caption,place,mood\na.mp4,a red ball,a lawn,\n")
    clip, medium = Clip(key="a", source="a.mp4"), Media(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match=told):
        SidecarCaptions(source=str(tmp_path / "c.csv"), annotations=annotations).apply(clip, medium)
    for allowed, found in ((["place", "mood"], {"place": "a lawn"}), (["camera_motion"], {}), ([], {})):
        captioned = SidecarCaptions(source=str(tmp_path / "c.csv"), annotations=allowed).apply(clip, medium)
        assert captioned.annotations == {**found, "captioner": "SidecarCaptions"}


def test_one_record_with_a_column_is_enough(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps([{"file": "a.mp4", "caption": "a ball"}, {"file": "b.mp4", "caption": "b", "place": "x"}]))
    stage = SidecarCaptions(source=str(tmp_path / "c.json"), annotations=["place"])
    found = [stage.apply(Clip(key=name, source=f"{name}.mp4"), Media(tmp_path / f"{name}.mp4")).annotations for name in "ab"]
    assert [annotations.get("place") for annotations in found] == [None, "x"]


def test_text_files_have_no_annotations():
    SidecarCaptions(annotations=["camera_motion"])
    with pytest.raises(UsageError, match=r"annotations=\['place'\] was given to SidecarCaptions; NAME.txt has no columns; name a csv"):
        SidecarCaptions(annotations=["place"])


def test_a_file_without_captions_names_the_stages_own_setting(tmp_path):
    (tmp_path / "c.csv").write_text("file,said\na.mp4,a red ball\n")
    with pytest.raises(UsageError, match="its columns are file, said; .* name the caption's with `column`"):
        SidecarCaptions(source=str(tmp_path / "c.csv")).apply(Clip(key="a", source="a.mp4"), Media(tmp_path / "a.mp4"))


def test_templates(tmp_path):
    stage = TemplateCaptions(templates=["a {color} {shape} at {fps:.0f} fps", "there is a {shape}, and it is {color}"])
    given = [clip.described(fps=24.0) for clip in clips(60, color="red", shape="ball")]
    media = [Media(tmp_path / clip.source) for clip in given]
    found = stage.apply_batch(given, media)
    assert {clip.caption for clip in found} == {"a red ball at 24 fps", "there is a ball, and it is red"}
    again = pickle.loads(pickle.dumps(stage)).apply_batch(given[::-1], media)
    assert {clip.key: clip.caption for clip in again} == {clip.key: clip.caption for clip in found}
    lacking = stage.apply(clips()[0], media[0])
    assert lacking.drop.reason == "no caption" and "color" in lacking.drop.measured
    for templates in ([], ["{color"], ["{}"], ["{clip.drop}"], ["{a[0]}"]):
        with pytest.raises(UsageError):
            TemplateCaptions(templates=templates)


def test_portions_that_leave_clips_out_are_refused():
    def check(*captioners):
        captioners[0].check_among(captioners)

    check(Parrot())
    check(Parrot(portion=(0.7, 1.0)), Parrot(portion=(0.0, 0.7)))
    check(Parrot(portion=(0.0, 0.7)), Parrot(portion=(0.5, 1.0), keep_existing=True))
    for captioners, told in (
        ([Parrot(portion=(0.0, 0.7))], "from 0.7 to 1 would have no caption"),
        ([Parrot(portion=(0.3, 1.0))], "from 0 to 0.3 would have no caption"),
        ([Parrot(portion=(0.0, 0.5)), Parrot(portion=(0.6, 1.0))], "from 0.5 to 0.6 would have no caption"),
        ([Parrot(portion=(0.0, 0.7)), Parrot(portion=(0.7, 1.0), seed=1)], "seeds differ"),
        ([Parrot(portion=(0.0, 0.7)), Parrot(portion=(0.6, 1.0))], "write over"),
        ([SidecarCaptions(absent="keep"), Parrot()], "write over"),
        ([SidecarCaptions(absent="keep")], "from 0 to 1 would have no caption"),
    ):
        with pytest.raises(UsageError, match=told):
            check(*captioners)


def test_a_configuration_whose_captioners_leave_clips_out_is_not_built():
    entry = {"class_path": "TemplateCaptions", "init_args": {"templates": ["a film"], "portion": [0.0, 0.7]}}
    with pytest.raises(UsageError, match="no caption"):
        build_stages({"captions": entry})
    rest = {**entry, "init_args": {**entry["init_args"], "portion": [0.7, 1.0]}}
    assert len(build_stages({"captions": entry, "others": rest})) == 2


def test_clips_without_a_file_may_be_left_to_a_later_captioner(tmp_path):
    (tmp_path / "0.txt").write_text("what a person wrote")
    (tmp_path / "1.txt").write_text(" \n")
    given = [Clip(key=name, source=f"{name}.mp4") for name in "012"]
    media = [Media(tmp_path / clip.source) for clip in given]
    files, model = SidecarCaptions(absent="keep"), Parrot(keep_existing=True)
    model.check_among([files, model])
    found = model.apply_batch(files.apply_batch(given, media), media)
    assert [clip.caption for clip in found] == ["what a person wrote", model.says, model.says]


def test_names_in_a_caption_file_may_lead_out_of_its_folder(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "c.csv").write_text("file,caption\n../media/./a.mp4,a red ball\n")
    found = SidecarCaptions(source=str(tmp_path / "lists" / "c.csv")).apply(Clip("a", "a.mp4"), Media(tmp_path / "media" / "a.mp4"))
    assert found.caption == "a red ball"
    with pytest.raises(UsageError, match="no columns"):
        SidecarCaptions(column="said")
