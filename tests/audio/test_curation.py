"""The stage that tags sounds, on a tiny random classifier and a likeness whose cosine is known."""

import math
import pickle

import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from moviegen_audio import curation
from moviegen_audio.curation import SoundTags
from moviegen_audio.tagging import AudioTagger
from moviegen_core.errors import UsageError
from moviegen_core.media.sound import wav_bytes
from moviegen_core.media.video import write_video
from moviegen_core.plugins import plugin_host
from moviegen_data.curation import Clip, Media
from moviegen_data.faults import SampleError

CLIP = Clip(key="a", source="a")
HZ = 16000


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ast")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = ["Speech", "Music", "Dog", "Silence"]
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    config = ASTConfig(**sizes, max_length=98, num_mel_bins=32, frequency_stride=16, time_stride=16, **names)
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=98).save_pretrained(folder)
    return str(folder)


def noise(seconds):
    return torch.randn(round(seconds * HZ), generator=torch.Generator().manual_seed(0)) * 0.1


class Known:
    """Tags and a cosine that are told."""

    def __init__(self, cosine=0.0, **tags):
        self.cosine, self.tags = cosine, tags

    def tag(self, audio, audio_hz):
        self.device = audio.device
        return [self.tags]

    def score(self, audio, audio_hz, batch):
        assert batch.video.shape[:3] == (1, 3, 8) and batch.fps.tolist() == [4.0]
        return torch.tensor([self.cosine])


def stage_with(known, **settings):
    stage = SoundTags(pretrained="none", likeness="none", **settings)
    stage.__dict__ |= {"_tagger": known, "_scorer": known}
    return stage


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, torch.zeros(3, 16, 16, 16), fps=8, audio=noise(2), audio_hz=HZ)
    return Media(path)


def test_tags_are_those_of_the_classifier_in_the_stretch(classifier, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(noise(3)[None], HZ))
    stage = pickle.loads(pickle.dumps(SoundTags(pretrained=classifier, threshold=0.0)))
    media = Media(tmp_path / "a.wav")
    found = stage.apply(CLIP.part(0, 1.0, 2.0), media)
    audio, hz = media.sound(1.0, 2.0)
    (tags,) = AudioTagger(pretrained=classifier).tag(audio[None], hz)
    assert found.annotations["audio_tags"] == pytest.approx(tags, abs=1e-4)
    assert list(found.annotations["audio_tags"].values()) == sorted(found.annotations["audio_tags"].values(), reverse=True)
    assert bool(found.drop) == (max(tags, key=tags.get) == "Silence")


@pytest.mark.parametrize(
    ("cosine", "tags", "category"),
    [
        (0.25, {"Dog": 0.9}, "diegetic"),
        (0.15, {"Dog": 0.9}, None),
        (0.2, {"Music": 0.9, "Dog": 0.4}, "mixed"),
        (0.05, {"Music": 0.9}, "non-diegetic"),
        (0.35, {"Music": 0.9}, "diegetic"),
    ],
)
def test_categories_are_those_of_table_24(film, cosine, tags, category):
    found = stage_with(Known(cosine, **tags)).apply(CLIP, film)
    assert found.annotations["diegesis"] == category and found.drop is None
    assert found.scores["audio_video_likeness"] == pytest.approx(cosine, abs=1e-6)
    kept = stage_with(Known(cosine, **tags), keep=["diegetic", "mixed"]).apply(CLIP, film)
    assert (kept.drop is None) == (category in ("diegetic", "mixed"))


def test_silence_and_unwanted_types_drop(film):
    assert stage_with(Known(Silence=0.8, Dog=0.5)).apply(CLIP, film).drop.reason == "silence dominates"
    found = stage_with(Known(Speech=0.8, Music=0.3), without=["voice"]).apply(CLIP, film)
    assert found.drop.reason == "voice is heard" and found.annotations["audio_types"] == ["music", "voice"]


def test_a_clip_without_sound_is_a_bad_sample(classifier, tmp_path):
    write_video(tmp_path / "a.mp4", torch.zeros(3, 8, 16, 16), fps=8)
    with pytest.raises(SampleError, match="no sound"):
        SoundTags(pretrained=classifier).apply(CLIP, Media(tmp_path / "a.mp4"))


def test_settings_are_checked():
    for wrong in ({"threshold": 2.0}, {"keep": ["diegetic"]}, {"likeness": "x", "keep": ["good"]}, {"without": ["noise"]}, {"max_tags": 0}):
        with pytest.raises(UsageError):
            SoundTags(pretrained="none", **wrong)


def test_the_stage_is_offered():
    assert [plugin.name for _, plugin in plugin_host().curation_stages["SoundTags"]] == ["audio"]


def test_no_numbers_are_no_answer(film):
    for known in (Known(Dog=math.nan, Speech=0.4), Known(math.nan, Dog=0.9)):
        with pytest.raises(SampleError, match="no number"):
            stage_with(known).apply(CLIP, film)


def test_the_tagger_runs_where_it_is_told(film):
    known = Known(Dog=0.9)
    stage_with(known, device="cpu").apply(CLIP, film)
    assert known.device.type == "cpu"
    for device in ("cuda:99", "gpu"):
        with pytest.raises(UsageError, match="SoundTags"):
            stage_with(known, device=device).apply(CLIP, film)


def test_frames_of_long_clips_are_bounded(film, monkeypatch):
    monkeypatch.setattr(curation, "_MOST_FRAMES", 5)
    seen = []
    known = Known(Dog=0.9)
    known.score = lambda audio, hz, batch: seen.append((batch.video.shape[2], float(batch.fps))) or torch.tensor([0.3])
    stage_with(known).apply(CLIP, film)
    assert seen == [(5, 2.5)]


def test_what_was_loaded_stays_behind_on_the_way_to_a_worker(film):
    stage = stage_with(Known(Dog=0.9))
    assert "_tagger" in vars(stage) and set(vars(pickle.loads(pickle.dumps(stage)))) == set(vars(SoundTags(pretrained="none")))
