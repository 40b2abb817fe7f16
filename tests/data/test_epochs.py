"""What an epoch is made of, through real loaders: ratios, and every clip as often as it should come, for any ranks and workers."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from moviegen_data.datamodule import ShardData
from moviegen_data.mixing import ImageMix, Source
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_bytes

EPOCHS = 3
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def latents(folder, name, number, frames):
    """Tiny cached latents, so that hundreds of batches take a second."""
    with ShardWriter(folder / name, max_samples=37) as writer:
        for index in range(number):
            packed = latent_bytes(torch.full((1, frames, 1, 1), float(index)))
            writer.write(f"{name}-{index:04d}", {"json": {"caption": "x"}, "latent.safetensors": packed})
    return str(folder / name)


def loaders(make, world_size):
    """The loaders of all ranks."""
    for rank in range(world_size):
        data = make()
        data.trainer = SimpleNamespace(
            strategy=SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": world_size}),
            num_training_batches=float("inf"),
        )
        yield data.train_dataloader()


def epochs(make, world_size):
    """Batches of all ranks, epoch by epoch."""
    made = [[] for _ in range(EPOCHS)]
    for loader in loaders(make, world_size):
        for epoch in range(EPOCHS):
            loader.sampler.set_epoch(epoch)
            made[epoch] += list(loader)
    return made


PLACES = pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (2, 0), (4, 0), (1, 1), (2, 1), (4, 1), (1, 3), (2, 3), (4, 3)])


@PLACES
def test_every_clip_once_an_epoch(tmp_path, world_size, num_workers):
    short, long = latents(tmp_path, "short", 160, 1), latents(tmp_path, "long", 80, 2)
    for batches in epochs(lambda: ShardData(urls=[short, long], latents=True, batch_size=5, num_workers=num_workers), world_size):
        keys = [key for batch in batches for key in batch.keys]
        assert len(keys) == len(set(keys)) == 240
        assert Counter(batch.latents.shape[2] for batch in batches) == {1: 32, 2: 16}, "weighted by what the buckets hold"
        assert all(len(batch) == 5 and len({key[:4] for key in batch.keys}) == 1 for batch in batches)


@PLACES
def test_sources_come_by_their_weights(tmp_path, world_size, num_workers):
    """Three parts to one over 3 epochs within 1 %, and within a source every clip as often as every other, give or take one."""
    large, small = latents(tmp_path, "large", 300, 1), latents(tmp_path, "small", 100, 1)
    sources = [Source(large, 1.0), Source(small, 3.0)]
    made = epochs(lambda: ShardData(urls=sources, latents=True, batch_size=4, num_workers=num_workers), world_size)
    counts = Counter(key for batches in made for batch in batches for key in batch.keys)
    shares = Counter(key[:5] for key in counts.elements())
    assert shares["small"] / shares.total() == pytest.approx(0.75, abs=0.01)
    for name, number in (("large", 300), ("small", 100)):
        times = [counts[f"{name}-{index:04d}"] for index in range(number)]
        assert max(times) - min(times) <= 1 and sum(times) / number == pytest.approx(shares[name] / number)
    assert sum(times) == pytest.approx(0.75 * EPOCHS * 400, rel=0.01), "each small clip 3 times an epoch"


@pytest.mark.parametrize(("by", "images", "videos"), [("sample", 1, 10), ("batch", 1, 3)])
@PLACES
def test_images_come_in_their_ratio(make_shards, world_size, num_workers, by, images, videos):
    clips = make_shards(num_samples=48, max_samples=10, num_frames=1, kind="png")  # the plan does not look at what a video is
    pictures = str(make_shards("pictures", num_samples=9, kind="png"))
    mix = ImageMix(urls=pictures, by=by, images=images, videos=videos, batch_size=2)

    def make():
        return ShardData(
            urls=str(clips), num_frames=1, height=4, width=4, batch_size=2, num_workers=num_workers, images=mix, batches_per_epoch=88
        )

    found = Counter(batch.keys[0][:8] for batches in epochs(make, world_size) for batch in batches)
    assert found["pictures"] / found.total() == pytest.approx(images / (images + videos), abs=0.01)
