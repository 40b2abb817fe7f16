"""Prompts from lists and files, and what is put before them."""

import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from moviegen_data.prompts import PromptData, read_prompts


def test_a_list_with_controls():
    data = PromptData(prompts=["a cat", "a dog", "a fox"], fps=16, camera_motion="zoom in", num_frames=8, batch_size=2)
    batches = list(data.predict_dataloader())
    assert [batch.captions for batch in batches] == [["FPS-16 zoom in. a cat", "FPS-16 zoom in. a dog"], ["FPS-16 zoom in. a fox"]]
    assert [key for batch in batches for key in batch.keys] == ["00000", "00001", "00002"]
    assert batches[0].fps.tolist() == [16.0, 16.0] and batches[0].video is None and batches[0].latents is None
    assert batches[0].metadata[0]["num_frames"] == 8


def test_plain_prompts_stay_as_they_are():
    (batch,) = PromptData(prompts=["a cat"], keys=["x"]).predict_dataloader()
    assert batch.captions == ["a cat"] and batch.keys == ["x"] and batch.fps is None


def test_an_empty_prompt_of_a_list_asks_for_anything():
    (batch,) = PromptData(prompts=["", "a"], fps=8).predict_dataloader()
    assert batch.captions == ["FPS-8", "FPS-8 a"] and batch.metadata[0]["prompt"] == ""


def test_files(tmp_path):
    expected = [{"prompt": "one"}, {"prompt": "two"}]
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    (tmp_path / "p.csv").write_text('caption,seed\none,1\n"two, quoted\nlines",2\n')
    (tmp_path / "p.json").write_text(json.dumps(["one", "two"]))
    (tmp_path / "m.json").write_text(json.dumps({"k1": "one", "k2": "two"}))
    (tmp_path / "p.jsonl").write_text('{"id": 3, "words": "one"}\n{"id": 4, "words": "two"}\n')
    assert list(read_prompts(str(tmp_path / "p.txt"))) == expected == list(read_prompts(str(tmp_path / "p.json")))
    assert list(read_prompts(str(tmp_path / "p.csv"))) == [{"seed": "1", "prompt": "one"}, {"seed": "2", "prompt": "two, quoted\nlines"}]
    assert PromptData(prompts=str(tmp_path / "m.json")).keys == ["k1", "k2"]
    lines = PromptData(prompts=str(tmp_path / "p.jsonl"), column="words", limit=1)
    assert lines.keys == ["3"] and lines.captions == ["one"]


def test_records_win_over_settings_and_batches_have_one_size(tmp_path):
    path = tmp_path / "p.json"
    rows = [{"prompt": "a", "fps": 24, "height": 32}, {"prompt": "b"}, {"prompt": "c", "camera_motion": "pan left"}]
    path.write_text(json.dumps(rows))
    batches = list(PromptData(prompts=str(path), fps=16, height=64).predict_dataloader())
    assert [batch.captions for batch in batches] == [["FPS-24 a"], ["FPS-16 b", "FPS-16 pan left. c"]]
    assert [batch.metadata[0]["height"] for batch in batches] == [32, 64]


def test_ranks_share_the_prompts(monkeypatch):
    seen = []
    for rank in range(2):
        data = PromptData(prompts=[f"p{number}" for number in range(5)], batch_size=2)
        place = {"rank": rank, "num_replicas": 2}
        data.trainer = type("T", (), {"strategy": type("S", (), {"distributed_sampler_kwargs": place})})
        batches = list(data.predict_dataloader())
        assert len(batches) == 2
        seen += [key for batch in batches for key, record in zip(batch.keys, batch.metadata) if "repeated" not in record]
    assert seen == [f"{number:05d}" for number in range(5)]


def test_through_a_trainer():
    class Echo(LightningModule):
        def predict_step(self, batch, batch_idx):
            return batch.captions

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert trainer.predict(Echo(), datamodule=PromptData(prompts=["a", "b", "c"], batch_size=2)) == [["a", "b"], ["c"]]


def test_prompts_that_cannot_be(tmp_path):
    (tmp_path / "p.csv").write_text("words,seed\nx,1\n")
    (tmp_path / "p.json").write_text("[")
    (tmp_path / "n.json").write_text("[1]")
    (tmp_path / "e.txt").write_text("\n")
    for settings, message in (
        ({"prompts": str(tmp_path / "gone.txt")}, r"there is no such file; .* holds .*p\.csv"),
        ({"prompts": "a cat"}, "prompts come in txt, csv, json and jsonl files; give such a file, or a list of texts"),
        ({"prompts": str(tmp_path / "p.csv")}, "it has words, seed; name the column"),
        ({"prompts": str(tmp_path / "p.json")}, "they are not json"),
        ({"prompts": str(tmp_path / "n.json")}, "it has int"),
        ({"prompts": str(tmp_path / "e.txt")}, "they hold no text"),
        ({"prompts": ["a", "b"], "keys": ["x"]}, "1 keys were given; there are 2 prompts"),
        ({"prompts": ["a", "b"], "keys": ["x", "x"]}, "the keys x were given twice"),
        ({"prompts": ["a"], "camera_motion": "spin"}, "camera motion 'spin' was given"),
        ({"prompts": ["a"], "batch_size": 0}, "both are at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            PromptData(**settings)


@pytest.mark.media
def test_the_papers_benchmarks(media):
    assert len(PromptData(prompts=str(media / "prompts/movie_gen_video_bench.txt")).captions) == 1003
    tags = PromptData(prompts=str(media / "prompts/movie_gen_video_bench_tags.csv"))
    assert len(tags.captions) == 1003 and tags.records[0]["motion_level"] == "low"
    audio = PromptData(prompts=str(media / "prompts/movie_gen_audio_bench_sfx.jsonl"), fps=24)
    assert len(audio.captions) == 527 and audio.captions[0].startswith("FPS-24 A person") and torch.is_tensor(audio.batch([0]).fps)
