"""Loaders: workers, ranks, going on, prefetching, bad samples."""

import gc
import json
import logging
import multiprocessing
import os
import threading
import weakref
from types import SimpleNamespace

import pytest
import torch
from loading import data_of, latent_shards

from moviegen_core.batch import MediaBatch
from moviegen_data.buckets import Bucket
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.limits import MediaLimits
from moviegen_data.loaded import LoadedBatch
from moviegen_data.mixing import ImageMix, Source
from moviegen_data.tensors import latent_bytes

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


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


def test_a_state_is_right_before_the_first_batch_and_between_epochs(make_shards):
    folder = make_shards(num_samples=10)
    loader = data_of(folder, batch_size=2).train_dataloader()
    first = loader.state_dict()
    assert (first["epoch"], first["num_batches"], first["whole"]) == (0, 0, False)
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    again = data_of(folder, batch_size=2).train_dataloader()
    again.load_state_dict(state)
    assert again.state_dict() == state, "a checkpoint right after resuming loses nothing"
    list(iterator)
    loader.sampler.set_epoch(1)
    between = loader.state_dict()
    assert (between["epoch"], between["num_batches"], between["whole"]) == (1, 0, False), "the new epoch has given nothing yet"


@pytest.mark.parametrize("change", ["batch_size", "shards", "ranks", "seed", "buckets"])
def test_going_on_in_another_order_is_told(make_shards, caplog, change):
    folder = make_shards(num_samples=12, max_samples=3)
    loader = data_of(folder, batch_size=2).train_dataloader()
    next(iter(loader))
    state, settings = json.loads(json.dumps(loader.state_dict())), {"batch_size": 2}
    same = data_of(folder, batch_size=2, num_workers=1, decode_threads=2, prefetch_bytes=1 << 20).train_dataloader()
    same.load_state_dict(state)
    assert not caplog.records
    if change == "shards":
        (folder / "shard-000003.tar").unlink()
    settings |= {"batch_size": {"batch_size": 3}, "seed": {"seed": 1}}.get(change, {})
    data = data_of(folder, **settings)
    if change == "ranks":
        data.trainer = SimpleNamespace(
            strategy=SimpleNamespace(distributed_sampler_kwargs={"rank": 0, "num_replicas": 2}), num_training_batches=float("inf")
        )
    if change == "buckets":
        data = ShardData(urls=str(folder), buckets=[Bucket(num_frames=4, height=16, width=16, fps=8.0, min_s=0.5)], batch_size=2)
    data.train_dataloader().load_state_dict(state)
    assert "are not those of the checkpoint; epoch 0 goes on at batch 1 of" in caplog.text


def test_every_setting_that_decides_batches_decides_the_identity(make_shards, monkeypatch):
    folder = make_shards(num_samples=6)
    absolute = data_of(folder).predict_dataloader().identity()
    monkeypatch.chdir(folder.parent)
    assert data_of(folder.name).predict_dataloader().identity() == absolute

    def identity(bucket=None, **settings):
        shape = {"num_frames": 4, "height": 16, "width": 16, "fps": 8.0}
        return ShardData(urls=str(folder), buckets=[Bucket(**{**shape, **(bucket or {})})], **settings).predict_dataloader().identity()

    assert identity() == identity(num_workers=3)
    others = [
        {"bucket": {"max_s": 20.0}},
        {"bucket": {"min_s": 0.1}},
        {"limits": MediaLimits(max_frames=100)},
        {"batch_size": 3},
        {"fps_prefix": True},
    ]
    assert len({identity(), *(identity(**settings) for settings in others)}) == 6


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_shard_that_vanishes_makes_bad_samples(make_shards, num_workers):
    folder = make_shards(num_samples=12, max_samples=4)
    data = data_of(folder, batch_size=2, num_workers=num_workers)
    loader = data.train_dataloader()
    (folder / "shard-000001.tar").unlink()
    batches = list(loader)
    assert len(batches) == 6 and len({key for batch in batches for key in batch.keys}) == 8
    assert data.skipped.counts == {"the shard cannot be opened": 4}


def test_prefetching_passes_over_samples_that_cannot_be_looked_at(make_shards):
    folder = make_shards(num_samples=12, max_samples=4)
    data = data_of(folder, batch_size=2, num_workers=1, prefetch_bytes=1 << 20, shuffle=False)
    data._reader(str(folder))
    (folder / "shard-000000.tar").unlink()
    assert data.train_dataloader().prefetch_factor == 32


def test_loaders_made_again_and_again_keep_no_batches(make_shards):
    data = data_of(make_shards(num_samples=4))
    made = []
    for _ in range(5):
        loader = data.train_dataloader()
        list(loader)
        made.append(weakref.ref(loader.dataset))
    del loader
    gc.collect()
    assert not any(reference() for reference in made)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_nothing_is_left_behind(make_shards, num_workers):
    def state():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count(), len(multiprocessing.active_children())

    folder, start, threads = make_shards(num_samples=12), state(), threading.enumerate()
    loader = data_of(folder, batch_size=2, num_workers=num_workers).train_dataloader()
    list(loader)
    before = state()
    for epoch in range(1, 5):
        loader.sampler.set_epoch(epoch)
        list(loader)
    after = state()
    assert after[1:] == before[1:] and after[0] <= before[0] + 2, "epochs add nothing"
    del loader
    gc.collect()
    for thread in set(threading.enumerate()).difference(threads):
        thread.join(30)  # torch tells the threads that feed its queues to end, and does not wait for it
    assert state()[1:] == start[1:]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_any_place_resumes_with_any_number_of_workers(make_shards, num_workers, num_ranks):
    """Two buckets, two sources of different weights, pictures among them, bad samples; cut at every third batch of two epochs."""
    good, bad = make_shards("a", num_samples=40, max_samples=7, kind="png"), make_shards("b", num_samples=9, kind="png", bad=(1, 4))
    pictures = str(make_shards("pictures", num_samples=5, kind="png"))

    def loader(rank, workers):
        data = ShardData(
            urls=[Source(str(good), 3.0), Source(str(bad), 1.0)], batch_size=2, num_workers=workers,
            buckets=[Bucket(num_frames=1, height=8, width=8), Bucket(num_frames=1, height=8, width=16)],
            images=ImageMix(urls=pictures, by="batch", images=1, videos=4),
        )  # fmt: skip
        data.trainer = SimpleNamespace(
            strategy=SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": num_ranks}),
            num_training_batches=float("inf"),
        )
        return data.train_dataloader()

    rank = num_ranks - 1
    whole, reference = [], loader(rank, 0)
    for epoch in range(2):
        reference.sampler.set_epoch(epoch)
        whole += [batch.keys for batch in reference]
    length = len(reference)
    seen, state = [], reference.state_dict() | {"epoch": 0, "num_batches": 0, "whole": False}
    workers = num_workers
    while len(seen) < len(whole):
        resumed = loader(rank, workers)
        resumed.load_state_dict(state)
        for number, batch in enumerate(resumed):
            seen.append(batch.keys)
            if number == 7:
                break
        state = json.loads(json.dumps(resumed.state_dict()))
        workers = 0 if workers else num_workers  # the number may change on the way
    assert seen == whole and len(whole) == 2 * length
