"""Packing sounds, and films with sound, into shards."""

import numpy as np
import pytest
from audio_shards import HZ, data

from moviegen_core.errors import UsageError
from moviegen_data.datamodule import ShardData
from moviegen_data.inspect import inspect
from moviegen_data.pack import pack
from moviegen_data.reader import ShardReader


def test_packing_sounds_and_films(tmp_path, media_maker, capsys):
    folder = tmp_path / "media"
    folder.mkdir()
    tone = 0.5 * np.sin(2 * np.pi * 997 * np.arange(2 * 48000) / 48000)[None]
    (folder / "tone.mp3").write_bytes(media_maker.encode_sound(tone, 48000, container="mp3", codec="libmp3lame"))
    (folder / "tone.ogg").write_bytes(media_maker.encode_sound(tone, 48000, container="ogg", codec="libopus"))
    frames = media_maker.grey_steps(10, step=5)
    film = media_maker.encode_sound(tone, 48000, container="mp4", codec="aac", frames=frames, late_s=0.5)
    (folder / "film.mp4").write_bytes(film)
    (folder / "mute.mp4").write_bytes(media_maker.encode_clip(frames))
    report = pack(str(folder), str(tmp_path / "out"))
    assert report.num_samples == 4 and not report.skipped
    records = {sample.metadata["source"]: sample.metadata for sample in map(ShardReader(str(tmp_path / "out")).__getitem__, range(4))}
    for name in ("tone.mp3", "tone.ogg"):
        assert records[name]["loudness_lufs"] == pytest.approx(-9.03, abs=0.5) and records[name]["silence"] == pytest.approx(0, abs=0.06)
        assert records[name]["duration_s"] == pytest.approx(2.0, abs=0.06) and records[name]["num_channels"] == 1
    told = records["film.mp4"]
    assert (told["has_audio"], told["audio_hz"], told["num_channels"], told["duration_s"]) == (True, 48000, 1, 1.0)
    assert told["audio_duration_s"] == pytest.approx(2.5, abs=0.06) and told["audio_start_s"] == pytest.approx(0.5, abs=0.03)
    assert records["mute.mp4"]["has_audio"] is False and "loudness_lufs" not in records["mute.mp4"]
    answer = inspect(str(tmp_path / "out"))
    assert answer["sounds"] == {"48000 Hz, 1 ch": 2} and not answer["bad"]
    module = data(tmp_path / "out", durations=[1.0], batch_size=1)
    assert sum(len(batch) for batch in module.predict_dataloader()) == 3 and module.skipped.counts == {"no sound": 1}


def test_a_film_with_a_broken_track_keeps_its_picture(tmp_path, media_maker):
    wave = np.full((1, HZ), 0.1, dtype=np.float32)
    wave[0, 5000] = np.inf
    folder = tmp_path / "media"
    folder.mkdir()
    film = media_maker.encode_sound(wave, HZ, container="matroska", codec="pcm_f32le", frames=media_maker.grey_steps(10))
    (folder / "film.mkv").write_bytes(film)
    pack(str(folder), str(tmp_path / "out"))
    told = ShardReader(str(tmp_path / "out"))[0].metadata
    assert told["has_audio"] and told["audio_problem"].startswith("the sound holds NaN or infinite values") and "silence" not in told
    (batch,) = ShardData(urls=str(tmp_path / "out"), num_frames=4, height=16, width=16, fps=10.0, batch_size=1).train_dataloader()
    assert batch.video.isfinite().all()
    with pytest.raises(UsageError, match="the sound holds NaN or infinite values"):
        data(tmp_path / "out").train_dataloader()
