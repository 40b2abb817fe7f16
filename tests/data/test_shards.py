"""Shards are whole or not there, and other WebDataset readers read them."""

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import webdataset

from moviegen_core.errors import UsageError
from moviegen_data.contents import indexed_contents, scan_shard
from moviegen_data.reader import ShardReader
from moviegen_data.shards import ShardWriter, shard_index_path
from moviegen_data.tensors import latent_bytes


def _write(folder, count, **settings):
    with ShardWriter(folder, **settings) as writer:
        _fill(writer, count)
    return writer


def _fill(writer, count):
    for number in range(count):
        writer.write(f"k{number:03d}", {"json": {"caption": f"text {number}"}, "mp4": bytes([number]) * 700})


def test_limits_and_index(tmp_path):
    _write(tmp_path, 7, max_samples=3)
    index = json.loads(shard_index_path(tmp_path).read_text())
    assert [shard["num_samples"] for shard in index["shards"]] == [3, 3, 1]
    assert index["num_samples"] == 7 and index["parts"] == {"json": 7, "mp4": 7}
    assert [(tmp_path / shard["file"]).stat().st_size for shard in index["shards"]] == [shard["num_bytes"] for shard in index["shards"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f"shard-{n:06d}.tar" for n in range(3)), "shard.index.json"]


def test_max_bytes_starts_a_new_shard(tmp_path):
    _write(tmp_path, 6, max_bytes=6000)
    contents = [scan_shard(path) for path in sorted(tmp_path.glob("*.tar"))]
    assert [len(shard.keys) for shard in contents] == [2, 2, 2]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves closing to the garbage collector
def test_webdataset_reads_what_we_write(tmp_path):
    _write(tmp_path, 5, max_samples=2)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode())
    assert [sample["__key__"] for sample in samples] == [f"k{number:03d}" for number in range(5)]
    assert samples[3]["json"] == {"schema": 1, "key": "k003", "caption": "text 3"}
    assert samples[3]["mp4"] == bytes([3]) * 700
    gc.collect()


def test_equal_samples_give_equal_bytes(tmp_path):
    _write(tmp_path / "a", 3), _write(tmp_path / "b", 3)
    assert (tmp_path / "a/shard-000000.tar").read_bytes() == (tmp_path / "b/shard-000000.tar").read_bytes()


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), ShardWriter(tmp_path / "s", max_samples=1) as writer:
        writer.write("a", {"json": {}})
        writer.write("b", {"json": {}})
        assert not list((tmp_path / "s").glob("*.tar"))
        raise RuntimeError("stop")
    assert list((tmp_path / "s").iterdir()) == []


def test_full_disk_is_told_and_leaves_no_half_shard(tmp_path, monkeypatch):
    _write(tmp_path / "old", 2)
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*args, **kwargs):
        raise full

    with pytest.raises(OSError, match="the disk is full") as caught, ShardWriter(tmp_path / "new", max_samples=2) as writer:
        writer.write("a", {"json": {}})
        monkeypatch.setattr(tarfile.TarFile, "addfile", refuse)
        writer.write("b", {"json": {}})
    assert caught.value.errno == errno.ENOSPC
    assert "free space or choose a folder on another disk" in str(caught.value) and str(tmp_path / "new") in str(caught.value)
    assert list((tmp_path / "new").iterdir()) == []


def test_full_disk_at_the_end(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="nothing half-written was left"), ShardWriter(tmp_path / "new") as writer:
        writer.write("a", {"json": {}})
        monkeypatch.setattr("moviegen_data.shards.os.fsync", refuse)
    assert list((tmp_path / "new").iterdir()) == []


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _failing_replace(into, first, last):
    """Renaming into or out of a folder, which fails from one time to another."""
    count, replace = [0], os.replace

    def failing(source, target):
        if into in (Path(source).parent, Path(target).parent):
            count[0] += 1
            if first <= count[0] <= last:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    return failing


@pytest.mark.parametrize("made_from", [None, "the same"])
@pytest.mark.parametrize("num_earlier", [0, 2, 5])
def test_a_renaming_that_fails_is_taken_back(num_earlier, made_from, tmp_path, monkeypatch):
    settings = {"max_samples": 2, "overwrite": num_earlier > 0, "made_from": made_from}
    _write(tmp_path / "whole", 6, **settings)
    failures = 0
    for number in range(1, 30):
        folder = tmp_path / str(number)
        folder.mkdir()
        if num_earlier:
            _write(folder, num_earlier, max_samples=1, made_from="others")
        before = _files(folder)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", _failing_replace(folder, number, number))
            try:
                _write(folder, 6, **settings)
            except OSError as error:
                assert error.errno == errno.EIO
                failures += 1
        if failures < number:
            break
        assert _files(folder) == before, f"renaming {number}"
        assert made_from is not None or not (folder / ".shard.partial").exists()
        if num_earlier:
            with pytest.raises(FileExistsError, match=f"already holds {num_earlier} "):
                ShardWriter(folder, **{**settings, "overwrite": False})
        with ShardWriter(folder, **settings) as again:
            assert again.complete == (made_from is not None), "what was whole needs only its names"
            if not again.complete:
                _fill(again, 6)
        assert _files(folder) == _files(tmp_path / "whole") and not (folder / ".shard.partial").exists()
    assert failures == 3 + 1 + (num_earlier and num_earlier + 1)


@pytest.mark.parametrize("num_earlier", [0, 5])
def test_a_renaming_that_cannot_be_taken_back_is_finished_by_the_next_run(num_earlier, tmp_path, monkeypatch):
    settings = {"max_samples": 2, "overwrite": num_earlier > 0, "made_from": "the same"}
    _write(tmp_path / "whole", 6, **settings)
    for number in range(1, 5 + (num_earlier and num_earlier + 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        if num_earlier:
            _write(folder, num_earlier, max_samples=1)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
            patch.setattr(os, "replace", _failing_replace(folder, number, 1000))
            _write(folder, 6, **settings)
        assert not shard_index_path(folder).exists() or number == 1 and num_earlier
        assert ShardWriter(folder, **settings).complete and _files(folder) == _files(tmp_path / "whole")


@pytest.mark.parametrize("made_from", [None, "the same"])
def test_shards_that_cannot_be_given_back_are_given_back_by_the_next_run(made_from, tmp_path, monkeypatch):
    """As where a folder may not be written to any more: what is in the hidden one then is the earlier set's only copy."""
    for number in range(1, 1 + 1 + 5 + 3 + 1):  # the index, its shards, the new ones, their index
        folder = tmp_path / str(number)
        _write(folder, 5, max_samples=1, made_from="others")
        before = _files(folder)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
            patch.setattr(os, "replace", _failing_replace(folder, number, 1000))
            _write(folder, 6, max_samples=2, overwrite=True, made_from=made_from)
        with pytest.raises(FileExistsError, match="already holds 5 "):
            ShardWriter(folder, made_from="something else")
        assert _files(folder) == before, f"renaming {number}"


def test_prefixes_that_begin_alike_do_not_meet(tmp_path):
    for prefix in ("a-0", "a-00-1"):
        _write(tmp_path, 3, prefix=prefix)
    before = _files(tmp_path)
    _write(tmp_path, 3, prefix="a")
    _write(tmp_path, 3, prefix="a", overwrite=True)
    assert before.items() <= _files(tmp_path).items()


def _killed_at(call):
    """In this process's child: dies before the renaming of that number."""
    replace, count = os.replace, iter(range(1, 1000))

    def dying(source, target):
        if next(count) == call:
            os._exit(9)
        replace(source, target)

    return dying


@pytest.mark.parametrize("num_earlier", [0, 2, 5])
def test_a_process_killed_while_it_renames_leaves_the_earlier_set_to_the_next_run(num_earlier, tmp_path):
    """A set of which nothing says what it is made of, as `pack` writes; and once more, killed while the next run takes names back."""
    _write(tmp_path / "earlier", num_earlier, max_samples=1) if num_earlier else (tmp_path / "earlier").mkdir()
    killed = 0
    for call in range(1, 100):
        folder = tmp_path / str(call)
        shutil.copytree(tmp_path / "earlier", folder)
        code = os.waitstatus_to_exitcode(os.waitpid(_run_killed(folder, call), 0)[1])
        if code == 0:
            break
        killed += 1
        if call % 2:
            os.waitpid(_run_killed(folder, 2), 0)
        if num_earlier:
            with pytest.raises(FileExistsError, match=f"already holds {num_earlier} "):
                ShardWriter(folder)
        else:
            ShardWriter(folder).abort()
        assert _files(folder) == _files(tmp_path / "earlier")
    assert code == 0 and killed == 1 + 3 + 1 + (num_earlier and num_earlier + 1)


def _run_killed(folder, call):
    child = os.fork()
    if not child:
        try:
            os.replace = _killed_at(call)
            _write(folder, 6, max_samples=2, overwrite=True)
        finally:
            os._exit(0)
    return child


def test_a_second_run_refuses_or_overwrites(tmp_path):
    _write(tmp_path, 5, max_samples=1)
    with pytest.raises(FileExistsError, match=r"already holds 5 .* overwrite=True"):
        ShardWriter(tmp_path)
    _write(tmp_path, 5, prefix="other")
    _write(tmp_path, 2, max_samples=1, overwrite=True)
    assert sorted(path.name for path in tmp_path.glob("shard-*")) == ["shard-000000.tar", "shard-000001.tar"]
    assert (tmp_path / "other-000000.tar").is_file()


def test_the_earlier_set_stays_until_the_new_one_is_whole(tmp_path):
    _write(tmp_path, 3, max_samples=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="interrupted"), ShardWriter(tmp_path, overwrite=True) as writer:
        writer.write("other", {"json": {}})
        raise RuntimeError("interrupted")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".shard.partial").mkdir()
    (tmp_path / ".shard.partial/shard-000000.tar").write_bytes(b"half")
    _write(tmp_path, 2)
    assert not (tmp_path / ".shard.partial").exists()


@pytest.mark.parametrize("key", ["", "a.b", "../a", "/a", "a//b", "a/..", "x" * 91])
def test_keys_that_cannot_be(tmp_path, key):
    with pytest.raises(ValueError, match="was given; a key is .*; try"), ShardWriter(tmp_path) as writer:
        writer.write(key, {"json": {}})


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="cannot be made or written to"):
        ShardWriter(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_keys_are_unique(tmp_path):
    with pytest.raises(ValueError, match="'a' was given twice"), ShardWriter(tmp_path) as writer:
        writer.write("a", {"json": {}})
        writer.write("a", {"json": {}})


def test_the_index_tells_latent_shapes(tmp_path):
    with ShardWriter(tmp_path, max_samples=2) as writer:
        for number, frames in enumerate((2, 2, 1)):
            latent = torch.zeros(4, frames, 3, 3, dtype=torch.float16)
            writer.write(f"k{number}", {"json": {}, "latent.safetensors": latent_bytes(latent)})
    shards = json.loads(shard_index_path(tmp_path).read_text())["shards"]
    assert [shard["latent_shapes"] for shard in shards] == [[[4, 2, 3, 3]], [[4, 1, 3, 3]]]


def test_long_keys_hold_every_kind_of_part(tmp_path):
    keys = ["k" * 90, "雪" * 30, "folder/" + "x" * 83]
    with ShardWriter(tmp_path) as writer:
        for number, key in enumerate(keys):
            latent = latent_bytes(torch.full((1, 1, 2, 2), float(number)))
            writer.write(key, {"json": {"caption": key}, "latent.safetensors": latent, "visual.safetensors": b"features"})
    reader = ShardReader(str(tmp_path))
    assert [reader[number].key for number in range(3)] == keys
    entry = json.loads(shard_index_path(tmp_path).read_text())["shards"][0]
    assert indexed_contents(entry) == scan_shard(tmp_path / "shard-000000.tar"), "the index tells the same places as the headers"
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        assert tar.getnames()[1] == f"{keys[0]}.latent.safetensors"


def test_a_key_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="was given; a key is"), ShardWriter(tmp_path) as writer:
        writer.write("a\udcff", {"json": {}})


WRITING = """
import sys, time
from moviegen_data.shards import ShardWriter
writer = ShardWriter(sys.argv[1], made_from="the same")
writer.write("theirs", {"json": {}})
print("writing", flush=True)
time.sleep(60)
"""


def test_two_writers_of_one_set_do_not_meet(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "writing\n"
        for settings in ({}, {"overwrite": True}, {"made_from": "the same"}):
            with pytest.raises(UsageError, match=r"shard-\*.tar were to be written; another process is writing them; wait for it"):
                ShardWriter(tmp_path, **settings)
        with ShardWriter(tmp_path, prefix="ours") as writer:
            writer.write("ours", {"json": {}})
    finally:
        other.kill()
        other.communicate()
    with ShardWriter(tmp_path) as writer:  # a killed one lets go
        writer.write("ours", {"json": {}})
    assert ShardReader(str(tmp_path / "shard-000000.tar"))[0].key == "ours"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ours-000000.tar", "ours.index.json", "shard-000000.tar", "shard.index.json",
    ]  # fmt: skip


def test_a_folder_that_is_gone_ends_the_run(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    with pytest.raises(UsageError, match=r"out/.shard.partial is gone as soon as it is made; see whether the folder that you are in"):
        ShardWriter("out")


def test_notes_on_a_set_grow_by_what_is_new(tmp_path):
    writer = ShardWriter(tmp_path, max_samples=1, made_from="the same")
    sizes = []
    for number in range(12):
        writer.write(f"k{number:04d}", {"json": {}})
        sizes.append((tmp_path / ".shard.partial/notes.jsonl").stat().st_size)
    steps = {after - before for before, after in zip(sizes[1:], sizes[2:])}
    assert max(steps) - min(steps) < 10, "and are not written anew for every shard"
    writer.abort()
    notes = tmp_path / ".shard.partial/notes.jsonl"
    notes.write_bytes(notes.read_bytes()[:-5])  # a line that was cut
    (tmp_path / ".shard.partial/shard-000003.tar").unlink()
    with ShardWriter(tmp_path, max_samples=1, made_from="the same") as again:
        assert again.written == {"k0000", "k0001", "k0002"}, "what comes before the first that is not whole"
        for number in range(3, 12):
            again.write(f"k{number:04d}", {"json": {}})
    assert [ShardReader(str(tmp_path))[number].key for number in range(12)] == [f"k{number:04d}" for number in range(12)]
