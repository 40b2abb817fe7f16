"""Loaders: workers, ranks, going on, prefetching, bad samples."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from loading import data_of, latent_shards

from moviegen_core.batch import MediaBatch
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.loader import LoadedBatch
from moviegen_data.mixing import ImageMix
from moviegen_data.tensors import latent_bytes


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(make_shards, num_workers):
    folder = make_shards(num_samples=10, max_samples=100)
    alone = list(data_of(folder, batch_size=2).train_dataloader())
    loader = data_of(folder, batch_size=2, num_workers=num_workers).train_dataloader()
    many = list(loader)
    assert [batch.keys for batch in many] == [batch.keys for batch in alone]
    assert all(torch.equal(one.video, other.video) for one, other in zip(alone, many))
    loader.sampler.set_epoch(1)
    assert sorted(key for batch in loader for key in batch.keys) == sorted(key for batch in alone for key in batch.keys)


def test_a_bad_sample_is_replaced_counted_and_named(make_shards, caplog):
    data = data_of(make_shards(num_samples=12, bad=(2, 7)))
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
    data = data_of(make_shards(num_samples=6, bad=(0, 4, 5)), batch_size=2)
    assert [batch.keys for batch in data.predict_dataloader()] == [["shards-0001"], ["shards-0002", "shards-0003"]]
    assert data.skipped.counts == {"cannot be opened": 3}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stage", ["train", "predict"])
def test_a_source_of_bad_samples_ends_with_an_error(make_shards, num_workers, stage):
    data = data_of(make_shards(num_samples=5, max_samples=2, bad=tuple(range(5))), num_workers=num_workers)
    loader = data.train_dataloader() if stage == "train" else data.predict_dataloader()
    with pytest.raises(
        SourceError, match=r"(?s)shard-000000.tar and 2 further shards were given; none of the .*cannot be opened.*data inspect"
    ):
        list(loader)


def test_clips_that_are_too_short_say_so(make_shards):
    with pytest.raises(SourceError, match=r"5 x too short \(e.g. too short: 2 of 4 frames at 8 fps\)"):
        list(data_of(make_shards(num_samples=5, num_frames=2)).train_dataloader())


def test_a_loader_goes_on_in_the_middle(make_shards):
    folder = make_shards(num_samples=10)
    whole = [[batch.keys for batch in loader] for loader in _epochs(folder, 3)]
    loader = data_of(folder, batch_size=2).train_dataloader()
    loader.sampler.set_epoch(1)
    iterator = iter(loader)
    assert [next(iterator).keys for _ in range(2)] == whole[1][:2]
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = data_of(folder, batch_size=2).train_dataloader()
    resumed.load_state_dict(state)
    assert [batch.keys for batch in resumed] == whole[1][2:]
    resumed.load_state_dict(resumed.state_dict())
    assert [batch.keys for batch in resumed] == whole[2]


def _epochs(folder, num_epochs):
    loader = data_of(folder, batch_size=2).train_dataloader()
    for epoch in range(num_epochs):
        loader.sampler.set_epoch(epoch)
        yield loader


def test_ranks_have_equal_steps_and_share_the_samples(make_shards):
    folder = make_shards(num_samples=12, max_samples=100)
    keys = []
    for rank in range(3):
        data = data_of(folder, batch_size=2)
        data.trainer = SimpleNamespace(strategy=SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": 3}))
        loader = data.train_dataloader()
        assert len(loader) == 2
        keys += [key for batch in loader for key in batch.keys]
    assert len(keys) == len(set(keys)) == 12


def test_pinning_reaches_every_tensor(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    batch = MediaBatch(captions=["x"], keys=["k"], latents=torch.zeros(1, 1, 1, 1, 1), extras={"a": torch.zeros(1)})
    pinned = LoadedBatch(batch, []).pin_memory().batch
    assert pinned.latents.sum() == 1 and pinned.extras["a"].sum() == 1 and pinned.video is None


def test_prefetch_is_bounded_in_bytes(make_shards):
    folder = make_shards(num_samples=10)
    largest = 2 * 3 * 4 * 16 * 16  # bytes of pixels

    def prefetch(prefetch_bytes, **settings):
        return data_of(folder, batch_size=2, prefetch_bytes=prefetch_bytes, **settings).train_dataloader().prefetch_factor

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
    latent_shards(tmp_path, [(4, 2, 3, 3), (4, 1, 3, 3)] * 4, dtype=torch.bfloat16)
    kept = len(latent_bytes(torch.zeros(4, 2, 3, 3, dtype=torch.bfloat16), {"encoder": "abc"}))
    data = ShardData(urls=str(tmp_path), latents=True, batch_size=3, num_workers=1, prefetch_bytes=4 * 3 * kept)
    assert data.train_dataloader().prefetch_factor == 4


def test_a_bounded_loader_goes_on_exactly(make_shards):
    folder = make_shards(num_samples=10)
    settings = {"batch_size": 2, "num_workers": 2, "prefetch_bytes": 6 * 2 * 3 * 4 * 16 * 16}
    whole = [batch.keys for batch in data_of(folder, batch_size=2).train_dataloader()]
    loader = data_of(folder, **settings).train_dataloader()
    assert [next(iter(loader)).keys] == whole[:1]
    again = data_of(folder, **settings).train_dataloader()
    again.load_state_dict(loader.state_dict())
    assert [batch.keys for batch in again] == whole[1:]
