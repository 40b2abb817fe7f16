"""Sounds from shards to batches: spans, durations, weights, kinds, resume, latents."""

import collections
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from moviegen_core.autoencoder import AudioAutoencoder
from moviegen_core.errors import UsageError
from moviegen_data.audio_data import AudioData
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.inspect import inspect
from moviegen_data.latents import LatentShardWriter
from moviegen_data.mixing import Source, batch_counts
from moviegen_data.pack import pack
from moviegen_data.reader import ShardReader
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_bytes, latent_header, read_latent, read_visual, visual_bytes

HZ = 8000


@pytest.fixture
def sound_shards(tmp_path, media_maker):
    """Sounds whose value tells sample and second: sample n is n/100 + second/1000; or films with such a sound, and other parts."""

    def make(name="sounds", *, seconds=(3.0,) * 6, film=False, features=False, records=None, max_samples=4):
        folder = tmp_path / name
        with ShardWriter(folder, max_samples=max_samples) as writer:
            for number, length in enumerate(seconds):
                time = np.arange(round(length * HZ)) / HZ
                wave = (number / 100 + np.floor(time) / 1000)[None]
                record = {"caption": f"{name} {number}", **({} if records is None else records[number])}
                if film:
                    frames = media_maker.grey_steps(round(length * 10), step=5)
                    form = {"container": "matroska", "codec": "pcm_s16le", "frames": frames}
                    parts = {"mkv": media_maker.encode_sound(wave, HZ, **form)}
                else:
                    parts = {"wav": media_maker.encode_sound(wave, HZ)}
                if features:
                    rows = torch.arange(round(length * 10)).float()[:, None].expand(-1, 4)
                    parts["visual.safetensors"] = visual_bytes(rows, 10.0)
                writer.write(f"{name}-{number:03d}", {"json": record, **parts})
        return folder

    return make


def data(urls, **settings):
    urls = urls if isinstance(urls, list) else str(urls)
    return AudioData(urls=urls, **{"durations": [1.0], "audio_hz": HZ, "batch_size": 2, "fps": 10.0, "height": 16, "width": 16, **settings})


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
            assert frames[0] == pytest.approx(meta["start_s"] * 10, abs=1.0)
            number = int(batch.keys[row][-3:])
            seconds = (batch.audio[row, 0] - number / 100) * 1000
            later = round((np.floor(meta["start_s"]) + 1 - meta["start_s"]) * HZ)
            assert seconds[: later - 20].mean() == pytest.approx(np.floor(meta["start_s"]), abs=0.1)
    assert not module.skipped


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


def test_five_batches_to_one(sound_shards):
    """6.2.4: 10 s and 30 s chunks, here 1 s and 3 s, 5 : 1 by batch, from the same samples."""
    module = data(sound_shards(seconds=(3.0,) * 9 + (1.5,) * 3), durations=[1.0, 3.0], duration_weights=[5, 1])
    loader = module.train_dataloader()
    lengths, keys = collections.Counter(), collections.Counter()
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            lengths[batch.audio.shape[2] // HZ] += 1
            keys.update((key, batch.audio.shape[2] // HZ) for key in batch.keys)
    assert lengths[1] == 5 * lengths[3] > 0
    assert {int(key[-3:]) for key, seconds in keys if seconds == 3} <= set(range(9))
    assert {int(key[-3:]) for key, seconds in keys if seconds == 1} == set(range(12))
    with pytest.raises(UsageError, match="no sample without a picture fills 5 s"):
        data(sound_shards("short"), durations=[1.0, 5.0], duration_weights=[5, 1]).train_dataloader()


def test_ten_cinematic_batches_to_one_of_audio_only(sound_shards):
    """6.2.3: the two kinds never share a batch, and the weights count batches."""
    films, sounds = sound_shards("films", film=True, seconds=(2.0,) * 3), sound_shards(seconds=(1.0,) * 8)
    module = data([Source(str(films), 10), Source(str(sounds), 1)], video=True)
    counts = collections.Counter()
    for batch in module.train_dataloader():
        kinds = {key.split("-")[0] for key in batch.keys}
        assert len(kinds) == 1 and (batch.video is not None) == (kinds == {"films"}) and (batch.fps is not None) == (kinds == {"films"})
        counts.update(kinds)
    assert counts == {"films": 10, "sounds": 1}
    both = data([Source(str(films), 10), Source(str(sounds), 1)], video=True, durations=[0.5, 1.0], duration_weights=[5, 1])
    counts = collections.Counter((batch.video is not None, batch.audio.shape[2]) for batch in both.train_dataloader())
    assert counts == {(True, HZ // 2): 50, (True, HZ): 10, (False, HZ // 2): 5, (False, HZ): 1}


def test_counts_of_batches():
    assert batch_counts(12, [5, 1]) == [10, 2] and batch_counts(1, [5, 1]) == [5, 1] and batch_counts(7, [0, 1]) == [0, 7]
    assert batch_counts(66, [50, 10, 5, 1]) == [50, 10, 5, 1]
    many, few = batch_counts(1000, [np.pi, 1.0])
    assert many / few == pytest.approx(np.pi, rel=1e-3) and many + few == pytest.approx(1000, rel=0.1)
    assert batch_counts(10, [1e6, 1.0])[1] == 1, "what weighs something comes"


def test_resume_in_the_middle(sound_shards):
    folder = sound_shards(seconds=(3.0,) * 8)

    def module():
        return data(folder, durations=[1.0, 2.0], duration_weights=[2, 1], batch_size=2)

    loader = module().train_dataloader()
    whole = list(loader)
    loader = module().train_dataloader()
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    resumed = module().train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    rest = list(resumed)
    assert len(rest) == len(whole) - 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert one.keys == other.keys and torch.equal(one.audio, other.audio)


def test_all_ranks_have_equal_batches(sound_shards, monkeypatch):
    from moviegen_core.parallel.place import DataPlace

    folder, shapes, keys = sound_shards(seconds=(3.0,) * 7 + (1.0,) * 4), [], []
    for rank in range(2):
        monkeypatch.setattr("moviegen_data.datamodule.data_place", lambda trainer, rank=rank: DataPlace(rank, 2, True))
        batches = list(data(folder, durations=[1.0, 3.0], duration_weights=[3, 1], batch_size=1).train_dataloader())
        shapes.append([batch.audio.shape for batch in batches])
        keys.append([batch.keys for batch in batches])
    assert shapes[0] == shapes[1] and keys[0] != keys[1]


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
        ({"durations": [1.0, 1e-9]}, "the shortest has no sample"),
        ({"video": True, "fps": None}, "frames of a batch have one rate"),
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


class Averaging(AudioAutoencoder):
    """A latent frame is the mean of its samples, in two channels."""

    def __init__(self):
        super().__init__(latent_channels=2, sample_rate=HZ, hop_length=HZ // 10)

    def encode_raw(self, media, *, sample=False):
        mean = torch.nn.functional.avg_pool1d(media, self.hop_length)
        return torch.cat([mean, -mean], dim=1)


def test_latents_beside_their_features(sound_shards, tmp_path):
    films = sound_shards("films", film=True, features=True, seconds=(3.0, 2.0, 2.0))
    sounds = sound_shards(seconds=(1.0,) * 3)
    writer = LatentShardWriter(output=str(tmp_path / "cache"), dtype="fp32")
    trainer = Trainer(accelerator="cpu", callbacks=[writer], logger=False, enable_progress_bar=False, enable_checkpointing=False)
    module = data([str(films), str(sounds)], visual_features=True, durations=[1.0, 2.0], clip_position="first")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.predict(Averaging(), module, return_predictions=False)
    sample = next(ShardReader(str(tmp_path / "cache"))[n] for n in range(6) if ShardReader(str(tmp_path / "cache"))[n].key == "films-001")
    assert sample.metadata["encoded"] == {"audio_hz": HZ, "samples": 2 * HZ} and sample.metadata["valid_s"] == 2.0
    latent = read_latent(sample["latent.safetensors"])
    assert latent.shape == (2, 20) and latent[0].tolist() == pytest.approx([0.01] * 10 + [0.011] * 10, abs=1e-4)
    assert latent_header(sample["latent.safetensors"])[2]["encoder"] == Averaging().checksum()
    features, fps = read_visual(sample["visual.safetensors"])
    assert fps == 10.0 and features[:, 0].tolist() == list(range(20))
    cached = AudioData(urls=str(tmp_path / "cache"), latents=True, visual_features=True, batch_size=3)
    shapes = {}
    for batch in cached.predict_dataloader():
        assert batch.audio is None and batch.video is None
        shapes[tuple(batch.latents.shape), "visual_features" in batch.extras] = set(batch.keys)
    assert shapes == {
        ((3, 2, 20), True): {"films-000", "films-001", "films-002"},
        ((3, 2, 10), False): {"sounds-000", "sounds-001", "sounds-002"},
    }
    plain = next(iter(ShardData(urls=str(tmp_path / "cache"), latents=True, batch_size=3).train_dataloader()))
    assert plain.latents.ndim == 3


def test_weights_of_cached_latents_count_batches(tmp_path):
    for name, length in (("ten", 4), ("thirty", 12)):
        with ShardWriter(tmp_path / name) as writer:
            for number in range(6):
                writer.write(f"{name}-{number}", {"json": {}, "latent.safetensors": latent_bytes(torch.zeros(2, length))})
    module = AudioData(urls=[Source(str(tmp_path / "ten"), 5), Source(str(tmp_path / "thirty"), 1)], latents=True, batch_size=2)
    assert collections.Counter(batch.latents.shape[2] for batch in module.train_dataloader()) == {4: 5, 12: 1}


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
        assert abs(round(float(grey - 20) / 5) - meta["start_s"] * 10) <= 1.0
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
