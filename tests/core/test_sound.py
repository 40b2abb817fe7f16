"""Sounds as files and as pictures, and in films: read back by libav."""

import math
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule

from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.writers import PredictionWriter
from moviegen_core.errors import UsageError
from moviegen_core.media.sound import flac_bytes, frequency_of_row, spectrogram, wav_bytes, waveform, write_audio
from moviegen_core.media.video import read_video, write_video


def tone(hz, seconds, rate):
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * rate)) / rate)[None]


def read(path):
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        parts = [frame.to_ndarray() for frame in file.decode(stream)]
        joined = np.concatenate(parts, axis=1)
        channels = stream.channels
        return (joined if len(joined) == channels else joined.reshape(-1, channels).T), stream.rate, stream.format.name


@pytest.mark.parametrize(("name", "steps"), [("a.wav", 2**15 - 1), ("a.flac", 2**23 - 1)])
@pytest.mark.parametrize("channels", [1, 2])
def test_written_sounds_come_back_to_the_last_bit(tmp_path, name, steps, channels):
    sound = torch.rand(channels, 10_007, generator=torch.Generator().manual_seed(0)) * 2 - 1
    write_audio(tmp_path / name, sound, 44100)
    samples, rate, _ = read(tmp_path / name)
    whole = samples.astype(np.float64) / (1 if name.endswith("wav") else 256)
    assert rate == 44100 and samples.shape == (channels, 10_007)
    assert np.abs(whole - sound.numpy().astype(np.float64) * steps).max() <= 0.5 + 1e-3


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match=r"there are \.wav and \.flac"):
        write_audio(tmp_path / "a.mp3", torch.zeros(10), 8000)
    with pytest.raises(UsageError, match="NaN or infinite"):
        write_audio(tmp_path / "a.wav", torch.tensor([0.0, float("nan")]), 8000)
    for encode in (wav_bytes, flac_bytes):
        with pytest.raises(UsageError, match="NaN or infinite"):
            encode(torch.tensor([[0.0, float("inf")]]), 8000)
    with pytest.raises(ValueError, match=r"\(6, 10\)"):
        flac_bytes(torch.zeros(6, 10), 8000)
    assert list(tmp_path.iterdir()) == []
    write_audio(tmp_path / "mono.wav", torch.zeros(10), 8000)
    assert (tmp_path / "mono.wav").read_bytes() == wav_bytes(torch.zeros(1, 10), 8000)


@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
@pytest.mark.parametrize("hz", [150.0, 1000.0, 6000.0])
def test_a_tone_lies_on_its_row(scale, hz):
    picture = np.asarray(spectrogram(tone(hz, 0.5, 16000), scale=scale, hz=16000)).astype(float)
    row = picture.shape[0] - 1 - picture.mean(1).argmax()
    assert frequency_of_row(row, picture.shape[0], 16000, scale) == pytest.approx(hz, rel=0.04, abs=16000 / 1024)


def test_low_tones_have_more_room_on_the_ears_scales():
    rows = {scale: [frequency_of_row(row, 100, 16000, scale) for row in range(100)] for scale in ("linear", "log", "mel")}
    assert all(frequencies[-1] == pytest.approx(8000) for frequencies in rows.values())
    counts = [sum(frequency < 1000 for frequency in rows[scale]) for scale in ("linear", "mel", "log")]
    assert counts == sorted(counts) and counts[0] < counts[1] < counts[2]
    with pytest.raises(ValueError, match="give the sampling rate"):
        spectrogram(torch.zeros(1, 2000), scale="mel")


def test_a_waveform_shows_the_range_of_the_samples():
    picture = np.asarray(waveform(torch.stack([torch.zeros(1000), torch.full((1000,), 0.5)]), width=50, height=101))
    assert picture.shape == (202, 50)
    assert np.flatnonzero(picture[:101, 10] == 0).tolist() == [50] and np.flatnonzero(picture[101:, 10] == 0).tolist() == [25]
    assert np.asarray(waveform(torch.zeros(1, 3), width=50)).shape == (120, 50)


@pytest.mark.parametrize("codec", ["aac", "opus"])
@pytest.mark.parametrize(("seconds", "lasts"), [(0.4, 1.0), (1.0, 1.0), (1.7, 1.7)])
def test_sounds_of_another_length_than_the_picture(tmp_path, codec, seconds, lasts):
    video = torch.zeros(3, 10, 16, 16)
    write_video(tmp_path / "film.mp4", video, fps=10, audio=tone(440, seconds, 48000), audio_hz=48000, audio_codec=codec)
    clip = read_video(tmp_path / "film.mp4")
    assert clip.video.shape[1] == 10 and clip.audio_hz == 48000
    assert clip.audio.shape[1] / 48000 == pytest.approx(lasts, abs=0.05)
    expected = tone(440, seconds, 48000)[0, 4800:-4800]
    heard = clip.audio[0, 4800 : round(seconds * 48000) - 4800]
    assert float(heard @ expected / (heard.norm() * expected.norm())) > 0.98
    after = clip.audio[0, round((seconds + 0.05) * 48000) :]
    assert not len(after) or float(after.abs().max()) < 0.01, "silence up to the end of the picture"
    with av.open(str(tmp_path / "film.mp4")) as file:
        assert file.streams.audio[0].codec_context.name == codec


class Foley(LightningModule):
    """Makes a sound for the videos of a batch, and returns no video."""

    def predict_step(self, batch, batch_idx):
        audio = tone(440, 1.0, 16000).expand(len(batch), 1, -1)
        return {"keys": batch.keys, "captions": batch.captions, "audio": audio, "audio_hz": 16000, "metadata": []}


@pytest.mark.parametrize("codec", ["aac", "opus"])
def test_a_sound_for_a_video_is_written_with_that_video(tmp_path, codec):
    video = torch.linspace(-1, 1, 8).view(1, 1, 8, 1, 1).expand(2, 3, 8, 16, 16)
    batch = MediaBatch(captions=["a", "b"], keys=["a", "b"], video=video, fps=torch.tensor([8.0, 4.0]))
    writer = PredictionWriter(output=str(tmp_path), formats=["mp4", "flac"], audio_codec=codec)
    trainer = SimpleNamespace(strategy=None)
    writer.write_on_batch_end(trainer, Foley(), Foley().predict_step(batch, 0), None, batch, 0, 0)
    for name, fps in (("a", 8.0), ("b", 4.0)):
        clip = read_video(tmp_path / f"{name}.mp4")
        assert clip.fps == fps and clip.video.shape[1] == 8 and clip.audio.abs().max() > 0.3
        assert (clip.video - video[0]).abs().max() < 0.06
        samples, rate, form = read(tmp_path / f"{name}.flac")
        assert (rate, form, samples.shape) == (16000, "s32", (1, 16000))
    audio_only = MediaBatch(captions=["c"], keys=["c"])
    with pytest.raises(UsageError, match="made no video for 'c'"):
        writer.write_on_batch_end(trainer, Foley(), Foley().predict_step(audio_only, 0), None, audio_only, 0, 0)


def test_a_prediction_that_is_not_finite_is_refused_by_name_before_anything_is_written(tmp_path):
    writer = PredictionWriter(output=str(tmp_path), formats=["wav", "flac"])
    prediction = {"keys": ["rain"], "captions": [""], "audio": torch.full((1, 1, 9), float("nan")), "audio_hz": 8000}
    with pytest.raises(UsageError, match="the sound of 'rain' .* NaN"):
        writer.write_on_batch_end(SimpleNamespace(strategy=None), Foley(), prediction, None, None, 0, 0)
    assert list(tmp_path.iterdir()) == []
