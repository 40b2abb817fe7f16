"""Stages with a model: a bad clip drops itself alone, and what is loaded stays behind."""

import math
import pickle
import warnings
from functools import cached_property

import numpy as np
import pytest
import torch

from moviegen_audio.curation import SoundTags
from moviegen_core.errors import UsageError
from moviegen_core.media.video import write_video
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.batched import BatchedStage
from moviegen_data.curation.embedding import Embedding
from moviegen_data.curation.lazy import Lazy
from moviegen_data.curation.ocr import WordReader
from moviegen_data.curation.pipeline import Named
from moviegen_data.curation.pretrained import at_a_time, in_equal_batches, pick_device
from moviegen_data.curation.running import ClipRun
from moviegen_data.curation.stages.concept_embedding import ConceptEmbedding
from moviegen_data.curation.stages.copy_embedding import CopyEmbedding
from moviegen_data.curation.stages.model_captions import ModelCaptions
from moviegen_data.curation.stages.quality import Aesthetics
from moviegen_data.faults import SampleError


class Length(BatchedStage):
    """Scores a clip with the letters of its name; knows how many were asked about at once."""

    def __init__(self, *, batch=3):
        super().__init__(batch=batch)
        self.asked = []

    def look(self, clip, media):
        if clip.key.startswith("bad"):
            raise SampleError("cannot be opened", "no film")
        return clip.key

    def answer(self, shown):
        self.asked.append(len(shown))
        return [float(len(key)) for key in shown]

    def judge(self, clip, answer):
        if answer > 5:
            raise SampleError("too long a name", f"{answer}")
        return clip.scored(letters=answer)


def test_what_is_wrong_with_one_drops_that_one_alone(tmp_path, caplog):
    stage = Length()
    clips = [Clip(key, f"{key}.mp4") for key in ("a", "bad", "abc", "abcdefg", "bad2")]
    found = ClipRun([Named("length", stage, {})], tmp_path)(clips)
    assert [clip.drop and clip.drop.reason for clip in found] == [None, "cannot be opened", None, "too long a name", "cannot be opened"]
    assert [clip.scores.get("letters") for clip in found] == [1.0, None, 3.0, None, None]
    assert stage.asked == [2, 1] and not caplog.records  # no batch was asked about again, clip by clip
    assert stage.apply(clips[0], Media(tmp_path / "a.mp4")) == clips[0].scored(letters=1.0)
    assert stage.apply(clips[1], Media(tmp_path / "b.mp4")).drop.reason == "cannot be opened"
    with pytest.raises(UsageError, match="batch=0"):
        Length(batch=0)


class Lights(Embedding):
    """Embeds each picture by its mean colour."""

    vector, max_side = "light", 64

    def __init__(self):
        super().__init__(path="nowhere", num_frames=2, batch=4, device="cpu", dtype="float32")

    def prepare(self, pictures):
        return torch.from_numpy(pictures.mean((1, 2)) - 128.0)

    def network(self, rows):
        return torch.where((rows.mean(1, keepdim=True) < -123).expand_as(rows), math.nan, rows)


def test_an_embedding_that_is_none_drops_its_clip(make_film, tmp_path):
    make_film(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4", torch.full((3, 8, 32, 32), -1.0), fps=8.0)
    (tmp_path / "c.mp4").write_bytes(b"no film")
    found = ClipRun([Named("light", Lights(), {})], tmp_path)([Clip(name, f"{name}.mp4", end_s=1.0) for name in "abc"])
    assert [clip.drop and clip.drop.reason for clip in found] == [None, "cannot be embedded", "cannot be opened"]
    assert np.linalg.norm(found[0].vectors["light"].astype(float)) == pytest.approx(1.0, abs=1e-3)


def test_a_score_that_is_none_drops_its_clip():
    stage = Aesthetics(clip_path="clip", head_path="head")
    with pytest.raises(SampleError, match="nan"):
        stage.judge(Clip("a", "a"), math.nan)
    with pytest.raises(UsageError, match="min_score"):
        Aesthetics(clip_path="clip", head_path="head", min_score=math.nan)


def test_a_torchscript_with_another_precision_is_refused(tmp_path, make_film):
    class Mean(torch.nn.Module):
        def forward(self, pixels):
            return pixels.mean((2, 3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Mean()), str(tmp_path / "mean.pt"))
    clip, film = Clip("a", "a.mp4"), Media(make_film(tmp_path / "a.mp4"))
    assert CopyEmbedding(path=str(tmp_path / "mean.pt"), device="cpu").apply(clip, film).drop is None
    with pytest.raises(UsageError, match="its own precision"):
        CopyEmbedding(path=str(tmp_path / "mean.pt"), device="cpu", dtype="bfloat16").apply(clip, film)


def test_stages_with_a_model_ask_for_a_gpu_unless_they_are_told_to_do_without():
    makers = (
        lambda device: Aesthetics(clip_path="clip", head_path="head", device=device),
        lambda device: CopyEmbedding(path="copy", device=device),
        lambda device: ConceptEmbedding(path="concept", device=device),
        lambda device: ModelCaptions(path="captioner", device=device),
        lambda device: SoundTags(pretrained="tagger", device=device),
    )
    for make in makers:
        assert make(None).uses_gpu and make("cuda:0").uses_gpu and not make("cpu").uses_gpu


def test_a_rows_answer_is_the_same_to_the_bit_whoever_it_is_asked_with():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(768, 3072), torch.nn.GELU(), torch.nn.Linear(3072, 512)).eval()
    rows, cpu = torch.randn(5, 768), torch.device("cpu")
    seen = []

    def watched(part):
        seen.append(len(part))
        return network(part).half()

    with torch.no_grad():
        together = in_equal_batches(watched, rows, size=4, device=cpu)
        alone = torch.cat([in_equal_batches(watched, row[None], size=4, device=cpu) for row in rows])
        torch.testing.assert_close(together, network(rows), atol=1e-2, rtol=1e-2)
    assert torch.equal(together, alone) and set(seen) == {4} and together.dtype is torch.float32
    assert at_a_time(4, cpu) == 1 and at_a_time(4, torch.device("cuda")) == 4


def test_devices():
    assert pick_device("cpu", stage="It").type == "cpu" and pick_device(None, stage="It").type in ("cpu", "cuda")
    for device in ("cuda:99", "warp"):
        with pytest.raises(UsageError, match=f"device='{device}' was given for It"):
            pick_device(device, stage="It")


class Model(Lazy):
    def __init__(self):
        self.path = "here"

    @cached_property
    def network(self):
        return [1]


class Larger(Model):
    @cached_property
    def words(self):
        return [2]


def test_what_is_loaded_stays_behind_on_the_way_to_a_worker():
    model = Larger()
    assert model.network == [1] and model.words == [2]
    assert vars(pickle.loads(pickle.dumps(model))) == {"path": "here"} and model.network == [1]
    stage = Aesthetics(clip_path="clip", head_path="head")
    vars(stage)["_predictor"] = lambda: None  # cannot be pickled, as some networks cannot
    assert "_predictor" not in vars(pickle.loads(pickle.dumps(stage)))
    reader = WordReader(num_threads=1)
    vars(reader)["_engine"] = lambda: None
    assert vars(pickle.loads(pickle.dumps(reader))) == {"enlarge": 1.0, "num_threads": 1}
