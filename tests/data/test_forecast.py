"""What `moviegen data inspect` says of batches is what a loader makes, and no sample is lost without a word."""

from types import SimpleNamespace

import pytest

from moviegen_data.buckets import Bucket, paper_buckets, why_none
from moviegen_data.datamodule import ShardData
from moviegen_data.forecast import Forecast
from moviegen_data.inspect import inspect
from moviegen_data.shards import ShardWriter

SIZES = [(720, 1280), (1280, 720), (480, 640), (512, 512)]
DURATIONS = [2.0, 5.0, 9.0, 11.0, 14.0, 30.0]
PICTURE = "a picture, where clips are wanted"


@pytest.fixture
def shards(tmp_path, media_maker):
    """Samples of many sizes and durations by their json; the clips themselves are tiny."""
    clip = media_maker.encode_clip(media_maker.grey_steps(2), fps=8)
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(120):
            (height, width), duration_s = SIZES[number % 7 % 4], DURATIONS[number % 11 % 6]
            record = {"caption": "x", "height": height, "width": width, "duration_s": duration_s, "fps": 24.0}
            writer.write(f"k{number:03d}", {"json": record, "mp4": b"no film" if number == 51 else clip})
        writer.write("picture", {"json": {"height": 512, "width": 512}, "png": media_maker.picture_bytes()})
        writer.write("text", {"json": {"caption": "x"}, "txt": "words"})
    return str(tmp_path / "shards")


@pytest.mark.parametrize(("batch_size", "num_ranks"), [(1, 1), (2, 2), (3, 4)])
def test_the_papers_buckets(shards, capsys, batch_size, num_ranks):
    answer = inspect(shards, buckets="paper_256", batch_size=batch_size, num_ranks=num_ranks)
    printed = capsys.readouterr().out
    rows = answer["batches"]
    assert len(rows) == 25 and answer["num_batches"] == sum(row["num_batches"] for row in rows)
    assert [row["bucket"] for row in rows] == [str(bucket) for bucket in paper_buckets(area_px=256 * 256)]
    lost = {row["cause"]: row["num_samples"] for row in answer["lost"]}
    short = sum(DURATIONS[number % 11 % 6] == 2.0 for number in range(120))
    assert DURATIONS[51 % 11 % 6] != 2.0 and lost == {
        "shorter than any bucket takes (4.00 s)": short, "cannot be opened": 1, "no video or picture": 1, PICTURE: 1,
    }  # fmt: skip
    assert sum(row["num_samples"] for row in rows) + sum(lost.values()) == answer["num_samples"] == 122
    for row in rows:
        used = row["num_batches"] * batch_size * num_ranks
        assert row["num_left"] - row["num_repeated"] == row["num_samples"] + row["num_bad"] - used
        assert f"bucket {row['bucket']}: {row['num_samples']} samples" in printed
    assert "samples are in no batch:" in printed and "shorter than any bucket takes (4.00 s): k0" in printed


@pytest.mark.parametrize("one_shape", [False, True])
@pytest.mark.parametrize(("batch_size", "num_ranks"), [(1, 1), (2, 2), (3, 4)])
def test_a_loader_makes_the_batches_that_were_told(shards, batch_size, num_ranks, one_shape):
    shape = {"num_frames": 16, "height": 8, "width": 8, "fps": 16.0}
    answer = inspect(shards, batch_size=batch_size, num_ranks=num_ranks, **(shape if one_shape else {"buckets": "paper_256"}))
    data = ShardData(urls=shards, batch_size=batch_size, **(shape if one_shape else {"buckets": paper_buckets(area_px=256 * 256)}))
    place = {"rank": num_ranks - 1, "num_replicas": num_ranks}
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(distributed_sampler_kwargs=place), num_training_batches=float("inf"))
    loader = data.train_dataloader()
    assert len(loader) == answer["num_batches"]
    assert loader.sampler.streams[0].num_samples == [row["num_samples"] + row["num_bad"] for row in answer["batches"]]
    num_lost = sum(row["num_samples"] for row in answer["lost"])
    assert sum(row["num_bad"] for row in answer["batches"]) == (num_lost if one_shape else 1)


def test_pictures_go_where_single_frames_are_wanted(tmp_path, media_maker):
    with ShardWriter(tmp_path) as writer:
        for number in range(6):
            media = (
                {"png": media_maker.picture_bytes()} if number % 2 else {"mp4": media_maker.encode_clip(media_maker.grey_steps(8), fps=8)}
            )
            writer.write(f"k{number}", {"json": {"height": 24, "width": 32, **({} if number % 2 else {"duration_s": 1.0})}, **media})
    buckets = [Bucket(num_frames=4, height=16, width=16, fps=8), Bucket(num_frames=1, height=8, width=8)]
    answer = inspect(str(tmp_path), buckets=buckets, batch_size=3)
    data = ShardData(urls=str(tmp_path), buckets=buckets, batch_size=3)
    made = {tuple(batch.video.shape[2:]): sorted(batch.keys) for batch in data.train_dataloader()}
    assert made == {(4, 16, 16): ["k0", "k2", "k4"], (1, 8, 8): ["k1", "k3", "k5"]} and not data.skipped
    assert [row["num_samples"] for row in answer["batches"]] == [3, 3] and not answer["lost"]


def test_each_bucket_has_its_own_batch_size():
    buckets = [Bucket(num_frames=1, height=8, width=8, batch_size=5), Bucket(num_frames=1, height=8, width=16)]
    forecast = Forecast(buckets, batch_size=2, num_ranks=1)
    for number in range(13):
        forecast.add(str(number), *forecast.bucket_of(height=8, width=8 if number < 12 else 16, duration_s=None, is_video=False))
    rows = forecast.as_dict()["batches"]
    assert [(row["batch_size"], row["num_batches"], row["num_left"], row["num_repeated"]) for row in rows] == [(5, 2, 2, 0), (2, 1, 0, 1)]
    assert rows[0]["share"] == pytest.approx(12 / 13, abs=1e-4)


def test_one_of_everything_is_told_in_the_singular(tmp_path, media_maker, capsys):
    clip = media_maker.encode_clip(media_maker.grey_steps(8), fps=8)
    with ShardWriter(tmp_path) as writer:
        writer.write("film", {"json": {"height": 24, "width": 32, "duration_s": 1.0}, "mp4": clip})
        writer.write("short", {"json": {"height": 24, "width": 32, "duration_s": 0.1}, "mp4": clip})
    buckets = [Bucket(num_frames=4, height=16, width=16, fps=8)]
    inspect(str(tmp_path), buckets=buckets, batch_size=1)
    printed = capsys.readouterr().out
    assert "2 samples in 1 shard," in printed and ": 1 sample (100.0%), 1 batch of 1\n" in printed
    assert "together 1 batch of 1 sample," in printed and "1 sample is in no batch:" in printed


def test_why_a_file_has_no_bucket():
    buckets = [
        Bucket(num_frames=16, height=8, width=8, fps=8, max_s=3.0),
        Bucket(num_frames=80, height=8, width=8, fps=8, max_fps=16, min_s=6.0),
    ]
    assert why_none(buckets, duration_s=1.0) == "shorter than any bucket takes (2.00 s)"
    assert why_none(buckets, duration_s=4.0) == "between the durations that the buckets take"
