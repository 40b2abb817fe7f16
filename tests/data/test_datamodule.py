"""From shards to batches, through loaders with and without workers and through a Trainer."""

import json
import logging

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from loading import data_of

from moviegen_core.batch import MediaBatch
from moviegen_data.buckets import Bucket
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.mixing import ImageMix, Source
from moviegen_data.shards import ShardWriter


class Watcher(LightningModule):
    """Notes the keys it is shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {"fit": [], "val": [], "predict": []}

    def training_step(self, batch, batch_idx):
        assert isinstance(batch, MediaBatch) and batch.video.dtype == torch.float32
        self.seen["fit"].append(batch.keys)
        return self.weight.sum() + 0 * batch.video.mean()

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch.keys)

    def predict_step(self, batch, batch_idx):
        self.seen["predict"].append(batch.keys)
        return batch.keys

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _trainer(tmp_path, **settings):
    return Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, **settings,
    )  # fmt: skip


def test_a_batch(make_shards):
    batch = next(iter(data_of(make_shards(), shuffle=False, fps_prefix=True, clip_position="first").train_dataloader()))
    assert batch.video.shape == (4, 3, 4, 16, 16) and batch.video.dtype == torch.float32
    assert batch.captions == [f"FPS-8 clip {number}" for number in range(4)]
    assert batch.keys == [f"shards-{number:04d}" for number in range(4)]
    assert batch.fps.tolist() == [8.0] * 4 and batch.fps.dtype == torch.float32
    grey = (batch.video[0].mean((0, 2, 3)) + 1) * 127.5
    assert grey.tolist() == pytest.approx([20, 30, 40, 50], abs=2)
    assert batch.metadata[1]["sampled_fps"] == 8.0 and batch.metadata[1]["start_s"] == 0.0


def test_camera_prefix(tmp_path, media_maker):
    with ShardWriter(tmp_path) as writer:
        for number, motion in enumerate(("zoom_in", None, "sideways")):
            record = {"caption": "a cat", "camera_motion": motion}
            writer.write(f"k{number}", {"json": record, "mp4": media_maker.encode_clip(media_maker.grey_steps(4))})
    data = data_of(tmp_path, camera_prefix=True, fps_prefix=True)
    (batch,) = data.predict_dataloader()
    assert batch.captions == ["FPS-8 zoom in. a cat", "FPS-8 a cat"]
    assert data.skipped.counts == {"unknown camera motion": 1}


def test_the_clip_is_drawn_anew_each_epoch_and_the_same_again(make_shards):
    folder = make_shards(num_samples=4, num_frames=16)

    def starts(epoch):
        loader = data_of(folder).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return {key[-4:]: record["start_s"] for batch in loader for key, record in zip(batch.keys, batch.metadata)}

    first, second = starts(0), starts(1)
    assert first != second and len(set(first.values())) > 1 and all(0 <= start <= 1.5 for start in first.values())
    assert starts(0) == first


def test_images_among_videos(make_shards):
    data = data_of(
        make_shards(num_samples=24),
        images=ImageMix(urls=str(make_shards("pictures", kind="png")), by="batch", images=1, videos=3, batch_size=6),
    )
    shapes = [tuple(batch.video.shape) for batch in data.train_dataloader()]
    assert shapes == [(4, 3, 4, 16, 16)] * 3 + [(6, 3, 1, 16, 16)] + [(4, 3, 4, 16, 16)] * 3 + [(6, 3, 1, 16, 16)]
    images = [batch for batch in data.train_dataloader() if batch.is_image]
    assert images[0].fps is None and images[0].captions[0].startswith("clip ")


def test_single_frames_of_videos(make_shards):
    batch = next(iter(data_of(make_shards(), num_frames=1, fps_prefix=True).train_dataloader()))
    assert batch.is_image and batch.fps is None and batch.captions[0].startswith("clip ")


def test_a_picture_is_no_clip(make_shards):
    with pytest.raises(SourceError, match="a picture, where 4 frames are wanted"):
        list(data_of(make_shards(kind="png")).train_dataloader())


def test_weighted_sources(make_shards):
    sources = [Source(str(make_shards("a", num_samples=20)), 1.0), Source(str(make_shards("b", num_samples=4)), 3.0)]
    data = ShardData(urls=sources, num_frames=1, height=8, width=8, batch_size=4)
    keys = [key[0] for batch in data.train_dataloader() for key in batch.keys]
    assert (keys.count("a"), keys.count("b")) == (6, 18)
    with pytest.raises(ValueError, match="1 of 2 have weights"):
        ShardData(urls=[sources[0], "x"]).train_dataloader()


def test_buckets(tmp_path, media_maker):
    with ShardWriter(tmp_path) as writer:
        for number in range(8):
            height, width, frames = [(32, 32, 4), (32, 64, 4), (32, 32, 12), (64, 32, 2)][number % 4]
            data = media_maker.encode_clip(media_maker.grey_steps(frames, height=height, width=width))
            record = {"caption": "x", "duration_s": frames / 8, "height": height, "width": width} if number < 4 else {"caption": "x"}
            writer.write(f"{height}x{width}x{frames}-{number}", {"json": record, "mp4": data})
    buckets = [
        Bucket(num_frames=4, height=16, width=16, fps=8, max_s=1.0),
        Bucket(num_frames=4, height=16, width=32, fps=8, max_s=1.0),
        Bucket(num_frames=8, height=16, width=16, fps=8, batch_size=1),
    ]
    data = ShardData(urls=str(tmp_path), buckets=buckets, batch_size=2)
    batches = list(data.train_dataloader())
    assert sorted((tuple(batch.video.shape[2:]), len(batch)) for batch in batches) == [
        ((4, 16, 16), 2), ((4, 16, 32), 2), ((8, 16, 16), 1), ((8, 16, 16), 1)
    ]  # fmt: skip
    for batch in batches:
        wanted = {(4, 16, 16): "32x32x4", (4, 16, 32): "32x64x4", (8, 16, 16): "32x32x12"}[tuple(batch.video.shape[2:])]
        assert all(key.startswith(wanted) for key in batch.keys)
    assert data.skipped.counts == {"no bucket takes it": 2}


def test_a_trainer_sees_every_sample_once_and_leaves_a_summary(make_shards, tmp_path, caplog):
    data = data_of(make_shards(num_samples=8, bad=(3,)), val_urls=str(make_shards("val", num_samples=3)), batch_size=2)
    model = Watcher()
    with caplog.at_level(logging.WARNING, "moviegen.data"):
        _trainer(tmp_path / "run", num_sanity_val_steps=0).fit(model, datamodule=data)
    first, second = model.seen["fit"][:4], model.seen["fit"][4:]
    assert len({key for keys in first for key in keys}) == 7 and first != second
    assert model.seen["val"] == [["val-0000", "val-0001"], ["val-0002"]] * 2
    report = json.loads((tmp_path / "run/skipped-fit-rank0.json").read_text())
    assert report["by_cause"] == {"cannot be opened": 1} and report["skips"][0]["key"] == "shards-0003"
    assert "1 sample was skipped" in caplog.text
    _trainer(tmp_path / "run").predict(model, datamodule=data, return_predictions=False)
    assert model.seen["predict"] == model.seen["val"][:2]


def test_without_validation_shards_there_is_no_validation(make_shards, tmp_path):
    class Trained(Watcher):
        validation_step = LightningModule.validation_step

    model = Trained()
    _trainer(tmp_path).fit(model, datamodule=data_of(make_shards(num_samples=4)))
    assert len(model.seen["fit"]) == 2 and model.seen["val"] == []


def test_a_subclass_adds_tensors_of_its_own(make_shards):
    from moviegen_data.decoding import SampleDecoder

    class WithSize(SampleDecoder):
        def extras(self, sample, metadata):
            return {"size": torch.tensor([float(metadata["height"]), 1.0])}

    class SizedData(ShardData):
        def decoder(self, *, clip_position):
            return WithSize(clip_position=clip_position, **self.decoding)

    batch = next(iter(SizedData(urls=str(make_shards()), num_frames=2, height=8, width=8).train_dataloader()))
    assert batch.extras["size"].shape == (4, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 was given; it is at least 1"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"batches_per_epoch": -3}, "batches_per_epoch=-3"),
        ({"buckets": [Bucket(num_frames=1, height=8, width=8)]}, "buckets and num_frames, height, width were given"),
        ({"num_frames": 0}, "sizes are at least 1"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        data_of("nowhere", **settings)


def test_epochs_of_a_given_length(make_shards):
    loader = data_of(make_shards(num_samples=12), batches_per_epoch=7).train_dataloader()
    keys = [key for batch in loader for key in batch.keys]
    assert len(loader) == 7 and len(keys) == 28 and np.unique(keys, return_counts=True)[1].min() == 2


def test_threads_of_the_codec_change_nothing(make_shards):
    folder = make_shards(num_samples=4)
    one, two = (list(data_of(folder, decode_threads=number).train_dataloader()) for number in (1, 2))
    assert all(torch.equal(a.video, b.video) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bytes_are_scaled_after_the_way_to_the_device(make_shards, tmp_path, num_workers):
    folder = make_shards(num_samples=8)
    plain = list(data_of(folder, num_workers=num_workers).train_dataloader())
    data = data_of(folder, num_workers=num_workers, scale_on_device=True)
    raw = list(data.train_dataloader())
    assert all(batch.video.dtype == torch.uint8 for batch in raw)
    scaled = [data.on_after_batch_transfer(batch, 0) for batch in raw]
    assert all(torch.equal(one.video, other.video) for one, other in zip(plain, scaled, strict=True))
    model = Watcher()  # asserts that it sees floats
    data = data_of(folder, num_workers=num_workers, scale_on_device=True, val_urls=str(folder))
    _trainer(tmp_path, num_sanity_val_steps=0).fit(model, datamodule=data)
    assert len(model.seen["fit"]) == 4
    latents = MediaBatch(captions=["x"], keys=["k"], latents=torch.zeros(1, 1, 1, 1, 1))
    assert data.on_after_batch_transfer(latents, 0) is latents
