"""Taggers and scorers on tiny random models, against the library's own classes with the same weights."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    PreTrainedTokenizerFast,
)

from moviegen_audio.similarity import ClapScorer, ExportedAudioVideoScorer
from moviegen_audio.tagging import AudioTagger, windows
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ast")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": {0: "Speech", 1: "Music", 2: "Dog"}, "label2id": {"Speech": 0, "Music": 1, "Dog": 2}}
    config = ASTConfig(**sizes, max_length=98, num_mel_bins=32, frequency_stride=16, time_stride=16, **labels)
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=98).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clap")
    words = ["<s>", "<pad>", "</s>", "<unk>", *["a", "dog", "barks", "in", "the", "rain", "music"]]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    text = ClapTextConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=20
    )
    audio = ClapAudioConfig(
        num_mel_bins=16, spec_size=64, hidden_size=32, depths=[1, 1], num_attention_heads=[2, 2], patch_embeds_hidden_size=16, window_size=4
    )
    ClapModel(ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=8)).eval().save_pretrained(folder)
    ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="rand_trunc").save_pretrained(folder)
    return folder


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.1


def test_tags_are_those_of_the_library(classifier):
    tagger, sound = AudioTagger(pretrained=str(classifier), window_s=1.0), noise(2, 1, 16000)
    extractor = ASTFeatureExtractor.from_pretrained(classifier)
    network = ASTForAudioClassification.from_pretrained(classifier).eval()
    with torch.no_grad():
        expected = network(**extractor(list(sound[:, 0].numpy()), sampling_rate=16000, return_tensors="pt")).logits.sigmoid()
    for tags, row in zip(tagger.tag(sound, 16000), expected, strict=True):
        assert list(tags) == ["Speech", "Music", "Dog"] and list(tags.values()) == pytest.approx(row.tolist(), abs=1e-5)
    exclusive = AudioTagger(pretrained=str(classifier), window_s=1.0, exclusive=True).tag(sound, 16000)
    assert sum(exclusive[0].values()) == pytest.approx(1.0)
    long = torch.cat([sound[0], sound[1]], dim=1)[None]
    both = [max(pair) for pair in zip(*expected.tolist())]
    assert list(tagger.tag(long, 16000)[0].values()) == pytest.approx(both, abs=1e-5), "the highest of the windows"


def test_windows():
    pieces = windows(noise(2, 48000 * 2 + 24000), 48000, 16000, 1.0)
    assert [len(piece) for piece in pieces] == [16000, 16000, 8000]
    assert [len(piece) for piece in windows(noise(1, 16100), 16000, 16000, 1.0)] == [16000], "a rest of 6 ms says nothing"
    assert [len(piece) for piece in windows(noise(1, 100), 16000, 16000, 1.0)] == [100]
    for bad, hz in (
        (torch.zeros(1, 0), 16000),
        (torch.full((1, 10), float("nan")), 16000),
        (torch.zeros(10), 16000),
        (torch.zeros(1, 10), 0),
    ):
        with pytest.raises(UsageError, match="empty, or holds NaN"):
            windows(bad, hz, 16000, 1.0)


def test_the_shortest_sounds_are_tagged_and_windows_without_length_refused(classifier):
    (tags,) = AudioTagger(pretrained=str(classifier)).tag(torch.zeros(1, 1, 1), 16000)
    assert len(tags) == 3
    for wrong in (0.0, 1e-9, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="window_s="):
            AudioTagger(pretrained=str(classifier), window_s=wrong)


def test_clap_is_that_of_the_library(clap):
    scorer, sound = ClapScorer(pretrained=str(clap)), noise(2, 1, 48000)
    batch = MediaBatch(captions=["a dog barks", "rain music in the rain"], keys=["a", "b"])
    scores = scorer.score(sound, 48000, batch)
    network, extractor = ClapModel.from_pretrained(clap).eval(), ClapFeatureExtractor.from_pretrained(clap)
    tokens = PreTrainedTokenizerFast.from_pretrained(clap)(batch.captions, padding=True, return_tensors="pt")
    features = extractor(list(sound[:, 0].numpy()), sampling_rate=48000, return_tensors="pt")
    with torch.no_grad():
        out = network(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], **features)
    expected = (out.logits_per_audio / network.logit_scale_a.exp()).diagonal()
    assert scores.shape == (2,) and scores.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert torch.equal(scorer.score(sound, 48000, batch), scores), "nothing is cut at random"
    torch.testing.assert_close(scorer.score(sound[1:], 48000, MediaBatch(captions=batch.captions[1:], keys=["b"])), scores[1:])
    long = torch.cat([sound[0], sound[1, :, :24000]], dim=1)[None]
    first, second = scorer.embed_audio(sound[:1], 48000), scorer.embed_audio(sound[1:, :, :24000], 48000)
    torch.testing.assert_close(scorer.embed_audio(long, 48000), nn.functional.normalize(2 * first + second, dim=-1), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="give one sound for each"):
        scorer.score(sound[:1], 48000, batch)


@pytest.mark.parametrize("make", [lambda path: AudioTagger(pretrained=path), lambda path: ClapScorer(pretrained=path)])
def test_absent_models(make, tmp_path):
    with pytest.raises(UsageError, match="there is no such folder"):
        make(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="the folder holds nothing"):
        make(str(tmp_path))


class Energy(nn.Module):
    """Embeds a sound, or a video, by what is loud or bright in each of four parts."""

    def forward(self, media):
        return media.flatten(1).unflatten(1, (4, -1)).square().mean(-1)


class Brightness(nn.Module):
    def forward(self, media):
        return media.mean((1, 3, 4)).unflatten(1, (4, -1)).mean(-1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    many = torch.export.Dim("n", min=1, max=64)
    torch.export.save(torch.export.export(Energy(), (torch.zeros(2, 8000),), dynamic_shapes=({0: many},)), folder / "audio.pt2")
    frames = torch.zeros(2, 3, 8, 16, 16)
    torch.export.save(torch.export.export(Brightness(), (frames,), dynamic_shapes=({0: many},)), folder / "video.pt2")
    told = {"audio_hz": 8000, "window_s": 1.0, "num_frames": 8, "size_px": 16, "mean": [0.0] * 3, "std": [1.0] * 3}
    (folder / "scorer.json").write_text(json.dumps(told))
    return folder


def test_an_exported_model_tells_which_sound_goes_with_which_video(exported):
    scorer = ExportedAudioVideoScorer(folder=str(exported))
    parts = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]])
    video = (parts.repeat_interleave(4, 1) * 2 - 1)[:, None, :, None, None].expand(2, 3, 16, 20, 24)
    sounds = parts.sqrt().repeat_interleave(4000, 1)[:, None].contiguous()
    batch = MediaBatch(captions=["", ""], keys=["a", "b"], video=video, fps=torch.tensor([16.0, 16.0]))
    assert scorer.score(sounds, 16000, batch).tolist() == pytest.approx([1.0, 1.0], abs=0.02)
    assert scorer.score(sounds.flip(0), 16000, batch).tolist() == pytest.approx([0.0, 0.0], abs=0.02)
    twice = MediaBatch(captions=[""], keys=["a"], video=torch.cat([video[:1], video[:1]], 2), fps=torch.tensor([16.0]))
    assert scorer.score(torch.cat([sounds[:1]] * 2, 2), 16000, twice).tolist() == pytest.approx([1.0], abs=0.02), "two windows"
    with pytest.raises(UsageError, match="a batch without videos"):
        scorer.score(sounds, 16000, MediaBatch(captions=["", ""], keys=["a", "b"]))


def test_what_an_exported_folder_lacks(exported, tmp_path):
    with pytest.raises(UsageError, match="there is no such folder"):
        ExportedAudioVideoScorer(folder=str(tmp_path / "absent"))
    for name in ("audio.pt2", "video.pt2"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    with pytest.raises(UsageError, match=r"it lacks scorer\.json"):
        ExportedAudioVideoScorer(folder=str(tmp_path))
    (tmp_path / "scorer.json").write_text("{")
    with pytest.raises(UsageError, match="it is no json"):
        ExportedAudioVideoScorer(folder=str(tmp_path))
    (tmp_path / "scorer.json").write_text((exported / "scorer.json").read_text())
    (tmp_path / "video.pt2").write_bytes((exported / "video.pt2").read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"video\.pt2 was given; it is no program"):
        ExportedAudioVideoScorer(folder=str(tmp_path))
    (tmp_path / "scorer.json").write_text("{}")
    with pytest.raises(UsageError, match="it lacks audio_hz, window_s"):
        ExportedAudioVideoScorer(folder=str(tmp_path))
