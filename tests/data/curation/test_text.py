"""Text: rendered words against the engine's own call, adaptive sampling, and real clips that were looked at."""

import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from moviegen_core.errors import UsageError
from moviegen_core.media.video import write_video
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.ocr import WordReader
from moviegen_data.curation.stages.text import NoText, adaptive

CLIP = Clip(key="a", source="a.mp4")


def titled(words, *, height=192, width=320, size=36, place=(30, 60), fill="white"):
    picture = Image.fromarray(ground(1, height, width)[0])
    ImageDraw.Draw(picture).text(place, words, font=ImageFont.load_default(size=size), fill=fill)
    return np.asarray(picture)


def ground(count, height=192, width=320):
    shades = np.linspace(30, 110, width).astype(np.uint8)[None, None, :, None]
    return np.broadcast_to(shades, (count, height, width, 3)).copy()


def filmed(path, frames, fps=4.0):
    write_video(path, torch.from_numpy(frames.copy()).permute(3, 0, 1, 2).float() / 127.5 - 1.0, fps=fps)
    return Media(path)


@pytest.fixture(scope="module")
def reader():
    pytest.importorskip("rapidocr_onnxruntime", reason="words are read by the extra `curation`")
    return WordReader()


def test_both_scores_of_a_word_are_those_of_the_engine(reader):
    picture = titled("SPRING 2041")
    (word,) = reader.read(picture)
    assert word.text.replace(" ", "") == "SPRING2041" and word.score == word.detection * word.recognition > 0.6
    left, top, right, bottom = word.box
    assert left < 34 / 320 < 0.5 < right and top < 75 / 192 < bottom < 0.7

    image = np.ascontiguousarray(picture[:, :, ::-1])
    whole = dict(use_cls=False, text_score=0.0)
    (found,), _ = reader._engine(image, box_thresh=word.detection - 0.01, **whole)
    assert found[1] == word.text and float(found[2]) == pytest.approx(word.recognition, abs=0.01)
    # The engine tells no detection score, but drops a box by it: so it lies between these two.
    assert reader._engine(image, box_thresh=word.detection + 0.01, **whole)[0] is None
    reader._engine.text_det.postprocess_op.box_thresh = 0.5
    for part in (reader._engine.text_det.infer, reader._engine.text_rec.session):
        assert part.session.get_session_options().intra_op_num_threads == 1


def test_a_clip_with_a_word_is_dropped_and_the_word_told(reader, tmp_path):
    stage = pickle.loads(pickle.dumps(NoText()))
    stage._reader = reader
    frames = ground(24)
    frames[12:16] = titled("Chapter One")  # one second of six
    media = filmed(tmp_path / "a.mp4", frames)
    found = stage.apply(CLIP, media)
    assert found.drop.reason == "text" and found.scores["text"] >= 0.6
    best = found.annotations["words"][0]
    assert best["text"].replace(" ", "") == "ChapterOne" and 3.0 <= best["time_s"] <= 4.0
    assert best["detection"] * best["recognition"] == pytest.approx(found.scores["text"], abs=1e-3)

    before = stage.apply(CLIP.part(0, 0.0, 3.0), media)
    assert before.drop is None and before.scores["text"] == 0.0 and before.annotations["words"] == []

    lenient = NoText(max_score=1.0)
    lenient._reader = reader
    assert lenient.apply(CLIP, media).drop is None
    longer = NoText(min_characters=11)
    longer._reader = reader
    assert longer.apply(CLIP, media).scores["text"] == 0.0
    assert pickle.loads(pickle.dumps(stage))._reader.num_threads == 1  # the networks stay behind


@pytest.mark.parametrize("size", [(8, 8), (2, 200), (40, 400)])
def test_tiny_and_flat_pictures_are_read(reader, size):
    assert reader.read(np.zeros((*size, 3), np.uint8)) == []


def test_a_flat_picture_keeps_the_place_of_its_words(reader):
    (word,) = reader.read(titled("NEWS", height=28, width=320, size=22, place=(200, 1)))
    left, top, right, bottom = word.box
    assert 0.5 < left < 0.7 < right < 0.9 and top < 0.3 and bottom > 0.7


def test_a_still_clip_is_sampled_evenly_and_equal_frames_once():
    slow = np.stack([np.full((8, 8, 3), 100 + index % 2, np.uint8) for index in range(16)])
    assert adaptive(slow, 4) == [2, 6, 10, 14] or np.ptp(np.diff(adaptive(slow, 4))) <= 1
    assert adaptive(np.zeros((16, 8, 8, 3), np.uint8), 4) == [adaptive(np.zeros((16, 8, 8, 3), np.uint8), 4)[0]]
    assert adaptive(slow[:1], 4) == [0]


def test_more_is_looked_at_where_the_picture_changes():
    frames = np.zeros((20, 8, 8, 3), np.uint8)
    frames[10:14] = np.array([80, 160, 40, 240], np.uint8)[:, None, None, None]
    chosen = adaptive(frames, 6)
    assert sum(9 < index < 15 for index in chosen) >= 4
    assert chosen == sorted(set(chosen))


def test_a_small_title_counts_as_much_as_a_large_one():
    frames = np.full((40, 64, 64, 3), 20, np.uint8)
    frames[17:19, 40:46, 20:44] = 200
    frames[30:] = 21
    assert {17, 18} & set(adaptive(frames, 5))


def test_of_each_part_the_picture_with_most_edges_is_read():
    bars = np.where(np.arange(64) // 4 % 2, 200, 20).astype(np.uint8)[None, :, None]
    frames = np.full((24, 64, 64, 3), 20, np.uint8)
    frames[np.arange(24), np.arange(24) * 2] = 90  # something moves all the time
    frames[[1, 9, 15, 22], 50:60] = bars
    assert adaptive(frames, 4) == [1, 9, 15, 22]


def test_a_title_between_lively_shots_is_read():
    waves = np.broadcast_to(np.abs(np.arange(-32, 32))[None, :, None] * 7, (64, 64, 3)).astype(np.uint8)
    frames = np.stack([np.roll(waves, 7 * index, 1) for index in range(48)])
    frames[20:25] = 0
    frames[21:24, 30:34, 16:48:2] = 150
    assert {21, 22, 23} & set(adaptive(frames, 15))


def test_small_pictures_are_enlarged_for_words_that_are_overlooked_otherwise(reader, tmp_path):
    media = filmed(tmp_path / "a.mp4", titled("preview copy", size=8, fill="#787878")[None].repeat(4, 0))
    scores = {}
    for enlarge in (1.0, 3.0):
        stage = NoText(enlarge=enlarge)
        stage._reader.__dict__["_engine"] = reader._engine
        found = stage.apply(CLIP, media)
        scores[enlarge] = found.scores["text"]
    assert scores[1.0] < 0.6 <= scores[3.0]
    left, top, right, bottom = found.annotations["words"][0]["box"]
    assert left == pytest.approx(30 / 320, abs=0.02) and top == pytest.approx(61 / 192, abs=0.03) and right < 0.4 and bottom < 0.45


def test_settings_are_checked_and_the_extra_named(monkeypatch):
    wrong_ones = [{"max_score": 0.0}, {"frames_per_s": 0.0}, {"max_frames": 0}, {"num_threads": 0}, {"max_score": float("nan")}]
    for wrong in (*wrong_ones, {"enlarge": 0.5}):
        with pytest.raises(UsageError):
            NoText(**wrong)
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(UsageError, match=r"moviegen\[curation\]"):
        WordReader().read(np.zeros((64, 64, 3), np.uint8))


def test_more_threads_than_cores_are_refused():
    pytest.importorskip("rapidocr_onnxruntime", reason="words are read by the extra `curation`")
    with pytest.raises(UsageError, match="cores"):
        WordReader(num_threads=4096).read(np.zeros((64, 64, 3), np.uint8))


# By eye: running numbers; titles; titles; banners on the wall.
TEXT = {"testcard_1080p.mp4", "sintel_30s_cuts_854x480.mp4", "bunny_30s_720p_vp8.webm", "weightlifting_320x240.mp4"}
# Signs and labels somewhere in the picture, which may be read or not.
EITHER = {"bikes_cuts_640x272.mp4", "basketball_426x240.mp4", "man_talking_540x960.mp4", "drummer_204x360_36s.mp4"}


@pytest.mark.slow
@pytest.mark.media
def test_precision_and_recall_on_real_clips(media, reader):
    stage, scores = NoText(), {}
    for path in sorted((media / "video").iterdir()):
        found = stage.apply(CLIP, Media(path))
        scores[path.name] = found.scores["text"]
        print(f"{path.name:40} {found.scores['text']:.2f}", [word["text"] for word in found.annotations["words"][:3]])
    dropped = {name for name, score in scores.items() if score >= 0.6} - EITHER
    assert dropped == TEXT
