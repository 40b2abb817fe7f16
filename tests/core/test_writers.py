"""Predictions as files: what is written is read back and compared."""

import json
import math
import warnings
import wave

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader

from moviegen_core import files
from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.writers import PredictionWriter
from moviegen_core.media.images import contact_sheet, gif_bytes, write_strip
from moviegen_core.media.video import read_video, write_video


def smooth_video(num_frames=12, height=48, width=64):
    """Coloured waves that move; smooth, because 4:2:0 halves the colours' resolution."""
    t, y, x = torch.meshgrid(torch.arange(num_frames) / 12, torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([torch.sin(2 * x + 6 * t), y * torch.cos(6 * t), 0.8 * torch.cos(x + y + 3 * t)])


def tone(hz, seconds, rate):
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(int(seconds * rate)) / rate)


def psnr_db(a, b):
    return -10 * math.log10(((a - b) / 2).square().mean())


# -- single files --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [16, 24.0, 23.976, 12.5])
def test_video_comes_back(tmp_path, fps):
    video = smooth_video()
    write_video(tmp_path / "film.mp4", video, fps=fps)
    clip = read_video(tmp_path / "film.mp4")
    assert clip.video.shape == video.shape
    assert clip.fps == pytest.approx(fps, rel=1e-6)
    assert psnr_db(clip.video, video) > 36
    assert clip.audio is None


def test_crf_trades_size_for_quality(tmp_path):
    video = smooth_video(num_frames=4)
    found = []
    for crf in (0, 18, 40):
        write_video(tmp_path / "film.mp4", video, fps=8, crf=crf)
        found.append((psnr_db(read_video(tmp_path / "film.mp4").video, video), (tmp_path / "film.mp4").stat().st_size))
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("colour", [(1, -1, -1), (-1, 1, -1), (-1, -1, 1), (1, 1, 1), (-1, -1, -1), (0.4, -0.2, 0.1)])
def test_colours_are_true(tmp_path, colour):
    """Primaries are the hard case: a wrong matrix or range shifts them by 10 % and more."""
    video = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1, 1).expand(3, 2, 32, 32)
    write_video(tmp_path / "film.mp4", video, fps=8)
    assert (read_video(tmp_path / "film.mp4").video - video).abs().max() < 0.03


def test_odd_sizes_gain_a_repeated_row_and_column(tmp_path):
    video = smooth_video(height=47, width=63)
    write_video(tmp_path / "film.mp4", video, fps=16)
    clip = read_video(tmp_path / "film.mp4")
    assert clip.video.shape == (3, 12, 48, 64)
    assert psnr_db(clip.video[..., :47, :63], video) > 36


@pytest.mark.parametrize(("rate", "read_hz"), [(48000, 48000), (44100, 44100), (16000, 16000), (37000, 48000)])
@pytest.mark.parametrize("stereo", [False, True])
def test_sound_comes_back(tmp_path, rate, read_hz, stereo):
    audio = torch.stack([tone(440, 0.75, rate), tone(880, 0.75, rate)]) if stereo else tone(440, 0.75, rate)
    video = smooth_video()
    write_video(tmp_path / "film.mp4", video, fps=16, audio=audio, audio_hz=rate)
    clip = read_video(tmp_path / "film.mp4")
    assert psnr_db(clip.video, video) > 36
    assert clip.audio_hz == read_hz
    assert clip.audio.shape[0] == (2 if stereo else 1)
    assert clip.audio.shape[1] / read_hz == pytest.approx(0.75, abs=2048 / read_hz), "AAC pads to whole frames"
    for channel, hz in zip(clip.audio, (440, 880), strict=False):
        expected = tone(hz, 0.6, read_hz)
        heard = channel[: len(expected)]
        # In phase with the tone, so that sound and picture start together.
        assert float(heard @ expected / (heard.norm() * expected.norm())) > 0.98
        assert heard.norm() == pytest.approx(float(expected.norm()), rel=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0}, "fps=0 .*give one such as 16"),
        ({"fps": float("nan")}, "fps=nan"),
        ({"audio": torch.zeros(100)}, "give both `audio` and `audio_hz`"),
        ({"audio": torch.zeros(6, 100), "audio_hz": 48000}, r"\(6, 100\).*stereo"),
        ({"audio": torch.zeros(1, 0), "audio_hz": 48000}, r"\(1, 0\)"),
        ({"audio": torch.full((1, 9), float("nan")), "audio_hz": 48000}, r"film\.mp4 was given to be written; it holds NaN"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "film.mp4", smooth_video(2), **{"fps": 16} | change)
    assert list(tmp_path.iterdir()) == []


def test_values_out_of_range_are_clamped(tmp_path):
    video = torch.full((3, 2, 16, 16), 7.0)
    video[:, 1] = float("nan")
    write_video(tmp_path / "film.mp4", video, fps=1, crf=1)
    clip = read_video(tmp_path / "film.mp4")
    assert clip.video[:, 0].min() > 0.98 and clip.video[:, 1].max() < -0.98


def test_strip_is_the_frames_side_by_side(tmp_path):
    video = smooth_video(num_frames=16, height=8, width=10)
    write_strip(tmp_path / "strip.png", video, num_frames=4)
    pixels = np.asarray(Image.open(tmp_path / "strip.png")) / 127.5 - 1.0
    expected = torch.cat([video[:, t] for t in (0, 5, 10, 15)], dim=2).permute(1, 2, 0).numpy()
    assert np.abs(pixels - expected).max() < 0.005


def test_contact_sheet_holds_every_video_and_any_caption(tmp_path):
    videos = [torch.full((3, 2, 8, 40), value) for value in (-0.5, 0.0, 0.5)]
    contact_sheet(tmp_path / "sheet.png", videos, ["short", "雪の中の犬 🙂", "long " * 60 + "w" * 300], 2)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    for value in (64, 128, 191):
        assert (np.abs(pixels.astype(int) - value).max(2) <= 1).sum() >= 8 * 80, f"the video of grey {value}"
    assert pixels.shape[1] == 2 * (80 + 6) + 6
    with pytest.raises(ValueError, match="3 pictures and 1 captions"):
        contact_sheet(tmp_path / "other.png", videos, ["one"], 2)


def test_long_gifs_keep_their_length():
    video = torch.linspace(-1, 1, 30).view(1, 30, 1, 1).expand(3, 30, 8, 8)
    import io

    animation = Image.open(io.BytesIO(gif_bytes(video, fps=30)))
    total = 0
    for t in range(animation.n_frames):
        animation.seek(t)
        total += animation.info["duration"]
    assert (animation.n_frames, total) == (30, 1000)


# -- the callback --------------------------------------------------------------------------------------------------------------------


class Model(LightningModule):
    """Returns what a predict_step of a generator returns."""

    def __init__(self, *, num_frames=6, sound=False, record=False):
        super().__init__()
        self.num_frames, self.sound, self.record = num_frames, sound, record
        self.num_calls = 0

    def predict_step(self, batch, batch_idx):
        self.num_calls += 1
        n = len(batch)
        video = smooth_video(self.num_frames, 16, 32)[None].repeat(n, 1, 1, 1, 1)
        if self.record:
            return MediaBatch(captions=batch.captions, keys=batch.keys, video=video, fps=torch.full((n,), 8.0))
        output = {"keys": batch.keys, "captions": batch.captions, "video": video, "fps": [8.0] * n, "metadata": [{"seed": 3}] * n}
        if self.sound:
            output |= {"audio": tone(440, 0.75, 16000).expand(n, 1, -1), "audio_hz": 16000}
        return output


def predict(writer, *, keys=("a", "b", "c"), model=None, **model_options):
    batches = [MediaBatch(captions=[f"caption of {key}"], keys=[key]) for key in keys]
    model = model or Model(**model_options)
    trainer = Trainer(accelerator="cpu", callbacks=[writer], logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.predict(model, DataLoader(batches, batch_size=None), return_predictions=False)
    return model


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("record", [False, True])
def test_all_formats(tmp_path, record):
    predict(PredictionWriter(output=str(tmp_path), formats=["mp4", "gif", "png", "strip", "sheet"]), record=record)
    kinds = ["", ".gif", ".json", ".mp4", ".strip.png"]
    assert names(tmp_path) == sorted([*(f"{key}{kind}" for key in "abc" for kind in kinds), "contact_sheet.png"])
    clip = read_video(tmp_path / "b.mp4")
    assert clip.video.shape == (3, 6, 16, 32) and clip.fps == 8
    assert names(tmp_path / "b") == [f"{t:05d}.png" for t in range(6)]
    frame = np.asarray(Image.open(tmp_path / "b" / "00005.png")) / 127.5 - 1.0
    assert np.abs(frame - smooth_video(6, 16, 32)[:, 5].permute(1, 2, 0).numpy()).max() < 0.005
    told = json.loads((tmp_path / "b.json").read_text())
    assert told | {"metadata": None} == {
        "key": "b",
        "caption": "caption of b",
        "fps": 8.0,
        "num_frames": 6,
        "height": 16,
        "width": 32,
        "metadata": None,
    }


def test_sound_goes_into_the_film_and_beside_it(tmp_path):
    predict(PredictionWriter(output=str(tmp_path), formats=["mp4", "wav"]), keys=["a"], sound=True)
    assert read_video(tmp_path / "a.mp4").audio_hz == 16000
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnframes()) == (16000, 12000)
    with pytest.raises(ValueError, match="no sound for 'b'.*take `wav` out"):
        predict(PredictionWriter(output=str(tmp_path), formats=["wav"]), keys=["b"])


def test_one_frame_is_an_image(tmp_path):
    predict(PredictionWriter(output=str(tmp_path), formats=["mp4", "strip"]), keys=["a"], num_frames=1)
    assert names(tmp_path) == ["a.json", "a.png"]


def test_hostile_and_repeated_keys(tmp_path):
    keys = ["../up", "a red circle", "a red circle", "雪の中の犬", "long " * 200]
    predict(PredictionWriter(output=str(tmp_path / "out"), formats=["gif"]), keys=keys)
    assert names(tmp_path) == ["out"]
    assert len(names(tmp_path / "out")) == 2 * len(keys)
    assert {json.loads(path.read_text())["key"] for path in (tmp_path / "out").glob("*.json")} == set(keys)


def test_an_earlier_run_is_not_overwritten_and_costs_nothing_to_find_out(tmp_path):
    predict(PredictionWriter(output=str(tmp_path), formats=["gif"]), keys=["a"])
    model = Model(num_frames=2)
    with pytest.raises(ValueError, match=r"'a' was asked for.*earlier run.*`overwrite: true`"):
        predict(PredictionWriter(output=str(tmp_path), formats=["gif"]), keys=["a"], model=model)
    assert model.num_calls == 0
    predict(PredictionWriter(output=str(tmp_path), formats=["gif"], overwrite=True), keys=["a"], model=model)
    assert json.loads((tmp_path / "a.json").read_text())["num_frames"] == 2


def test_a_full_disk_stops_with_a_message_and_leaves_nothing_half(tmp_path, monkeypatch):
    writer = PredictionWriter(output=str(tmp_path), formats=["mp4"])
    opened = []

    def fills_up(path):
        opened.append(path)
        return open("/dev/full" if len(opened) > 2 else path, "wb")

    monkeypatch.setattr(files, "_open", fills_up)
    with pytest.raises(OSError, match=r"could not write .*b\.mp4: No space left on device; .*free some space"):
        predict(writer)
    assert names(tmp_path) == ["a.json", "a.mp4"]


@pytest.mark.parametrize("formats", [["avi"], []])
def test_unknown_formats_are_refused(formats):
    with pytest.raises(ValueError, match=r"there are mp4, gif, png, strip, wav, flac, sheet"):
        PredictionWriter(formats=formats)


def test_a_predict_step_that_returns_something_else_is_told_what_is_needed(tmp_path):
    class Other(Model):
        def predict_step(self, batch, batch_idx):
            return {"loss": 1.0}

    with pytest.raises(ValueError, match="predict_step returned loss; a writer needs `keys` and `captions`"):
        predict(PredictionWriter(output=str(tmp_path)), model=Other())
