"""A folder of media becomes shards, and what does not is told."""

import errno
import io
import json
import os
import wave
from pathlib import Path

import numpy as np
import pytest

from moviegen_data import media_folder
from moviegen_data import pack as packing
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.stages.captions import SidecarCaptions
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.inspect import inspect
from moviegen_data.pack import pack
from moviegen_data.reader import ShardReader


@pytest.fixture
def folder(tmp_path, media_maker):
    root = tmp_path / "media"
    (root / "deep").mkdir(parents=True)
    clip = media_maker.encode_clip(media_maker.grey_steps(12), fps=8)
    (root / "a.mp4").write_bytes(clip)
    (root / "deep/b.v2.mp4").write_bytes(clip)
    (root / "c.png").write_bytes(media_maker.picture_bytes())
    (root / "bad.mp4").write_bytes(b"words")
    (root / "empty.mp4").write_bytes(b"")
    (root / "notes.md").write_text("not media")
    (root / ".hidden.mp4").write_bytes(clip)
    return root


def _records(output):
    reader = ShardReader(str(output))
    return {reader[number].key: reader[number].metadata for number in range(len(reader))}


def test_without_captions(folder, tmp_path, capsys):
    report = pack(str(folder), str(tmp_path / "out"))
    assert report.num_samples == report.num_without_caption == 3
    assert report.skipped.counts == {"cannot be opened": 2, "not a kind of media that shards hold": 1}
    records = _records(tmp_path / "out")
    assert set(records) == {"a", "c", "deep/b_v2"}
    facts = {"schema": 1, "key": "a", "caption": "", "frames": 12, "fps": 8.0, "duration_s": 1.5, "height": 32, "width": 32}
    assert records["a"] == {**facts, "has_audio": False, "source": "a.mp4"}
    assert records["c"]["frames"] == 1 and records["c"]["source"] == "c.png"
    written = json.loads((tmp_path / "out/pack-report.json").read_text())
    assert written["num_samples"] == 3 and written["skipped"]["by_cause"]["cannot be opened"] == 2
    printed = capsys.readouterr().out
    assert "bad.mp4" in printed and "3 samples have an empty caption; give `captions`" in printed


def test_csv_names_absent_media_and_leaves_some_out(folder, tmp_path, capsys):
    (folder / "captions.csv").write_text('file,caption,camera_motion,height\na.mp4,"a, quoted",zoom in,999\ngone.mp4,nothing there,,\n')
    report = pack(str(folder), str(tmp_path / "out"), captions=str(folder / "captions.csv"))
    assert report.absent == ["gone.mp4"] and report.skipped.counts["no caption"] == 4
    assert "1 caption names media that are not there: gone.mp4" in capsys.readouterr().out
    (record,) = _records(tmp_path / "out").values()
    assert (record["caption"], record["camera_motion"], record["height"]) == ("a, quoted", "zoom in", 32)


@pytest.mark.parametrize(
    "content",
    [
        {"a.mp4": "first", "deep/b.v2.mp4": {"caption": "second"}},
        [{"file": "a.mp4", "text": "first"}, {"file": "deep/b.v2.mp4", "text": "second"}],
        [{"path": "media/a.mp4", "caption": "first"}, {"path": "media/deep/b.v2.mp4", "caption": "second"}],
    ],
)
def test_json_captions(folder, tmp_path, content):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    pack(str(folder), str(tmp_path / "out"), captions=str(path))
    assert {key: record["caption"] for key, record in _records(tmp_path / "out").items()} == {"a": "first", "deep/b_v2": "second"}


def test_sidecars(folder, tmp_path):
    (folder / "a.txt").write_text("a film\n")
    (folder / "deep/b.v2.txt").write_text("  ")
    report = pack(str(folder), str(tmp_path / "out"), captions="sidecar")
    assert report.skipped.counts["no caption"] == 4 and _records(tmp_path / "out")["a"]["caption"] == "a film"


def test_sidecars_that_are_no_files(folder, tmp_path):
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfa film\r\nof \xff\r\n")
    (folder / "c.txt").mkdir()
    (folder / "deep/b.v2.txt").symlink_to("x" * 300)
    report = pack(str(folder), str(tmp_path / "out"), captions="sidecar")
    assert [(key, record["caption"]) for key, record in _records(tmp_path / "out").items()] == [("a", "a film\nof \ufffd")]
    causes = {skip.key: skip.cause for skip in report.skipped.skips.values()}
    assert causes["c.png"] == causes["deep/b.v2.mp4"] == "no caption"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("step", ["stat", "read_bytes"])
def test_sidecars_that_cannot_be_read_end_the_run(step, number, folder, tmp_path, monkeypatch):
    (folder / "a.txt").write_text("a film")
    do = getattr(Path, step)

    def failing(path, **options):
        if path.name == "a.txt":
            raise OSError(number, os.strerror(number), str(path))
        return do(path, **options)

    monkeypatch.setattr(media_folder, "_visible", lambda root, skipped: [folder / "a.mp4"])  # which looks at it too
    monkeypatch.setattr(Path, step, failing)
    message = rf"a\.txt was to be read; the system says: {os.strerror(number)}; .*, then run the same command again"
    with pytest.raises(SourceError, match=message):
        pack(str(folder), str(tmp_path / "out"), captions="sidecar")
    with pytest.raises(SourceError, match=message):
        SidecarCaptions(absent="keep").apply(Clip("a", "a.mp4"), Media(folder / "a.mp4"))


def test_keys_stay_unique(tmp_path, media_maker):
    for name in ("x y.png", "x_y.png", "x.y.png"):
        (tmp_path / "m").mkdir(exist_ok=True)
        (tmp_path / "m" / name).write_bytes(media_maker.picture_bytes())
    pack(str(tmp_path / "m"), str(tmp_path / "out"))
    assert set(_records(tmp_path / "out")) == {"x_y", "x_y_2", "x_y_3"}


def test_sounds_with_holes_are_refused(tmp_path):
    root = tmp_path / "m"
    root.mkdir()
    with wave.open(str(root / "tone.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes((np.sin(np.arange(800) / 5) * 8000).astype("<i2").tobytes())
    (root / "nan.wav").write_bytes(_float_wav(np.array([0.0, np.nan, 0.5, np.inf] * 200, np.float32)))
    report = pack(str(root), str(tmp_path / "out"))
    assert report.skipped.counts == {"the sound holds NaN or infinite values": 1}
    assert _records(tmp_path / "out")["tone"]["duration_s"] == pytest.approx(0.1)


def _float_wav(samples):
    data = samples.tobytes()
    header = io.BytesIO()
    header.write(b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt ")
    for value, size in ((16, 4), (3, 2), (1, 2), (8000, 4), (32000, 4), (4, 2), (32, 2)):
        header.write(value.to_bytes(size, "little"))
    return header.getvalue() + b"data" + len(data).to_bytes(4, "little") + data


def test_captions_that_are_no_text_or_too_long_for_a_name(folder, tmp_path):
    path = tmp_path / "captions.json"
    (folder / "loop").symlink_to("loop")
    no_names = ["x" * 300, "a\0.mp4", "\ud83d.mp4", "loop/a.mp4"]
    path.write_text(json.dumps({"a.mp4": "half a sign \ud83d", "c.png": "words"} | dict.fromkeys(no_names, "a caption")))
    report = pack(str(folder), str(tmp_path / "out"), captions=str(path))
    assert report.num_samples == 1 and report.skipped.counts["the caption is no text"] == 1 and report.absent == no_names


def test_a_medium_that_goes_away_on_the_way(folder, tmp_path, monkeypatch):
    measure = packing._measure

    def while_measuring(*arguments):
        (folder / "c.png").unlink(missing_ok=True)
        return measure(*arguments)

    monkeypatch.setattr(packing, "_measure", while_measuring)
    report = pack(str(folder), str(tmp_path / "out"))
    assert report.num_samples == 2 and report.skipped.counts["cannot be opened"] == 3


def test_names_that_are_no_text_can_be_told(folder, tmp_path):
    (folder / os.fsdecode(b"\xff.mp4")).symlink_to("nothing")
    report = pack(str(folder), str(tmp_path / "out"))
    assert b"not a file: \\udcff.mp4 of" in str(report).encode()


def test_links_that_leave_the_folder(folder, tmp_path, media_maker):
    (tmp_path / "secret.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    report = pack(str(folder), str(tmp_path / "out"))
    assert report.skipped.counts["a link that leaves the folder"] == 1


def test_what_cannot_be_packed(folder, tmp_path):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.mp4").write_bytes(b"words")
    (tmp_path / "c.csv").write_text("film,words\na.mp4,x\n")
    (tmp_path / "c.json").write_text("{")
    out = str(tmp_path / "out")
    for arguments, message in (
        ((str(tmp_path / "gone"), out), "has no such folder; give a folder of videos"),
        ((str(folder / "a.mp4"), out), "it is a file; give a folder"),
        ((str(tmp_path / "nothing"), out), "it holds no media .*mp4.*; put some in"),
        ((str(tmp_path / "bad"), out), "1 x cannot be opened: x.mp4 .*; no shard was written"),
        ((str(folder), out, "gone.csv"), "there is no such file; give a csv, json or jsonl file, or `sidecar`"),
        ((str(folder), out, str(tmp_path / "c.csv")), "its columns are film, words; call them file and caption"),
        ((str(folder), out, str(tmp_path / "c.json")), "they are not json: .*; correct the file"),
        ((str(folder), out, str(folder / "notes.md")), "captions come in csv, json and jsonl files"),
    ):
        with pytest.raises(ValueError, match=message):
            pack(*arguments[:2], captions=(*arguments, None)[2])
        assert not list((tmp_path / "out").glob("*.tar")) if (tmp_path / "out").exists() else True
    with pytest.raises(ValueError, match="caption_column=note was given; there is no caption file"):
        pack(str(folder), out, caption_column="note")
    (tmp_path / "said.csv").write_text("file,said\na.mp4,a film\n")
    with pytest.raises(ValueError, match="or name the caption's with `caption_column`"):
        pack(str(folder), out, captions=str(tmp_path / "said.csv"))
    pack(str(folder), out)
    with pytest.raises(FileExistsError, match="already holds 1"):
        pack(str(folder), out)
    assert pack(str(folder), out, overwrite=True).num_samples == 3


def test_inspect_tells_and_counts_batches(folder, tmp_path, capsys):
    pack(str(folder), str(tmp_path / "out"))
    capsys.readouterr()
    answer = inspect(str(tmp_path / "out"), json=True, num_frames=8, height=16, width=16, fps=8.0, batch_size=1, num_ranks=2)
    assert json.loads(capsys.readouterr().out) == answer
    assert answer["num_samples"] == 3 and answer["parts"] == {"json": 3, "mp4": 2, "png": 1}
    assert answer["resolutions"] == {"32x32": 2, "32x24": 1} and answer["fps"] == {"8": 2} and answer["num_with_caption"] == 0
    assert answer["duration_s"] == {"min": 1.5, "median": 1.5, "max": 1.5, "total": 3.0} and answer["bad"] == []
    counts = {"num_samples": 2, "num_bad": 1, "share": 1.0, "batch_size": 1, "num_batches": 1, "num_left": 1, "num_repeated": 0}
    assert answer["batches"] == [{"bucket": "8x16x16@8", **counts}]
    assert answer["lost"] == [{"cause": "a picture, where clips are wanted", "num_samples": 1, "keys": ["c"]}]
    with pytest.raises(ValueError, match="the three come together"):
        inspect(str(tmp_path / "out"), num_frames=8)


def test_folders_whose_names_look_like_chained_urls(folder, tmp_path, monkeypatch):
    (tmp_path / "a::b").mkdir()
    monkeypatch.chdir(tmp_path)
    folder.rename("a::b/in")
    assert pack("a::b/in", "a::b/out").num_samples == 3
    for path in ("a::b/out", str(tmp_path / "a::b/out")):
        assert inspect(path, json=True)["num_samples"] == 3
        data = ShardData(urls=path, num_frames=8, height=16, width=16, fps=8.0, batch_size=2)
        assert len(next(iter(data.train_dataloader())).metadata) == 2


def test_inspect_names_bad_samples(make_shards, capsys):
    answer = inspect(str(make_shards(num_samples=4, bad=(1,))))
    assert [(bad["key"], bad["cause"]) for bad in answer["bad"]] == [("shards-0001", "cannot be opened")]
    assert "BAD shards-0001" in capsys.readouterr().out
