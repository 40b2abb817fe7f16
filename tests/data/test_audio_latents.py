"""Cached latents of sounds, with their features and weights."""

import collections
import warnings

import pytest
import torch
from audio_shards import HZ, data
from lightning.pytorch import Trainer

from moviegen_core.autoencoder import AudioAutoencoder
from moviegen_data.audio_data import AudioData
from moviegen_data.datamodule import ShardData
from moviegen_data.latents import LatentShardWriter
from moviegen_data.mixing import Source
from moviegen_data.reader import ShardReader
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_bytes, latent_header, read_latent, read_visual


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


class Lengthening(Averaging):
    """Generates sounds of two seconds, whatever it is given."""

    def predict_step(self, batch, batch_idx):
        made = {"latents": torch.zeros(len(batch), 2, 20), "audio": torch.zeros(len(batch), 1, 2 * HZ), "audio_hz": HZ}
        return {"keys": batch.keys, "captions": batch.captions, "metadata": batch.metadata, **made}


def test_beside_generated_latents_the_length_is_that_of_what_was_generated(sound_shards, tmp_path):
    writer = LatentShardWriter(output=str(tmp_path / "cache"))
    trainer = Trainer(accelerator="cpu", callbacks=[writer], logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.predict(Lengthening(), data(sound_shards(seconds=(1.0,) * 2)), return_predictions=False)
    assert ShardReader(str(tmp_path / "cache"))[0].metadata["encoded"] == {"audio_hz": HZ, "samples": 2 * HZ}


def test_weights_of_cached_latents_count_batches(tmp_path):
    for name, length in (("ten", 4), ("thirty", 12)):
        with ShardWriter(tmp_path / name) as writer:
            for number in range(6):
                writer.write(f"{name}-{number}", {"json": {}, "latent.safetensors": latent_bytes(torch.zeros(2, length))})
    module = AudioData(urls=[Source(str(tmp_path / "ten"), 5), Source(str(tmp_path / "thirty"), 1)], latents=True, batch_size=2)
    assert collections.Counter(batch.latents.shape[2] for batch in module.train_dataloader()) == {4: 5, 12: 1}
