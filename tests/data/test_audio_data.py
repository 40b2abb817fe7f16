"""Sounds from shards: spans, durations, frames and features beside them, silence, levels, bad samples."""

import collections
import warnings

import numpy as np
import pytest
import torch
from audio_shards import HZ, data

from moviegen_audio.alignment import nearest_frames
from moviegen_core.errors import UsageError
from moviegen_data.audio_data import AudioData
from moviegen_data.faults import SourceError
from moviegen_data.pack import pack
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import visual_bytes


def test_a_batch_of_sounds(sound_shards):
    module = data(sound_shards(), shuffle=False, clip_position="first")
    batch = next(iter(module.train_dataloader()))
    assert batch.audio.shape == (2, 1, HZ) and batch.audio.dtype == torch.float32 and batch.audio_hz == HZ
    assert batch.video is None and batch.latents is None and batch.fps is None
    assert batch.captions == ["sounds 0", "sounds 1"] and batch.audio[1].mean() == pytest.approx(0.01, abs=1e-4)
    assert batch.metadata[1]["start_s"] == 0.0 and batch.metadata[1]["valid_s"] == 1.0


def test_rates_and_channels(sound_shards):
    batch = next(iter(data(sound_shards(), audio_hz=16000, audio_channels=2).train_dataloader()))
    assert batch.audio.shape == (2, 2, 16000) and batch.audio_hz == 16000 and torch.equal(batch.audio[:, 0], batch.audio[:, 1])


def test_chunks_start_anywhere_and_the_same_everywhere(sound_shards):
    folder = sound_shards()

    def starts(**settings):
        loader = data(folder, **settings).train_dataloader()
        found = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            found += [(key, meta["start_s"]) for batch in loader for key, meta in zip(batch.keys, batch.metadata)]
        return found

    one = starts()
    assert one == starts() != starts(seed=1) and len({start for _, start in one}) == 12
    assert all(0 <= start <= 2 for _, start in one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert starts(num_workers=2) == one


def test_frames_and_features_are_of_the_very_same_span(sound_shards):
    folder = sound_shards("films", film=True, features=True)
    module = data(folder, video=True, visual_features=True, batch_size=3)
    loader = module.train_dataloader()
    for batch in loader:
        assert batch.video.shape == (3, 3, 10, 16, 16) and batch.fps.tolist() == [10.0] * 3
        assert batch.extras["visual_features"].shape == (3, 10, 4) and batch.extras["visual_fps"].tolist() == [10.0] * 3
        for row, meta in enumerate(batch.metadata):
            grey = (batch.video[row].mean((0, 2, 3)) + 1) * 127.5
            frames = ((grey - 20) / 5).round()
            assert frames.tolist() == batch.extras["visual_features"][row, :, 0].tolist()
            assert abs(frames[0] - meta["start_s"] * 10) <= 0.5 + 1e-6, "as often late as early"
            number = int(batch.keys[row][-3:])
            seconds = (batch.audio[row, 0] - number / 100) * 1000
            later = round((np.floor(meta["start_s"]) + 1 - meta["start_s"]) * HZ)
            assert seconds[: later - 20].mean() == pytest.approx(np.floor(meta["start_s"]), abs=0.1)
    assert not module.skipped


@pytest.mark.parametrize("feature_hz", [24.0, 25.0, 30.0])
def test_cached_features_are_those_that_generation_takes(tmp_path, media_maker, feature_hz):
    """For every latent frame the same one as for the whole film at its own rate: the nearest by their middles."""
    with ShardWriter(tmp_path / "cached", max_samples=4) as writer:
        rows = torch.arange(round(3 * feature_hz)).float()[:, None]
        sound = media_maker.encode_sound(np.zeros((1, 3 * HZ)), HZ)
        writer.write("film", {"json": {"caption": ""}, "wav": sound, "visual.safetensors": visual_bytes(rows, feature_hz)})
    for position in ("first", "middle"):
        module = data(tmp_path / "cached", visual_features=True, batch_size=1, fps=25.0, clip_position=position)
        (batch,) = module.train_dataloader()
        start = round(batch.metadata[0]["start_s"] * 25)
        nearest = nearest_frames(start + 25, 25.0, torch.tensor([feature_hz]), len(rows))[0, start:]
        assert batch.extras["visual_features"][0, :, 0].long().tolist() == nearest.tolist(), position


def test_durations_take_what_they_fit(sound_shards):
    folder = sound_shards(seconds=(0.5, 1.0, 1.4, 2.0, 2.5, 4.0, 4.5))
    module = data(folder, durations=[1.0, 2.0, 4.0], batch_size=1, batch_sizes=[2, 2, 1])
    found = collections.Counter((batch.audio.shape[0], batch.audio.shape[2]) for batch in module.train_dataloader())
    assert found == {(2, HZ): 1, (2, 2 * HZ): 1, (1, 4 * HZ): 2}
    assert module.skipped.counts == {"too short": 1}
    module = data(folder, durations=[1.0, 2.0, 4.0], batch_size=1, min_share=0.5)
    batches = {batch.keys[0]: batch for batch in module.predict_dataloader()}
    assert len(batches) == 7 and not module.skipped
    short = batches["sounds-000"]
    assert short.metadata[0]["valid_s"] == 0.5 and short.audio.shape[2] == HZ and not short.audio[..., HZ // 2 :].any()


def test_bad_samples_are_counted_and_replaced(tmp_path, media_maker):
    with ShardWriter(tmp_path) as writer:
        for number in range(6):
            wave = np.full((1, HZ), 0.1, dtype=np.float32)
            if number == 1:
                wave[0, 100] = np.nan
            parts = {"wav": media_maker.encode_sound(wave, HZ, codec="pcm_f32le")}
            if number == 2:
                parts = {"wav": b"not a sound"}
            if number == 3:
                parts = {"mp4": media_maker.encode_clip(media_maker.grey_steps(8))}
            if number == 4:
                parts = {"txt": "a caption"}
            writer.write(f"k{number}", {"json": {"caption": str(number)}, **parts})
    module = data(tmp_path, num_workers=0, batch_size=3)
    keys = [key for batch in module.train_dataloader() for key in batch.keys]
    assert set(keys) == {"k0", "k5"} and len(keys) == 3
    assert module.skipped.counts == {"no sound": 2, "the sound holds NaN or infinite values": 1, "cannot be opened": 1}
    silent = data(tmp_path, missing_audio="silence", batch_size=1)
    batches = {batch.keys[0]: batch for batch in silent.predict_dataloader()}
    assert set(batches) == {"k0", "k3", "k4", "k5"}
    assert not batches["k3"].audio.any() and batches["k3"].metadata[0]["valid_s"] == 0.0
    with pytest.raises(UsageError, match="too short"):
        data(tmp_path, durations=[100.0]).train_dataloader()


def test_silence_and_levels(tmp_path, media_maker):
    tone = 0.01 * np.sin(np.arange(HZ) * 0.5)[None]
    with ShardWriter(tmp_path) as writer:
        for number, silence in enumerate((0.0, 0.9, None)):
            wave = np.concatenate([tone, np.zeros((1, 3 * HZ))], axis=1) if number == 2 else np.tile(tone, 4)
            record = {"caption": "", **({} if silence is None else {"silence": silence})}
            writer.write(f"k{number}", {"json": record, "wav": media_maker.encode_sound(wave, HZ)})
    module = data(tmp_path, max_silence=0.5, normalize="peak", target_db=-6.0, batch_size=1)
    (batch,) = module.predict_dataloader()
    assert batch.keys == ["k0"] and batch.audio.abs().max() == pytest.approx(10 ** (-6 / 20), rel=1e-3)
    assert module.skipped.counts == {"too much silence": 2}
    for settings, told in (
        ({"max_silence": 2.0}, "share of the time"),
        ({"normalize": "peak", "target_db": 3.0}, "full scale is 0 dB"),
        ({"normalize": "peak", "target_db": -np.inf}, "full scale is 0 dB"),
        ({"normalize": "peak", "target_db": -1e9}, "nothing is left"),
        ({"target_db": -3.0}, "nothing is normalised"),
        ({"fps": 0.0}, "fps=0.0 was given"),
        ({"durations": [1.0, 1e-9]}, "the shortest has no sample"),
        ({"durations": [1.0, 1.0]}, "different lengths"),
        ({"duration_weights": [1, 2]}, "one above 0 for each"),
        ({"latents": True}, "cached latents bring their own lengths"),
        ({"audio_channels": 6}, "1 is mono and 2 stereo"),
    ):
        with pytest.raises(UsageError, match=told):
            data(tmp_path, **settings)


@pytest.mark.parametrize("wanted", ["video", "visual_features"])
def test_pictures_that_no_training_sample_has_are_refused(sound_shards, wanted):
    sounds, films = sound_shards(), sound_shards("films", film=True, features=True)
    with pytest.raises(UsageError, match=f"{wanted}: true was given; none of 6 training samples"):
        data(sounds, **{wanted: True}).train_dataloader()
    data([str(sounds), str(films)], **{wanted: True}).train_dataloader()
    next(iter(data(films, val_urls=str(sounds), **{wanted: True}).val_dataloader()))


@pytest.mark.media
def test_real_media(media, tmp_path):
    for name in ("audio", "hostile"):
        (tmp_path / name).mkdir()
    for path in [*(media / "audio").iterdir(), *(media / "hostile" / name for name in ("nan_samples.wav",))]:
        (tmp_path / "audio" / path.name).write_bytes(path.read_bytes())
    for name in (
        "bunny_720p_6ch_audio.mp4",
        "dog_leash_720p_silent_track.mp4",
        "nasa_320x180_two_video_streams.mp4",
        "pancake_426x240.mkv",
    ):
        (tmp_path / "audio" / name).write_bytes((media / "video" / name).read_bytes())
    report = pack(str(tmp_path / "audio"), str(tmp_path / "out"), verify=True)
    assert set(report.skipped.counts) == {"the sound holds NaN or infinite values"} and report.num_samples == 13
    module = AudioData(
        urls=str(tmp_path / "out"), durations=[1.0, 5.0], batch_size=1, video=True, fps=12.5, height=32, width=32, max_silence=0.9
    )
    kinds = collections.Counter()
    for batch in module.predict_dataloader():
        assert batch.audio.isfinite().all() and batch.audio.abs().max() <= 1.0 and batch.audio.any()
        kinds[batch.video is not None] += 1
    assert kinds == {True: 3, False: 8}
    assert module.skipped.counts == {"too much silence": 2}


def test_nothing_but_bad_sounds_ends_the_run(tmp_path, media_maker):
    with ShardWriter(tmp_path) as writer:
        for number in range(3):
            writer.write(f"k{number}", {"json": {"duration_s": 2.0}, "wav": b"not a sound"})
    with pytest.raises(SourceError, match="3 x cannot be opened"):
        list(data(tmp_path).train_dataloader())


@pytest.mark.parametrize("form", [{"container": "mp4", "codec": "aac"}, {"container": "matroska", "codec": "libopus"}])
@pytest.mark.parametrize(("late_s", "length_s"), [(0.5, 3.0), (0.0, 2.0), (0.0, 6.0)])
def test_a_click_comes_at_its_time_beside_the_frames(tmp_path, media_maker, form, late_s, length_s):
    """Late tracks, and tracks shorter or longer than the picture of 4 s: the click at 1.3 s of the track stays where it is in the film."""
    frames = media_maker.grey_steps(40, step=5)
    click = media_maker.click(48000, length_s, 1.3)
    film = media_maker.encode_sound(click, 48000, frames=frames, late_s=late_s, **form)
    kind = "mp4" if form["container"] == "mp4" else "mkv"
    with ShardWriter(tmp_path) as writer:
        for number in range(4):
            writer.write(f"k{number}", {"json": {"caption": ""}, kind: film})
    module = data(tmp_path, audio_hz=16000, durations=[2.5], video=True, batch_size=4)
    (batch,) = module.train_dataloader()
    assert len({meta["start_s"] for meta in batch.metadata}) == 4
    for row, meta in enumerate(batch.metadata):
        at = 1.3 + late_s - meta["start_s"]
        energy = batch.audio[row, 0].double().square()
        energy[energy < 0.05 * energy.max()] = 0
        if 0.01 < at < 2.49:
            assert float((energy * torch.arange(40000)).sum() / energy.sum()) / 16000 == pytest.approx(at, abs=1e-3)
        grey = (batch.video[row, :, 0].mean() + 1) * 127.5
        assert abs(round(float(grey - 20) / 5) - meta["start_s"] * 10) <= 0.5 + 1e-3, "as often late as early"
        assert meta["valid_s"] == pytest.approx(min(2.5, late_s + length_s - meta["start_s"]), abs=0.06)


@pytest.mark.parametrize("name", ["audio_pretrain", "audio_finetune"])
def test_presets_are_data_modules_of_the_paper(name, tmp_path, capsys):
    import yaml

    from moviegen_core.cli import main
    from moviegen_core.presets import core_preset_directory

    path = core_preset_directory().parent / "data" / f"{name}.yaml"
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "t2v/debug", "--config", str(path), "--print_config"])
    out, err = capsys.readouterr()
    assert not stop.value.code, err
    told = yaml.safe_load(out)["data"]
    assert told["class_path"].endswith("AudioData")
    assert (told["init_args"]["durations"], told["init_args"]["duration_weights"]) == ([10, 30], [5, 1])
    if name == "audio_finetune":
        assert [source["weight"] for source in told["init_args"]["urls"]] == [10, 1]
