"""What `moviegen data inspect` says of batches is what a loader makes, and no sample is lost without a word."""

from types import SimpleNamespace

import pytest

from moviegen_data.buckets import Bucket, paper_buckets
from moviegen_data.datamodule import ShardData
from moviegen_data.forecast import Forecast, why_none
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
        assert row["num_left"] - row["num_repeated"] == row["num_samples"] - used
        assert f"bucket {row['bucket']}: {row['num_samples']} samples" in printed
    assert "samples are in no batch:" in printed and "shorter than any bucket takes (4.00 s): k0" in printed


def test_a_loader_makes_the_batches_that_were_told(shards):
    answer = inspect(shards, buckets="paper_256", batch_size=2, num_ranks=2)
    data = ShardData(urls=shards, buckets=paper_buckets(area_px=256 * 256), batch_size=2)
    data.trainer = SimpleNamespace(
        strategy=SimpleNamespace(distributed_sampler_kwargs={"rank": 1, "num_replicas": 2}), num_training_batches=float("inf")
    )
    loader = data.train_dataloader()
    stream = loader.sampler.streams[0]
    # The broken film and the picture have sizes and lengths that a bucket takes: a loader finds out when it reads them.
    assert len(loader) - answer["num_batches"] in (0, 1)
    told = [row["num_samples"] for row in answer["batches"]]
    assert sum(stream.num_samples) - sum(told) == 2
    assert all(0 <= found - expected <= 2 for found, expected in zip(stream.num_samples, told, strict=True))


def test_each_bucket_has_its_own_batch_size():
    buckets = [Bucket(num_frames=1, height=8, width=8, batch_size=5), Bucket(num_frames=1, height=8, width=16)]
    forecast = Forecast(buckets, batch_size=2, num_ranks=1)
    for number in range(13):
        forecast.add(str(number), height=8, width=8 if number < 12 else 16, duration_s=None, is_video=False)
    rows = forecast.as_dict()["batches"]
    assert [(row["batch_size"], row["num_batches"], row["num_left"], row["num_repeated"]) for row in rows] == [(5, 2, 2, 0), (2, 1, 0, 1)]
    assert rows[0]["share"] == pytest.approx(12 / 13, abs=1e-4)


def test_why_a_file_has_no_bucket():
    buckets = [
        Bucket(num_frames=16, height=8, width=8, fps=8, max_s=3.0),
        Bucket(num_frames=80, height=8, width=8, fps=8, max_fps=16, min_s=6.0),
    ]
    assert why_none(buckets, 1.0) == "shorter than any bucket takes (2.00 s)"
    assert why_none(buckets, 4.0) == "between the durations that the buckets take"
