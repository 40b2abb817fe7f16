"""The order of batches of sounds: weights of durations and sources, resume, ranks."""

import collections

import numpy as np
import pytest
import torch
from audio_shards import HZ, data

from moviegen_core.errors import UsageError
from moviegen_data.mixing import Source, batch_counts


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
