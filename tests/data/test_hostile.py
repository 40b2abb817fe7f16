"""Real files that are broken or awkward, each with what must come of it."""

import json

import pytest

from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.inspect import inspect
from moviegen_data.pack import pack

REPORTED = {
    "truncated_no_index.mp4": "cannot be opened",
    "zero_byte.mp4": "cannot be opened",
    "text_renamed.mp4": "cannot be opened",
    "garbage_in_middle.mp4": "cannot be decoded",
    "audio_only.mp4": "no video stream",
    "nan_samples.wav": "the sound holds NaN or infinite values",
}
DECODED = {
    "variable_frame_rate.mp4": (180, 320),
    "odd_321x241.mp4": (241, 428),  # 321 stored columns of 4:3 pixels
    "rotated_90.mp4": (320, 180),
    "ten_bit_yuv420p10.mp4": (180, 320),
    "alpha_vp9.webm": (200, 200),
}
SHARDS = {
    "shard_cut_in_member.tar": (3, {"the shard is cut inside this member", "the shard cannot be read to its end"}),
    "shard_path_traversal.tar": (2, {"the member's path leaves its folder"}),
    "shard_symlink.tar": (2, {"the member is a link, a device or another special file", "no video or picture"}),
}

pytestmark = pytest.mark.media


def _alone(media, name, tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / name).write_bytes((media / "hostile" / name).read_bytes())
    return str(folder)


def _expected(media):
    return {entry["file"].removeprefix("hostile/"): entry["expected"] for entry in json.loads((media / "MANIFEST.json").read_text())
            if entry["file"].startswith("hostile/")}  # fmt: skip


def test_every_file_of_the_manifest_has_a_test(media):
    assert set(_expected(media)) == {*REPORTED, *DECODED, *SHARDS, "one_frame.mp4"}


@pytest.mark.parametrize("name", REPORTED)
def test_reported_and_skipped(media, tmp_path, name):
    with pytest.raises(ValueError, match=f"1 x {REPORTED[name]}: {name}"):
        pack(_alone(media, name, tmp_path), str(tmp_path / "out"))


@pytest.mark.parametrize("name", DECODED)
def test_decoded(media, tmp_path, name):
    pack(_alone(media, name, tmp_path), str(tmp_path / "out"))
    data = ShardData(urls=str(tmp_path / "out"), num_frames=12, height=32, width=48, fps=8.0, batch_size=2)
    (batch,) = data.train_dataloader()
    assert batch.video.shape == (2, 3, 12, 32, 48) and batch.video.isfinite().all()
    assert (batch.metadata[0]["height"], batch.metadata[0]["width"]) == DECODED[name]
    assert -1.0 <= float(batch.video.min()) < float(batch.video.max()) <= 1.0
    assert not data.skipped


def test_one_frame_is_a_picture_only(media, tmp_path):
    pack(_alone(media, "one_frame.mp4", tmp_path), str(tmp_path / "out"))
    (batch,) = ShardData(urls=str(tmp_path / "out"), num_frames=1, height=32, width=32, batch_size=1).train_dataloader()
    assert batch.is_image
    with pytest.raises(SourceError, match="too short: 1 of 2 frames"):
        list(ShardData(urls=str(tmp_path / "out"), num_frames=2, height=32, width=32, batch_size=1).train_dataloader())


@pytest.mark.parametrize("name", SHARDS)
def test_shards(media, tmp_path, name, capsys):
    folder = _alone(media, name, tmp_path)
    num_samples, causes = SHARDS[name]
    before = {path.name for path in tmp_path.parent.iterdir()}
    answer = inspect(folder)
    assert answer["num_samples"] == num_samples and {bad["cause"] for bad in answer["bad"]} == causes
    data = ShardData(urls=folder, num_frames=4, height=16, width=16, fps=8.0, batch_size=1)
    keys = [key for batch in data.predict_dataloader() for key in batch.keys]
    assert keys == [f"{number:06d}" for number in range(num_samples - ("no video or picture" in causes))]
    assert set(data.skipped.counts) == causes
    assert {path.name for path in tmp_path.parent.iterdir()} == before and [p.name for p in tmp_path.iterdir()] == ["media"]


def test_all_at_once(media, tmp_path):
    report = pack(str(media / "hostile"), str(tmp_path / "out"))
    assert report.num_samples == 6
    assert {skip.key: skip.cause for skip in report.skipped.skips.values() if not skip.key.endswith(".tar")} == REPORTED
    data = ShardData(urls=str(tmp_path / "out"), num_frames=8, height=32, width=32, fps=8.0, batch_size=3)
    assert sum(len(batch) for batch in data.train_dataloader()) == 6
    assert data.skipped.counts == {"too short": 1}
