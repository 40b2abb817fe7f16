"""Which samples come when, on which rank: exact, even, and the same whatever was read before."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from moviegen_data.buckets import Bucket, aspect_sizes, assign, paper_buckets
from moviegen_data.mixing import ImageMix, apportion, apportion_round
from moviegen_data.order import SampleOrder
from moviegen_data.plan import BatchStream, BucketPart, PlanSampler

BUCKET = Bucket(num_frames=4, height=8, width=8)


def _sampler(counts, *, batch_size=2, rank=0, world_size=1, carry=True, seed=0, **settings):
    parts = [[BucketPart(0, SampleOrder(counts, seed=(seed,), shuffle=carry), 1.0)]]
    stream = BatchStream([BUCKET], parts, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, carry=carry)
    return PlanSampler(stream, **settings)


def _samples(sampler, epoch):
    sampler.set_epoch(epoch)
    return [[number for _, number in plan.samples] for plan in sampler]


@pytest.mark.parametrize("counts", [[24], [1] * 24, [5, 0, 7, 12], [23, 1]])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_sample_once_per_epoch_over_the_ranks(counts, world_size):
    samplers = [_sampler(counts, batch_size=3, rank=rank, world_size=world_size) for rank in range(world_size)]
    for epoch in (0, 1, 5):
        seen = [sample for sampler in samplers for batch in _samples(sampler, epoch) for sample in batch]
        assert sorted(seen) == list(range(24))


@pytest.mark.parametrize(("total", "batch_size", "world_size"), [(25, 2, 4), (7, 3, 2), (10, 4, 3), (101, 5, 4)])
def test_a_remainder_opens_the_next_epoch(total, batch_size, world_size):
    samplers = [_sampler([total], batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(sampler) for sampler in samplers}) == 1
    per_epoch = len(samplers[0]) * batch_size * world_size
    passes = [_samples(sampler, epoch) for epoch in range(total) for sampler in samplers]
    counts = Counter(sample for batches in passes for batch in batches for sample in batch)
    # `total` epochs are `per_epoch` whole passes.
    assert counts == dict.fromkeys(range(total), per_epoch)
    if per_epoch <= total:
        first = [sample for sampler in samplers for batch in _samples(sampler, 0) for sample in batch]
        assert len(set(first)) == len(first) > total - batch_size * world_size


def test_fewer_samples_than_a_step_needs():
    samplers = [_sampler([3], batch_size=4, rank=rank, world_size=2) for rank in range(2)]
    seen = Counter(sample for sampler in samplers for batch in _samples(sampler, 0) for sample in batch)
    assert sum(seen.values()) == 8 and set(seen) == {0, 1, 2} and max(seen.values()) == 3


@pytest.mark.parametrize(("total", "world_size"), [(10, 1), (10, 3), (2, 4), (12, 4)])
def test_fixed_plans_show_everything(total, world_size):
    samplers = [_sampler([total], batch_size=2, rank=rank, world_size=world_size, carry=False) for rank in range(world_size)]
    plans = [list(sampler) for sampler in samplers]
    assert len({len(some) for some in plans}) == 1
    assert len({tuple(len(plan.samples) for plan in some) for some in plans}) == 1
    marked = [(sample, again) for some in plans for plan in some for (_, sample), again in zip(plan.samples, plan.repeated)]
    assert [sample for sample, again in marked if not again] == list(range(total))
    assert _samples(samplers[0], 0) == _samples(samplers[0], 3)


def test_order_is_a_pure_function():
    whole = [_samples(_sampler([9, 9, 9], batch_size=2, rank=1, world_size=2), epoch) for epoch in range(3)]
    again = _sampler([9, 9, 9], batch_size=2, rank=1, world_size=2)
    assert _samples(again, 2) == whole[2] and _samples(again, 0) == whole[0]
    assert whole[0] != whole[1]
    assert _samples(_sampler([9, 9, 9], batch_size=2, rank=1, world_size=2, seed=1), 0) != whole[0]
    again.set_epoch(1)
    again.first_batch = 3
    assert [[number for _, number in plan.samples] for plan in again] == whole[1][3:]


def test_positions_do_not_depend_on_what_was_taken_before():
    order = SampleOrder([7] * 9, seed=(3,), window_shards=2)
    whole = SampleOrder([7] * 9, seed=(3,), window_shards=2).take(0, 200)
    assert sorted(whole[:63]) == list(range(63)) and sorted(whole[63:126]) == list(range(63))
    for start, stop in ((150, 180), (0, 5), (60, 70), (62, 63)):
        assert order.take(start, stop).tolist() == whole[start:stop].tolist()


def test_a_window_opens_few_shards():
    order = SampleOrder([10] * 50, seed=(0,), window_shards=4)
    assert len({number // 10 for number in order.take(0, 40)}) == 4


def test_chosen_samples_only():
    chosen = np.array([1, 4, 5, 11, 19])
    order = SampleOrder([6, 6, 8], chosen=chosen, seed=(0,))
    assert order.num_samples == 5 and sorted(order.take(5, 10)) == chosen.tolist()


def _mixed(**mix):
    video = BatchStream([BUCKET], [[BucketPart(0, SampleOrder([60]), 1.0)]], batch_size=4)
    mix = ImageMix(urls="", **mix)
    size = mix.batch_size or 4
    images = BatchStream([Bucket(num_frames=1, height=8, width=8)], [[BucketPart(0, SampleOrder([8]), 1.0)]], batch_size=size, stream=1)
    return PlanSampler(video, images, mix.batch_share(size, 4.0))


def test_one_batch_of_images_to_three_of_videos():
    sampler = _mixed(by="batch", images=1, videos=3)
    kinds = [plan.stream for epoch in range(4) for plan in (sampler.set_epoch(epoch), sampler)[1]]
    for start in range(0, len(kinds) - 3, 4):
        assert sum(kinds[start : start + 4]) == 1
    assert len(sampler) == 20


def test_one_image_to_ten_videos_by_sample():
    sampler = _mixed(by="sample", images=1, videos=10, batch_size=2)
    plans = [plan for epoch in range(11) for plan in (sampler.set_epoch(epoch), list(sampler))[1]]
    samples = Counter()
    for plan in plans:
        samples[plan.stream] += len(plan.samples)
    assert samples[0] / samples[1] == pytest.approx(10, rel=0.05)
    assert ImageMix(urls="", by="sample").batch_share(2, 4.0) == Fraction(1, 6)


def test_weighted_sources_are_drawn_by_weight_on_every_rank():
    orders = [SampleOrder([400], seed=(0,)), SampleOrder([20], seed=(1,))]
    small = Counter()
    for rank in range(2):
        parts = [[BucketPart(0, orders[0], 1.0), BucketPart(1, orders[1], 3.0)]]
        stream = BatchStream([BUCKET], parts, batch_size=10, rank=rank, world_size=2)
        drawn = Counter(source for number in range(stream.round_length) for source, _ in stream.batch(number).samples)
        assert drawn[1] == pytest.approx(3 * drawn[0], rel=0.02)
        small.update(sample for number in range(stream.round_length) for source, sample in stream.batch(number).samples if source == 1)
    assert max(small.values()) - min(small.values()) <= 1


def test_buckets_give_one_shape_and_equal_steps_on_every_rank():
    buckets = [Bucket(num_frames=4, height=8, width=8), Bucket(num_frames=4, height=8, width=16, batch_size=1)]
    members = [np.arange(0, 30), np.arange(30, 40)]
    sequences, seen = [], Counter()
    for rank in range(2):
        parts = [[BucketPart(0, SampleOrder([20, 20], chosen=some, seed=(7,)), 1.0)] for some in members]
        stream = BatchStream(buckets, parts, batch_size=3, rank=rank, world_size=2)
        plans = [stream.batch(number) for number in range(stream.round_length)]
        sequences.append([plan.bucket for plan in plans])
        for plan in plans:
            assert len(plan.samples) == (3, 1)[plan.bucket]
            assert {int(number in members[1]) for _, number in plan.samples} == {plan.bucket}
            seen.update(number for _, number in plan.samples)
    assert sequences[0] == sequences[1] and sequences[0].count(0) == 5 and sequences[0].count(1) == 5
    assert seen == dict.fromkeys(range(40), 1)


def test_apportion_adds_up():
    assert apportion(10, [1, 1, 1]).sum() == 10
    assert apportion(11, [10, 1]).tolist() == [10, 1]
    assert apportion(0, [1, 2]).tolist() == [0, 0]


def test_paper_buckets_follow_table_2():
    buckets = paper_buckets()
    assert len(buckets) == 25
    for duration, frames, fps in ((20.0, 256, 16.0), (14.0, 256, 256 / 14), (11.0, 256, 24.0), (9.0, 192, 192 / 9), (5.0, 128, 128 / 5)):
        bucket = buckets[assign(buckets, height=720, width=1280, duration_s=duration)]
        assert (bucket.num_frames, bucket.rate(duration)) == (frames, pytest.approx(fps))
        assert bucket.width / bucket.height == pytest.approx(16 / 9, rel=0.03)
    assert assign(buckets, height=720, width=1280, duration_s=3.0) is None
    assert buckets[assign(buckets, height=1280, width=720, duration_s=20.0)].height > 768
    assert set(aspect_sizes(768 * 768)) >= {(576, 1024), (1024, 576), (768, 768)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0}, "sizes are at least 1"),
        ({"fps": -1.0}, "rates above 0"),
        ({"max_fps": 24.0}, "give fps <= max_fps"),
        ({"min_s": 5.0, "max_s": 4.0}, "no duration lies in its range"),
    ],
)
def test_impossible_buckets(settings, message):
    with pytest.raises(ValueError, match=message):
        Bucket(**{"num_frames": 4, "height": 8, "width": 8, **settings})


def test_memory_is_used_again_only_when_nobody_looks():
    from moviegen_data.memory import RecycledMemory

    memory = RecycledMemory()
    first = memory.empty(2, 3, 4)
    where = first.data_ptr()
    part = first[0].transpose(0, 1)
    assert memory.empty(2, 3, 4).data_ptr() != where
    first.fill_(1.0)
    del first
    for _ in range(8):
        memory.empty(24).fill_(2.0)
    assert part.eq(1.0).all()
    del part
    assert where in {tensor.data_ptr() for tensor in [memory.empty(2, 3, 4) for _ in range(3)]}
    assert memory.empty(2, 3, 5).shape == (2, 3, 5)


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_light_source_comes_in_small_buckets_too(world_size):
    """Five places an epoch on each rank and weights of 10 to 1: the light source's share of a round is less than one."""
    parts = [BucketPart(0, SampleOrder([40], seed=(1,)), 10.0), BucketPart(1, SampleOrder([6], seed=(2,)), 1.0)]
    streams = [BatchStream([BUCKET], [parts], batch_size=5, rank=rank, world_size=world_size) for rank in range(world_size)]
    counts, rounds = Counter(), 110
    for stream in streams:
        stream.num_batches, stream.round_length = [1], 1
        for number in range(rounds):
            counts.update(stream.batch(number).samples)
    by_source = Counter(source for source, _ in counts.elements())
    assert by_source[1] == pytest.approx(by_source.total() / 11, abs=2 * world_size)
    for source, number in ((0, 40), (1, 6)):
        times = [counts[source, sample] for sample in range(number)]
        assert max(times) - min(times) <= 1, "and none of its samples twice before each came once"


@pytest.mark.parametrize("weights", [[1.0], [3.0, 1.0], [10.0, 1.0], [0.2, 7.0, 0.3, 55.0], [1e-3, 1.0]])
@pytest.mark.parametrize("total", [1, 4, 5, 11])
def test_rounds_owe_nothing(weights, total):
    shares, given = np.asarray(weights) / sum(weights) * total, np.zeros(len(weights))
    for round_ in range(200):
        before, counts = apportion_round(round_, total, weights)
        assert before.tolist() == given.tolist() and counts.sum() == total and counts.min() >= 0
        given += counts
        assert np.abs(given - shares * (round_ + 1)).max() < 2
        for known in (0, round_ // 2, round_, round_ + 1) if round_ < 12 else ():
            counted_on = apportion_round(round_, total, weights, known=(known, apportion_round(known, total, weights)))
            assert [some.tolist() for some in counted_on] == [before.tolist(), counts.tolist()]


def test_a_round_does_not_count_all_rounds_before_it(monkeypatch):
    calls = []
    monkeypatch.setattr("moviegen_data.mixing.apportion", lambda *given: calls.append(given) or apportion(*given))
    parts = [BucketPart(0, SampleOrder([4]), 10.0), BucketPart(1, SampleOrder([3]), 1.0)]
    stream = BatchStream([BUCKET], [parts], batch_size=7)
    assert stream.round_length == 1
    plans = [stream.batch(number) for number in range(300)]
    assert len(calls) <= 2 * 300
    assert BatchStream([BUCKET], [parts], batch_size=7).batch(299) == plans[299] and stream.batch(5) == plans[5], "from anywhere"
