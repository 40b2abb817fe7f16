"""From shards to batches, through loaders with and without workers and through a Trainer."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from moviegen_core.batch import MediaBatch
from moviegen_data.buckets import Bucket
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.loader import LoadedBatch
from moviegen_data.mixing import ImageMix, Source
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_bytes, read_latent, read_text, text_bytes


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


def _data(urls, **settings):
    return ShardData(urls=str(urls), **{"num_frames": 4, "height": 16, "width": 16, "fps": 8.0, "batch_size": 4, **settings})


def _trainer(tmp_path, **settings):
    return Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, **settings,
    )  # fmt: skip


def test_a_batch(make_shards):
    batch = next(iter(_data(make_shards(), shuffle=False, fps_prefix=True, clip_position="first").train_dataloader()))
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
    data = _data(tmp_path, camera_prefix=True, fps_prefix=True)
    (batch,) = data.predict_dataloader()
    assert batch.captions == ["FPS-8 zoom in. a cat", "FPS-8 a cat"]
    assert data.skipped.counts == {"unknown camera motion": 1}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(make_shards, num_workers):
    folder = make_shards(num_samples=10, max_samples=100)
    alone = list(_data(folder, batch_size=2).train_dataloader())
    loader = _data(folder, batch_size=2, num_workers=num_workers).train_dataloader()
    many = list(loader)
    assert [batch.keys for batch in many] == [batch.keys for batch in alone]
    assert all(torch.equal(one.video, other.video) for one, other in zip(alone, many))
    loader.sampler.set_epoch(1)
    assert sorted(key for batch in loader for key in batch.keys) == sorted(key for batch in alone for key in batch.keys)


def test_the_clip_is_drawn_anew_each_epoch_and_the_same_again(make_shards):
    folder = make_shards(num_samples=4, num_frames=16)

    def starts(epoch):
        loader = _data(folder).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return {key[-4:]: record["start_s"] for batch in loader for key, record in zip(batch.keys, batch.metadata)}

    first, second = starts(0), starts(1)
    assert first != second and len(set(first.values())) > 1 and all(0 <= start <= 1.5 for start in first.values())
    assert starts(0) == first


def test_a_bad_sample_is_replaced_counted_and_named(make_shards, caplog):
    data = _data(make_shards(num_samples=12, bad=(2, 7)))
    with caplog.at_level(logging.WARNING, "moviegen.data"):
        batches = list(data.train_dataloader())
    assert [len(batch) for batch in batches] == [4, 4, 4]
    keys = {key for batch in batches for key in batch.keys}
    assert len(keys) == 10 and not keys & {"shards-0002", "shards-0007"}
    assert sum("repeated" in record for batch in batches for record in batch.metadata) == 2
    assert data.skipped.counts == {"cannot be opened": 2}
    assert "shards-0002 of" in caplog.text and "shards-0007 of" in caplog.text
    assert "2 x cannot be opened: " in data.skipped.summary()


def test_fixed_plans_leave_bad_samples_out(make_shards):
    data = _data(make_shards(num_samples=6, bad=(0, 4, 5)), batch_size=2)
    assert [batch.keys for batch in data.predict_dataloader()] == [["shards-0001"], ["shards-0002", "shards-0003"]]
    assert data.skipped.counts == {"cannot be opened": 3}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stage", ["train", "predict"])
def test_a_source_of_bad_samples_ends_with_an_error(make_shards, num_workers, stage):
    data = _data(make_shards(num_samples=5, max_samples=2, bad=tuple(range(5))), num_workers=num_workers)
    loader = data.train_dataloader() if stage == "train" else data.predict_dataloader()
    with pytest.raises(
        SourceError, match=r"(?s)shard-000000.tar and 2 further shards were given; none of the .*cannot be opened.*data inspect"
    ):
        list(loader)


def test_clips_that_are_too_short_say_so(make_shards):
    with pytest.raises(SourceError, match=r"5 x too short \(e.g. too short: 2 of 4 frames at 8 fps\)"):
        list(_data(make_shards(num_samples=5, num_frames=2)).train_dataloader())


def test_images_among_videos(make_shards):
    data = _data(
        make_shards(num_samples=24),
        images=ImageMix(urls=str(make_shards("pictures", kind="png")), by="batch", images=1, videos=3, batch_size=6),
    )
    shapes = [tuple(batch.video.shape) for batch in data.train_dataloader()]
    assert shapes == [(4, 3, 4, 16, 16)] * 3 + [(6, 3, 1, 16, 16)] + [(4, 3, 4, 16, 16)] * 3 + [(6, 3, 1, 16, 16)]
    images = [batch for batch in data.train_dataloader() if batch.is_image]
    assert images[0].fps is None and images[0].captions[0].startswith("clip ")


def test_single_frames_of_videos(make_shards):
    batch = next(iter(_data(make_shards(), num_frames=1, fps_prefix=True).train_dataloader()))
    assert batch.is_image and batch.fps is None and batch.captions[0].startswith("clip ")


def test_a_picture_is_no_clip(make_shards):
    with pytest.raises(SourceError, match="a picture, where 4 frames are wanted"):
        list(_data(make_shards(kind="png")).train_dataloader())


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


def _latent_shards(folder, shapes, *, dtype=torch.float16, nan=()):
    generator = torch.Generator().manual_seed(0)
    latents = []
    with ShardWriter(folder, max_samples=3) as writer:
        for number, shape in enumerate(shapes):
            latents.append(torch.randn(shape, generator=generator).to(dtype))
            if number in nan:
                latents[-1][0, 0, 0, 0] = torch.nan
            text = {"t5": (torch.full((number % 3 + 1, 5), float(number)), torch.ones(number % 3 + 1, dtype=torch.bool))}
            record = {"caption": "x", "fps": 30.0, "encoded": {"frames": 8 * shape[1], "height": 24, "width": 24, "fps": 8.0}}
            packed = latent_bytes(latents[-1], {"encoder": "abc"})
            writer.write(f"k{number}", {"json": record, "latent.safetensors": packed, "text.safetensors": text_bytes(text)})
    return latents


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_latents_and_texts(tmp_path, dtype):
    latents = _latent_shards(tmp_path, [(4, 2, 3, 3)] * 6, dtype=dtype)
    data = ShardData(urls=str(tmp_path), latents=True, text=True, fps_prefix=True, batch_size=3, shuffle=False)
    batch = next(iter(data.train_dataloader()))
    assert batch.video is None and batch.latents.dtype == dtype
    assert torch.equal(batch.latents, torch.stack(latents[:3]))
    assert batch.captions[0] == "FPS-8 x" and batch.fps.tolist() == [8.0] * 3
    assert batch.metadata[0]["latent"] == {"encoder": "abc"}
    assert batch.text["t5"].tokens.shape == (3, 3, 5) and batch.text["t5"].mask.sum(1).tolist() == [1, 2, 3]
    assert batch.text["t5"].tokens[1].tolist() == [[1.0] * 5] * 2 + [[0.0] * 5]


def test_latents_of_several_shapes_make_batches_of_one(tmp_path):
    _latent_shards(tmp_path, [(4, 2, 3, 3), (4, 1, 3, 3)] * 4)
    shapes = [tuple(batch.latents.shape) for batch in ShardData(urls=str(tmp_path), latents=True, batch_size=2).train_dataloader()]
    assert sorted(shapes) == [(2, 4, 1, 3, 3)] * 2 + [(2, 4, 2, 3, 3)] * 2


def test_bad_latents(tmp_path):
    _latent_shards(tmp_path, [(4, 2, 3, 3)] * 4, nan=(1,))
    data = ShardData(urls=str(tmp_path), latents=True, batch_size=4)
    (batch,) = data.train_dataloader()
    assert batch.latents.isfinite().all() and data.skipped.counts == {"the latent holds NaN or infinite values": 1}
    with pytest.raises(SourceError, match="latent of a clip of another size: height 24, not 64"):
        list(ShardData(urls=str(tmp_path), latents=True, height=64).train_dataloader())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_infinite_value_passes(dtype, value):
    latent = torch.full((2, 1, 3, 3), torch.finfo(dtype).max, dtype=dtype)
    latent[0] = torch.finfo(dtype).min
    assert torch.equal(read_latent(latent_bytes(latent)), latent)
    latent[1, 0, 2, 1] = value
    with pytest.raises(Exception, match="NaN or infinite"):
        read_latent(latent_bytes(latent))


def test_broken_tensors():
    whole = latent_bytes(torch.zeros(2, 1, 2, 2))
    for data in (b"", whole[:20], whole[:-4], b"\xff" * 64, latent_bytes(torch.zeros(1, 1, 1, 1))[:40]):
        with pytest.raises(Exception, match="the latent cannot be read"):
            read_latent(data)
    with pytest.raises(Exception, match="the text embeddings cannot be read"):
        read_text(b"\xff" * 64)
    with pytest.raises(ValueError, match="pass one sample of the batch"):
        latent_bytes(torch.zeros(1, 2, 1, 2, 2))


def test_a_trainer_sees_every_sample_once_and_leaves_a_summary(make_shards, tmp_path, caplog):
    data = _data(make_shards(num_samples=8, bad=(3,)), val_urls=str(make_shards("val", num_samples=3)), batch_size=2)
    model = Watcher()
    with caplog.at_level(logging.WARNING, "moviegen.data"):
        _trainer(tmp_path / "run", num_sanity_val_steps=0).fit(model, datamodule=data)
    first, second = model.seen["fit"][:4], model.seen["fit"][4:]
    assert len({key for keys in first for key in keys}) == 7 and first != second
    assert model.seen["val"] == [["val-0000", "val-0001"], ["val-0002"]] * 2
    report = json.loads((tmp_path / "run/skipped-fit-rank0.json").read_text())
    assert report["by_cause"] == {"cannot be opened": 1} and report["skips"][0]["key"] == "shards-0003"
    assert "1 samples were skipped" in caplog.text
    _trainer(tmp_path / "run").predict(model, datamodule=data, return_predictions=False)
    assert model.seen["predict"] == model.seen["val"][:2]


def test_without_validation_shards_there_is_no_validation(make_shards, tmp_path):
    class Trained(Watcher):
        validation_step = LightningModule.validation_step

    model = Trained()
    _trainer(tmp_path).fit(model, datamodule=_data(make_shards(num_samples=4)))
    assert len(model.seen["fit"]) == 2 and model.seen["val"] == []


def test_latents_of_repeated_samples_are_cached_once(tmp_path):
    from moviegen_data.latents import LatentShardWriter

    writer = LatentShardWriter(output=str(tmp_path))
    writer._writer = ShardWriter(tmp_path)
    batch = MediaBatch(captions=["x"] * 3, keys=["k", "l", "k"], latents=torch.zeros(3, 1, 1, 2, 2), metadata=[{}, {}, {"repeated": True}])
    writer.write_on_batch_end(None, None, batch, None, batch, 0, 0)
    assert writer._writer.num_samples == 2
    writer._writer.close()


def test_a_loader_goes_on_in_the_middle(make_shards):
    folder = make_shards(num_samples=10)
    whole = [[batch.keys for batch in loader] for loader in _epochs(folder, 3)]
    loader = _data(folder, batch_size=2).train_dataloader()
    loader.sampler.set_epoch(1)
    iterator = iter(loader)
    assert [next(iterator).keys for _ in range(2)] == whole[1][:2]
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = _data(folder, batch_size=2).train_dataloader()
    resumed.load_state_dict(state)
    assert [batch.keys for batch in resumed] == whole[1][2:]
    resumed.load_state_dict(resumed.state_dict())
    assert [batch.keys for batch in resumed] == whole[2]


def _epochs(folder, num_epochs):
    loader = _data(folder, batch_size=2).train_dataloader()
    for epoch in range(num_epochs):
        loader.sampler.set_epoch(epoch)
        yield loader


def test_ranks_have_equal_steps_and_share_the_samples(make_shards):
    folder = make_shards(num_samples=12, max_samples=100)
    keys = []
    for rank in range(3):
        data = _data(folder, batch_size=2)
        data.trainer = SimpleNamespace(strategy=SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": 3}))
        loader = data.train_dataloader()
        assert len(loader) == 2
        keys += [key for batch in loader for key in batch.keys]
    assert len(keys) == len(set(keys)) == 12


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
        _data("nowhere", **settings)


def test_epochs_of_a_given_length(make_shards):
    loader = _data(make_shards(num_samples=12), batches_per_epoch=7).train_dataloader()
    keys = [key for batch in loader for key in batch.keys]
    assert len(loader) == 7 and len(keys) == 28 and np.unique(keys, return_counts=True)[1].min() == 2


def test_pinning_reaches_every_tensor(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    batch = MediaBatch(captions=["x"], keys=["k"], latents=torch.zeros(1, 1, 1, 1, 1), extras={"a": torch.zeros(1)})
    pinned = LoadedBatch(batch, []).pin_memory().batch
    assert pinned.latents.sum() == 1 and pinned.extras["a"].sum() == 1 and pinned.video is None


def test_prefetch_is_bounded_in_bytes(make_shards):
    folder = make_shards(num_samples=10)
    largest = 2 * 3 * 4 * 16 * 16  # bytes of pixels

    def prefetch(prefetch_bytes, **settings):
        return _data(folder, batch_size=2, prefetch_bytes=prefetch_bytes, **settings).train_dataloader().prefetch_factor

    assert prefetch(None, num_workers=2) == 2
    assert prefetch(2 * largest, num_workers=2) == prefetch(4 * largest - 1, num_workers=2) == 1
    assert prefetch(10 * largest, num_workers=2) == 5 and prefetch(largest, num_workers=0) is None
    with pytest.raises(
        ValueError, match=rf"prefetch_bytes={2 * largest - 1} was given; 2 workers .* need {2 * largest}; give as many, fewer workers"
    ):
        prefetch(2 * largest - 1, num_workers=2)
    images = ImageMix(urls=str(make_shards("pictures", kind="png")), batch_size=100)
    assert prefetch(100 * 3 * 16 * 16, num_workers=1, images=images) == 1


def test_prefetch_counts_latents_as_they_are_kept(tmp_path):
    _latent_shards(tmp_path, [(4, 2, 3, 3), (4, 1, 3, 3)] * 4, dtype=torch.bfloat16)
    kept = len(latent_bytes(torch.zeros(4, 2, 3, 3, dtype=torch.bfloat16), {"encoder": "abc"}))
    data = ShardData(urls=str(tmp_path), latents=True, batch_size=3, num_workers=1, prefetch_bytes=4 * 3 * kept)
    assert data.train_dataloader().prefetch_factor == 4


def test_a_bounded_loader_goes_on_exactly(make_shards):
    folder = make_shards(num_samples=10)
    settings = {"batch_size": 2, "num_workers": 2, "prefetch_bytes": 6 * 2 * 3 * 4 * 16 * 16}
    whole = [batch.keys for batch in _data(folder, batch_size=2).train_dataloader()]
    loader = _data(folder, **settings).train_dataloader()
    assert [next(iter(loader)).keys] == whole[:1]
    again = _data(folder, **settings).train_dataloader()
    again.load_state_dict(loader.state_dict())
    assert [batch.keys for batch in again] == whole[1:]


def test_threads_of_the_codec_change_nothing(make_shards):
    folder = make_shards(num_samples=4)
    one, two = (list(_data(folder, decode_threads=number).train_dataloader()) for number in (1, 2))
    assert all(torch.equal(a.video, b.video) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bytes_are_scaled_after_the_way_to_the_device(make_shards, tmp_path, num_workers):
    folder = make_shards(num_samples=8)
    plain = list(_data(folder, num_workers=num_workers).train_dataloader())
    data = _data(folder, num_workers=num_workers, scale_on_device=True)
    raw = list(data.train_dataloader())
    assert all(batch.video.dtype == torch.uint8 for batch in raw)
    scaled = [data.on_after_batch_transfer(batch, 0) for batch in raw]
    assert all(torch.equal(one.video, other.video) for one, other in zip(plain, scaled, strict=True))
    model = Watcher()  # asserts that it sees floats
    data = _data(folder, num_workers=num_workers, scale_on_device=True, val_urls=str(folder))
    _trainer(tmp_path, num_sanity_val_steps=0).fit(model, datamodule=data)
    assert len(model.seen["fit"]) == 4
    latents = MediaBatch(captions=["x"], keys=["k"], latents=torch.zeros(1, 1, 1, 1, 1))
    assert data.on_after_batch_transfer(latents, 0) is latents


@pytest.mark.parametrize("num_workers", [0, 1])
def test_latents_around_bad_ones_keep_their_values(tmp_path, num_workers):
    latents = _latent_shards(tmp_path, [(4, 2, 3, 3)] * 8, nan=(0, 2, 7))
    data = ShardData(urls=str(tmp_path), latents=True, batch_size=4, num_workers=num_workers)
    loaders = (data.predict_dataloader(), data.train_dataloader())
    for batch in (batch for loader in loaders for batch in loader):
        for key, latent in zip(batch.keys, batch.latents, strict=True):
            assert torch.equal(latent, latents[int(key[1:])])
    assert data.skipped.counts == {"the latent holds NaN or infinite values": 3}


def test_a_batch_that_is_kept_is_not_written_over(tmp_path):
    latents = _latent_shards(tmp_path, [(4, 2, 3, 3)] * 12)
    kept = list(ShardData(urls=str(tmp_path), latents=True, batch_size=2, shuffle=False).train_dataloader())
    assert torch.equal(torch.cat([batch.latents for batch in kept]), torch.stack(latents))


def test_latents_of_two_precisions_and_long_headers(tmp_path):
    with ShardWriter(tmp_path) as writer:
        for number, (dtype, text) in enumerate([(torch.float16, "x"), (torch.float32, "x"), (torch.float32, "y" * 6000)]):
            latent = torch.full((2, 1, 2, 2), float(number), dtype=dtype)
            writer.write(f"k{number}", {"json": {}, "latent.safetensors": latent_bytes(latent, {"encoder": text})})
    (batch,) = ShardData(urls=str(tmp_path), latents=True, batch_size=3, shuffle=False).train_dataloader()
    assert batch.latents.flatten(1).float().mean(1).tolist() == [0.0, 1.0, 2.0]
    assert [len(record["latent"]["encoder"]) for record in batch.metadata] == [1, 1, 6000]
