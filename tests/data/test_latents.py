"""The latent cache: written by a prediction, read back by the data module's own reader."""

import json
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.batch import MediaBatch
from moviegen_data.latents import LatentShardWriter
from moviegen_data.reader import ShardReader
from moviegen_data.tensors import latent_header, read_latent


class Pooling(Autoencoder):
    """Averages cells; small and without randomness."""

    def __init__(self, *, fails_at=None):
        super().__init__(latent_channels=3, temporal_factor=2, spatial_factor=4)
        self.gain = torch.nn.Parameter(torch.tensor(1.0))
        self.fails_at = fails_at
        self.num_calls = 0

    def encode_raw(self, video, *, sample=False):
        return self.gain * torch.nn.functional.avg_pool3d(video, (2, 4, 4))

    def predict_step(self, batch, batch_idx):
        self.num_calls += 1
        if batch_idx == self.fails_at:
            raise RuntimeError("power cut")
        return {"keys": batch.keys, "captions": batch.captions, "latents": self.encode(batch.video), "metadata": batch.metadata}


def clip(index):
    video = torch.rand(3, 4, 8, 12, generator=torch.Generator().manual_seed(index)) * 2 - 1
    return MediaBatch(
        captions=[f"FPS-8 caption {index}"],
        keys=[f"folder/key{index}"],
        video=video[None],
        fps=torch.tensor([8.0]),
        metadata=[{"schema": 1, "caption": f"caption {index}", "source": "toy"}],
    )


def predict(writer, *, model=None, num=5):
    model = model or Pooling()
    trainer = Trainer(accelerator="cpu", callbacks=[writer], logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.predict(model, DataLoader([clip(i) for i in range(num)], batch_size=None), return_predictions=False)
    return model


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 0.0), ("bf16", 2**-8)])
def test_latents_come_back_with_their_captions_and_origin(tmp_path, dtype, tolerance):
    model = Pooling()
    model.set_latent_statistics(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7]))
    predict(LatentShardWriter(output=str(tmp_path), dtype=dtype, max_samples=2), model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"latents-{number:06d}.tar" for number in range(3)),
        "latents.index.json",
    ]
    reader = ShardReader(str(tmp_path))
    assert len(reader) == 5
    for index in range(5):
        sample = reader[index]
        assert sample.key == f"folder/key{index}"
        told = sample.metadata
        assert told["caption"] == f"caption {index}", "without the prefix that reading adds again"
        assert told["source"] == "toy"
        assert told["encoded"] == {"frames": 4, "height": 8, "width": 12, "fps": 8.0}
        data = sample["latent.safetensors"]
        expected = model.encode(clip(index).video)[0].detach()
        torch.testing.assert_close(read_latent(data).float(), expected, rtol=tolerance, atol=0)
        origin = latent_header(data)[2]
        assert origin["encoder"] == model.checksum()
        assert json.loads(origin["latent_std"]) == pytest.approx([0.5, 0.6, 0.7])


def test_an_interrupted_run_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        predict(LatentShardWriter(output=str(tmp_path), max_samples=1), model=Pooling(fails_at=3))
    assert list(tmp_path.iterdir()) == []
    predict(LatentShardWriter(output=str(tmp_path)))
    assert len(ShardReader(str(tmp_path))) == 5


def test_an_earlier_cache_is_refused_before_encoding(tmp_path):
    predict(LatentShardWriter(output=str(tmp_path)))
    model = Pooling()
    with pytest.raises(FileExistsError, match=r"already holds 1 named latents"):
        predict(LatentShardWriter(output=str(tmp_path)), model=model)
    assert model.num_calls == 0
    predict(LatentShardWriter(output=str(tmp_path), overwrite=True), num=2)
    assert len(ShardReader(str(tmp_path))) == 2


def test_the_checksum_tells_weights_and_statistics_apart():
    one, same, other = Pooling(), Pooling(), Pooling()
    assert one.checksum() == same.checksum()
    with torch.no_grad():
        other.gain += 1e-6
    same.set_latent_statistics(torch.zeros(3), torch.full((3,), 2.0))
    assert len({model.checksum() for model in (one, same, other)}) == 3


def test_models_without_an_autoencoder_or_latents_are_refused(tmp_path):
    class Plain(LightningModule):
        def predict_step(self, batch, batch_idx):
            return {}

    class Mute(Pooling):
        def predict_step(self, batch, batch_idx):
            return {"keys": batch.keys, "captions": batch.captions}

    with pytest.raises(ValueError, match=r"LatentShardWriter was given with Plain.*`autoencoder`"):
        predict(LatentShardWriter(output=str(tmp_path)), model=Plain())
    with pytest.raises(ValueError, match=r"no `latents` for 'folder/key0'"):
        predict(LatentShardWriter(output=str(tmp_path)), model=Mute())
    assert not list(tmp_path.iterdir())


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype='int8'.*bf16, fp16, fp32"):
        LatentShardWriter(output=str(tmp_path), dtype="int8")
