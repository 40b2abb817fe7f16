"""Real files that are broken or awkward, each with what must come of it by every door: packing, inspecting, loading."""

import json
from dataclasses import dataclass, field

import pytest

from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.inspect import inspect
from moviegen_data.pack import pack
from moviegen_data.reader import ShardReader
from moviegen_data.shards import ShardWriter

pytestmark = pytest.mark.media
NO_MEDIUM = "not a kind of media that shards hold"


@dataclass
class Outcome:
    """What must come of a file.

    Args:
        packed: rows and columns in the packed sample's json, or why it is not packed.
        bad: causes that inspecting a shard with it tells.
        loaded: samples that a loader gives of it.
        skipped: causes that the loader tells, those of `bad` unless given.
    """

    packed: tuple[int, int] | str
    bad: set[str] = field(default_factory=set)
    loaded: int = 1
    skipped: set[str] | None = None


def broken(cause, *, skipped=None):
    return Outcome(packed=cause, bad={cause}, loaded=0, skipped=skipped)


OUTCOMES = {
    "truncated_no_index.mp4": broken("cannot be opened"),
    "zero_byte.mp4": broken("cannot be opened"),
    "text_renamed.mp4": broken("cannot be opened"),
    "garbage_in_middle.mp4": broken("cannot be decoded"),
    "audio_only.mp4": broken("no video stream"),
    "nan_samples.wav": broken("the sound holds NaN or infinite values", skipped={"no video or picture"}),
    "one_frame.mp4": Outcome(packed=(180, 320), loaded=0, skipped={"too short"}),
    "variable_frame_rate.mp4": Outcome(packed=(180, 320)),
    "odd_321x241.mp4": Outcome(packed=(241, 428)),  # 321 stored columns of 4:3 pixels
    "rotated_90.mp4": Outcome(packed=(320, 180)),
    "ten_bit_yuv420p10.mp4": Outcome(packed=(180, 320)),
    "alpha_vp9.webm": Outcome(packed=(200, 200)),
    "shard_cut_in_member.tar": Outcome(
        packed=NO_MEDIUM, bad={"the shard is cut inside this member", "the shard cannot be read to its end"}, loaded=3
    ),
    "shard_path_traversal.tar": Outcome(packed=NO_MEDIUM, bad={"the member's path leaves its folder"}, loaded=2),
    "shard_symlink.tar": Outcome(
        packed=NO_MEDIUM, bad={"the member is a link, a device or another special file", "no video or picture"}, loaded=1
    ),
}


def everything(folder):
    """All files there are, with their bytes; a link would be followed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def test_every_file_of_the_manifest_has_an_outcome(media):
    files = [entry["file"] for entry in json.loads((media / "MANIFEST.json").read_text())]
    assert {file.removeprefix("hostile/") for file in files if file.startswith("hostile/")} == set(OUTCOMES)


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_comes_of_it(media, tmp_path, name, capsys):
    outcome, data = OUTCOMES[name], (media / "hostile" / name).read_bytes()
    inner = tmp_path / "outer/inner"  # names that climb two folders would still land where we look
    folder = inner / "media"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    _pack(folder, inner / "packed", name, outcome)
    if name.endswith(".tar"):
        shards = folder
    else:
        shards = inner / "shards"
        with ShardWriter(shards) as writer:  # as another program may have packed it
            writer.write("000000", {"json": {"caption": "x"}, name.rpartition(".")[2]: data})
    before = everything(tmp_path)
    capsys.readouterr()
    answer = inspect(str(shards), decode=True)
    assert {bad["cause"] for bad in answer["bad"]} == outcome.bad
    printed = capsys.readouterr().out
    assert all(cause in printed for cause in outcome.bad)
    _load(shards, outcome, seconds=0.5 if name.endswith(".tar") else 2.0)
    assert everything(tmp_path) == before, "looking and loading write nothing"
    assert {path.name for path in tmp_path.iterdir()} == {"outer"} and {path.name for path in inner.parent.iterdir()} == {"inner"}


def _pack(folder, output, name, outcome):
    if isinstance(outcome.packed, str):
        message = rf"1 x {outcome.packed}: {name}" if outcome.packed != NO_MEDIUM else "it holds no media"
        with pytest.raises(ValueError, match=message):
            pack(str(folder), str(output))
        assert not list(output.glob("*")) if output.exists() else True
    else:
        pack(str(folder), str(output))
        record = ShardReader(str(output))[0].metadata
        assert (record["height"], record["width"]) == outcome.packed


def _load(shards, outcome, *, seconds):
    data = ShardData(urls=str(shards), num_frames=4, height=32, width=48, fps=4 / seconds, batch_size=2)
    expected = outcome.bad if outcome.skipped is None else outcome.skipped
    if not outcome.loaded:
        with pytest.raises(SourceError, match=rf"the one sample tried cannot be used: 1 x {next(iter(expected))}"):
            list(data.predict_dataloader())
        return
    batches = list(data.predict_dataloader())
    for batch in batches:
        assert batch.video.isfinite().all() and -1.0 <= float(batch.video.min()) < float(batch.video.max()) <= 1.0
    assert [key for batch in batches for key in batch.keys] == [f"{number:06d}" for number in range(outcome.loaded)]
    assert set(data.skipped.counts) == expected


def test_one_frame_is_a_picture(media, tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.write("one", {"json": {}, "mp4": (media / "hostile/one_frame.mp4").read_bytes()})
    (batch,) = ShardData(urls=str(tmp_path), num_frames=1, height=32, width=32, batch_size=1).train_dataloader()
    assert batch.is_image


def test_all_at_once(media, tmp_path):
    report = pack(str(media / "hostile"), str(tmp_path / "out"))
    assert report.num_samples == 6
    told = {skip.key: skip.cause for skip in report.skipped.skips.values()}
    assert told == {name: outcome.packed for name, outcome in OUTCOMES.items() if isinstance(outcome.packed, str)}
    data = ShardData(urls=str(tmp_path / "out"), num_frames=8, height=32, width=32, fps=8.0, batch_size=3)
    assert sum(len(batch) for batch in data.train_dataloader()) == 6
    assert data.skipped.counts == {"too short": 1}
