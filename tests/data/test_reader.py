"""What addresses mean, and what a tar may hold."""

import errno
import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.faults import SampleError, SourceError
from moviegen_data.reader import ShardReader, resolve_shards, scan_shard
from moviegen_data.shards import ShardWriter, shard_index_path
from moviegen_data.storage import RemotePath


def _tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return path


def test_addresses(make_shards):
    folder = make_shards(num_samples=4, max_samples=1, num_frames=1, kind="png")
    every = [folder / f"shard-{number:06d}.tar" for number in range(4)]
    assert resolve_shards(str(folder)) == every
    assert resolve_shards(f"{folder}/shard-*.tar") == every
    assert resolve_shards(f"{folder}/shard-{{000001..000002}}.tar") == every[1:3]
    assert resolve_shards([str(every[3]), f"{folder}/*.tar"]) == [every[3], *every[:3]]


def test_addresses_that_lead_nowhere(make_shards, tmp_path):
    folder = make_shards(num_samples=2, max_samples=1, num_frames=1, kind="png")
    (tmp_path / "empty").mkdir()
    for url, message in (
        (f"{folder}/shard-{{000000..000002}}.tar", r"shard-000002.tar of 3 is missing; .* the nearest shard is 'shard-00000"),
        (f"{folder}/shard-{{000000..000003}}.tar", r"shard-000002.tar and 1 more of 4 are missing; in"),
        (f"{folder}/shart-000001.tar", "the nearest shard is 'shard-000001.tar'; correct the path"),
        (str(tmp_path / "empty"), r"holds no \*.tar \(it is empty\); pack media into it with `moviegen data pack`"),
        (f"{folder}/x-*.tar", "nothing matches it; .* holds shard"),
        ("s4://bucket/shard.tar", "Protocol not known: s4; the nearest protocol is 's3a?'; correct the address"),
        ("pipe:rm -rf /", "pipe: addresses are not read"),
        ([], "no shards were given"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve_shards(url)


def test_addresses_with_signs_in_them(make_shards, tmp_path):
    folder = make_shards(num_samples=4, max_samples=1, num_frames=1, kind="png")
    names = [f"shard-{number:06d}.tar" for number in range(4)]
    odd = tmp_path / "my [1] {a,b} folder?"
    folder.rename(odd)
    (odd / "._shard-000000.tar").write_bytes(b"what some systems put beside a file")
    (odd / "folder.tar").mkdir()
    assert [path.name for path in resolve_shards(str(odd))] == names
    assert resolve_shards(f"{odd}/{names[2]}") == [odd / names[2]]
    assert resolve_shards(f"file://{odd}/{names[2]}") == [odd / names[2]]
    assert resolve_shards(f"file://localhost{quote(str(odd))}/{names[2]}") == [odd / names[2]]
    plain = tmp_path / "plain"
    odd.rename(plain)
    assert [path.name for path in resolve_shards(f"{plain}/shard-00000{{0..1}}*.tar")] == names[:2]
    assert [path.name for path in resolve_shards(f"{plain}/shard-00000{{3,1}}.tar")] == [names[3], names[1]]
    with pytest.raises(UsageError, match="their braces cannot be read .*; close each brace"):
        resolve_shards(f"{plain}/shard-{{000.tar")


def test_paths_that_look_like_chained_urls(make_shards, tmp_path, monkeypatch):
    folder = make_shards(num_samples=2, max_samples=1, num_frames=1, kind="png")
    names = ["shard-000000.tar", "shard-000001.tar"]
    for odd in ("a::b", "memory::b", "zip::"):
        folder = folder.rename(tmp_path / odd)
        for given in (str(folder), f"{folder}/*.tar", f"{folder}/shard-{{000000..000001}}.tar", f"file://{folder}/*.tar"):
            assert [path.name for path in resolve_shards(given)] == names
    monkeypatch.chdir(tmp_path)
    for odd in ("zip::", "./zip::", "./zip::/*.tar", "zip::/shard-000000.tar"):
        assert isinstance(resolve_shards(odd)[0], Path) and ShardReader(odd)[0].key == "shards-0000"
    folder = folder.rename("a::b")
    for given in ("a::b", "a::b/*.tar", "a::b/shard-000000.tar"):
        assert isinstance(resolve_shards(given)[0], Path)
    with pytest.raises(UsageError, match="a::c/shard-000000.tar is missing; in"):
        resolve_shards("a::c/shard-000000.tar")
    assert isinstance(resolve_shards(f"simplecache::{tmp_path}/a::b/shard-000000.tar")[0], RemotePath)


def test_a_part_of_more_than_a_read_gives_is_read_whole(make_shards, monkeypatch):
    sample = ShardReader(str(make_shards(num_samples=1, num_frames=1, kind="png")))[0]
    whole, pread, preadv = sample["png"], os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda file, size, offset: pread(file, min(size, 7), offset))
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: preadv(file, [buffers[0][:7]], offset))
    assert sample["png"] == whole and bytes(sample.buffer("png")) == whole


def test_a_file_system_that_fails_ends_the_run_with_a_word(make_shards, monkeypatch):
    sample = ShardReader(str(make_shards(num_samples=1, num_frames=1, kind="png")))[0]

    def failing(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(SourceError, match=r"shard-000000.tar was being read; the file system failed \(Input/output error\); see to it"):
        _ = sample["png"]


@pytest.mark.parametrize("name", ["shard-000000.tar", "shard.index.json"])
def test_headers_and_indices_that_the_file_system_does_not_give(name, make_shards):
    folder = make_shards(num_samples=1, num_frames=1, kind="png")
    if name.endswith(".tar"):
        shard_index_path(folder).unlink()
    (folder / name).unlink()
    (folder / name).symlink_to("/proc/self/mem")  # it can be opened, and reading its first byte is an error of the device
    with pytest.raises(SourceError, match=rf"{name} was being read; the file system failed \(Input/output error\)"):
        ShardReader(str(folder))


def test_an_index_that_may_not_be_read_is_done_without(make_shards, monkeypatch):
    folder, read = make_shards(num_samples=3, num_frames=1, kind="png"), Path.read_bytes

    def refused(path):
        if path.suffix == ".json":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert len(ShardReader(str(folder))) == 3


@pytest.mark.parametrize("entry", [{"num_samples": -1}, {"num_bytes": -1}, {"num_samples": "2"}, {"file": 7}])
def test_an_index_with_numbers_that_cannot_be_is_not_believed(make_shards, entry):
    folder = make_shards(num_samples=2, num_frames=1, kind="png")
    index = json.loads(shard_index_path(folder).read_text())
    index["shards"][0] |= entry
    shard_index_path(folder).write_text(json.dumps(index))
    assert len(ShardReader(str(folder))) == 2


def test_samples_by_number(make_shards):
    reader = ShardReader(str(make_shards(num_samples=12, max_samples=5)))
    assert len(reader) == 12 and reader.counts == [5, 5, 2]
    for number in (0, 4, 5, 11):
        assert reader[number].metadata["caption"] == f"clip {number}"
    assert set(reader[3]) == {"json", "mp4"}
    assert pickle.loads(pickle.dumps(reader))[7].metadata["caption"] == "clip 7"
    with pytest.raises(IndexError):
        reader[12]


def test_asking_whether_a_part_is_there_does_not_read_it(make_shards, monkeypatch):
    sample = ShardReader(str(make_shards(num_samples=1, num_frames=1, kind="png")))[0]
    monkeypatch.setattr("os.pread", lambda *arguments: pytest.fail("it was read"))
    assert "png" in sample and "mp4" not in sample


def test_an_index_that_lies_is_not_believed(make_shards):
    folder = make_shards(num_samples=3, num_frames=1, kind="png")
    shard = next(folder.glob("*.tar"))
    with tarfile.open(shard, "a") as tar:
        info = tarfile.TarInfo("more.txt")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"text"))
    with open(shard, "ab") as file:
        file.write(b"\0" * 10240)
    reader = ShardReader(str(shard))
    assert len(reader) == 4 and reader[3].metadata == {"caption": "text"}
    shard_index_path(folder).write_text("{not json")
    assert len(ShardReader(str(folder))) == 4


def test_more_shards_than_may_be_open(make_shards, monkeypatch):
    monkeypatch.setattr("moviegen_data.reader._MAX_OPEN_SHARDS", 2)
    reader = ShardReader(str(make_shards(num_samples=6, max_samples=1, num_frames=1, kind="png")))
    assert [reader[number].metadata["caption"] for number in (0, 5, 1, 4, 0)] == [f"clip {number}" for number in (0, 5, 1, 4, 0)]
    assert len(reader._open) == 2


def test_what_a_tar_may_not_hold(tmp_path):
    path = _tar(
        tmp_path / "s.tar",
        ("a.png", b"1"),
        ("../../evil.png", b"2"),
        ("/etc/evil.png", b"2"),
        ("..\\evil.png", b"2"),
        ("b.mp4", (tarfile.SYMTYPE, "../secret.mp4")),
        ("c.mp4", (tarfile.LNKTYPE, "a.png")),
        ("d.mp4", (tarfile.CHRTYPE, "")),
        ("e.mp4", (tarfile.FIFOTYPE, "")),
        (".hidden", b"3"),
        ("nokind", b"4"),
        ("f/g.PNG", b"5"),
        ("f/g.png", b"6"),
    )
    contents = scan_shard(path)
    assert contents.keys == ["a", "f/g"] and [set(parts) for parts in contents.members] == [{"png"}, {"png"}]
    causes = [problem.cause for problem in contents.problems]
    assert causes.count("the member's path leaves its folder") == 3
    assert causes.count("the member is a link, a device or another special file") == 4
    assert causes.count("the member's name is not KEY.KIND") == 2
    assert causes.count("the member is there twice") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tar"]


def test_a_cut_tar_keeps_what_came_before(make_shards):
    folder = make_shards(num_samples=4, num_frames=1, kind="png")
    shard = next(folder.glob("*.tar"))
    whole = scan_shard(shard)
    last = whole.members[2]["png"]
    shard.write_bytes(shard.read_bytes()[: last.offset + last.size // 2])
    reader = ShardReader(str(folder))
    assert [reader[number].key for number in range(len(reader))] == whole.keys[:2]
    assert "the shard is cut inside this member" in reader.report.counts


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\x1f\x8b" + b"0" * 600], ids=["empty", "text", "gzip"])
def test_files_that_are_no_tar(tmp_path, content):
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises(ValueError, match="they hold no readable sample"):
        ShardReader(str(tmp_path))


def test_nothing_in_a_shard_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    _tar(tmp_path / "s.tar", ("a.pyd", pickle.dumps(Evil())), ("a.pkl", pickle.dumps(Evil())), ("a.json", b'{"caption": "x"}'))
    reader = ShardReader(str(tmp_path))
    assert reader[0].metadata == {"caption": "x"} and not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "the json cannot be read"), (b"[1]", "it is a list"), (b'{"schema": 99}', "version 99, this program reads up to 1")],
)
def test_json_that_cannot_be_used(tmp_path, content, message):
    _tar(tmp_path / "s.tar", ("a.json", content))
    with pytest.raises(SampleError, match=message):
        _ = ShardReader(str(tmp_path))[0].metadata


def test_the_writers_json_survives(tmp_path):
    record = {"caption": "Zwölf „Boxkämpfer“ 🥊", "scores": {"aesthetic": 4.5}}
    with ShardWriter(tmp_path) as writer:
        writer.write("deep/key", {"json": record})
    assert ShardReader(str(tmp_path))[0].metadata == {"schema": 1, "key": "deep/key", **record}
    assert json.loads(ShardReader(str(tmp_path))[0]["json"])["key"] == "deep/key"
