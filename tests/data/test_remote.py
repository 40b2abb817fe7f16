"""Shards by URL: the same samples as from files, by ranges, with and without an index, and what goes wrong on the way."""

import gc
import pickle
import re
import threading
import tracemalloc
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import fsspec
import pytest
import torch

from moviegen_data import storage
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SampleError, SourceError
from moviegen_data.inspect import inspect
from moviegen_data.reader import ShardReader, resolve_shards
from moviegen_data.shards import ShardWriter
from moviegen_data.urls import shown


@pytest.fixture
def shards(make_shards):
    return make_shards(num_samples=12, max_samples=5)


@pytest.fixture
def in_memory(shards):
    """The shards in fsspec's memory, and a list of the ranges that are read of them."""
    fs = fsspec.filesystem("memory")
    fs.rm("/bucket", recursive=True) if fs.exists("/bucket") else None
    fs.put(str(shards), "/bucket/shards", recursive=True)
    yield "memory://bucket/shards"
    fs.rm("/bucket", recursive=True)


@pytest.fixture
def reads(monkeypatch):
    """What is asked of fsspec's memory."""
    from fsspec.implementations.memory import MemoryFileSystem

    asked, cat_file, opened = [], MemoryFileSystem.cat_file, MemoryFileSystem._open

    def noted(fs, path, start=None, end=None, **options):
        asked.append((path.rpartition("/")[2], start, end))
        return cat_file(fs, path, start=start, end=end, **options)

    def noted_open(fs, path, mode="rb", **options):
        asked.append((path.rpartition("/")[2], "open", mode))
        return opened(fs, path, mode=mode, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", noted)
    monkeypatch.setattr(MemoryFileSystem, "_open", noted_open)
    return asked


@pytest.fixture
def served(shards):
    """The shards behind a web server that answers ranges."""
    requests = []

    class Ranges(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(shards.parent))

        def do_GET(self):
            requests.append((self.path, self.headers.get("Range")))
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            path, _, query = self.path.partition("?")
            file = shards.parent / path.lstrip("/")
            if self.server.signature and unquote(query) != unquote(self.server.signature):
                return self.send_error(403)
            if not wanted or not file.is_file() or self.server.ignores_ranges:
                return super().do_GET()
            content = file.read_bytes()
            part = content[int(wanted[1]) : int(wanted[2]) + 1 if wanted[2] else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *arguments):
            pass

    pytest.importorskip("aiohttp", reason="fsspec reads http through it")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    server.ignores_ranges, server.signature = False, ""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/shards", requests, server
    server.shutdown()
    server.server_close()
    thread.join()


def _batches(urls, **settings):
    settings = {"num_frames": 4, "height": 16, "width": 16, "fps": 8.0, "batch_size": 4, **settings}
    return list(ShardData(urls=urls, **settings).train_dataloader())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_those_of_the_files(shards, in_memory, num_workers):
    here, there = _batches(str(shards)), _batches(in_memory, num_workers=num_workers)
    assert [batch.keys for batch in here] == [batch.keys for batch in there]
    assert all(torch.equal(one.video, other.video) for one, other in zip(here, there, strict=True))


def test_addresses(in_memory):
    names = [f"{in_memory}/shard-{number:06d}.tar" for number in range(3)]
    for url in (in_memory, f"{in_memory}/*.tar", f"{in_memory}/shard-{{000000..000002}}.tar", names):
        found = resolve_shards(url)
        assert [path.name for path in found] == [name.rpartition("/")[2] for name in names]
        assert all(path.size() > 10_000 for path in found)
    with pytest.raises(ValueError, match=r"no \*.tar is listed there"):
        resolve_shards("memory://bucket/empty")


def test_the_index_spares_the_headers(in_memory, reads):
    reader = ShardReader(in_memory)
    assert len(reader) == 12 and {name for name, _, _ in reads} == {"shard.index.json"}
    reads.clear()
    sample = reader[7]
    assert sample.key == "shards-0007" and reads == []
    content = sample["mp4"]
    ((name, start, end),) = reads
    assert name == "shard-000001.tar" and end - start == len(content) == sample.size("mp4")


def test_without_an_index_headers_are_read(in_memory, reads):
    fsspec.filesystem("memory").rm("/bucket/shards/shard.index.json")
    reader = ShardReader(in_memory)
    assert reader.counts == [5, 5, 2] and reader[11].metadata["caption"] == "clip 11"
    assert ("shard-000002.tar", "open", "rb") in reads


def test_an_index_of_other_shards_is_found_out(in_memory):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/shards/shard-000001.tar", fs.cat_file("/bucket/shards/shard-000001.tar") + bytes(512))
    reader = ShardReader(in_memory)
    assert reader[0].key == "shards-0000"
    with pytest.raises(SampleError, match="the shard is not the one that its index speaks of"):
        reader[5]
    data = ShardData(urls=in_memory, num_frames=4, height=16, width=16, fps=8.0, batch_size=4)
    assert len({key for batch in data.train_dataloader() for key in batch.keys}) == 7
    assert data.skipped.counts == {"the shard is not the one that its index speaks of": 5}


@pytest.mark.parametrize(
    "members", [[["../../evil", {"mp4": [0, 10]}]], [["a", {"mp4": [0, 1 << 40]}]], [["a", {"mp4": [-5, 10]}]], 7, [[]]]
)
def test_an_index_that_lies_is_not_believed(in_memory, members):
    import json

    fs = fsspec.filesystem("memory")
    index = json.loads(fs.cat_file("/bucket/shards/shard.index.json"))
    index["shards"][0]["members"] = members
    fs.pipe_file("/bucket/shards/shard.index.json", json.dumps(index).encode())
    assert ShardReader(in_memory)[3].key == "shards-0003"


def test_a_shard_that_is_gone_makes_bad_samples(in_memory):
    fsspec.filesystem("memory").rm("/bucket/shards/shard-000002.tar")
    data = ShardData(urls=f"{in_memory}/shard-{{000000..000002}}.tar", num_frames=4, height=16, width=16, fps=8.0, batch_size=4)
    assert len({key for batch in data.train_dataloader() for key in batch.keys}) == 10
    assert data.skipped.counts == {"cannot be fetched": 2}
    with pytest.raises(ValueError, match="nothing-000000.tar was given; cannot be fetched.*; correct the address"):
        ShardReader(f"{in_memory}/nothing-000000.tar")


def test_a_store_that_fails_is_asked_again(in_memory, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    failures, cat_file = [3], MemoryFileSystem.cat_file

    def failing(fs, path, **options):
        if failures[0]:
            failures[0] -= 1
            raise ConnectionError("try later")
        return cat_file(fs, path, **options)

    reader = ShardReader(in_memory)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", failing)
    assert reader[0].metadata["caption"] == "clip 0" and not failures[0]
    failures[0] = 99
    with pytest.raises(SourceError, match=r"did not answer in 5 attempts \(ConnectionError: try later\).*from its last checkpoint"):
        _ = reader[1].metadata


def test_over_http_with_ranges(shards, served):
    url, requests, server = served
    names = f"{url}/shard-{{000000..000002}}.tar"
    here, there = _batches(str(shards)), _batches(names)
    assert all(torch.equal(one.video, other.video) for one, other in zip(here, there, strict=True))
    tars = [wanted for path, wanted in requests if path.endswith(".tar")]
    assert tars and all(tars), "only ranges are asked for"
    assert [path.name for path in resolve_shards(url + "/")] == [f"shard-{number:06d}.tar" for number in range(3)], "from the server's list"
    server.ignores_ranges = True
    with pytest.raises(SourceError, match="it takes no ranges"):
        _ = ShardReader(names)[0]["mp4"]


def test_inspecting_by_url(in_memory, capsys):
    answer = inspect(in_memory)
    assert answer["num_samples"] == 12 and answer["num_shards"] == 3 and not answer["bad"] and answer["num_bytes"] > 10_000


def test_a_protocol_whose_package_is_absent():
    fsspec.register_implementation("absent", "no_such_package.Absent", errtxt="Install no_such_package", clobber=True)
    with pytest.raises(
        ValueError, match=r"absent://b/a.tar was given; the package .* is not installed .*; pip install 'moviegen\[remote\]'"
    ):
        resolve_shards("absent://b/a.tar")


SECRET = "sig=SECRET%2Fwith/slashes&until=2099"


def test_signed_addresses(shards, served):
    """One signature for a whole folder, as stores give them: shards and index are found by it, and nobody is told it."""
    url, requests, server = served
    server.signature = SECRET
    signed = f"{url}/shard-{{000000..000002}}.tar?{SECRET}"
    here, there = _batches(str(shards)), _batches(signed)
    assert all(torch.equal(one.video, other.video) for one, other in zip(here, there, strict=True))
    assert any("index.json?" in path for path, _ in requests)
    found = resolve_shards(signed)
    assert [path.name for path in found] == [f"shard-{number:06d}.tar" for number in range(3)] and "SECRET" not in str(found[0])
    requests.clear()
    server.signature = "another"
    with pytest.raises(ValueError, match=r"shard-000000.tar\?\.\.\. was given; cannot be fetched.*403") as caught:
        ShardReader(signed)
    assert "SECRET" not in str(caught.value) and len(requests) < 9, "what is forbidden is not asked for again and again"
    assert "SECRET" not in str(caught.value.__cause__)


def test_an_index_behind_no_signature_of_its_own(shards, served, caplog):
    """Each shard with its own signature: the index cannot be had, and the headers are read."""
    url, _, server = served
    server.signature = SECRET
    (shards / "shard.index.json").rename(shards / "hidden")
    reader = ShardReader([f"{url}/shard-00000{number}.tar?{SECRET}" for number in range(3)])
    assert reader.counts == [5, 5, 2] and reader[11].metadata["caption"] == "clip 11"
    data = ShardData(urls=[f"{url}/shard-000000.tar?{SECRET}"], num_frames=40, height=8, width=8, fps=8.0)
    with pytest.raises(SourceError) as caught:
        list(data.train_dataloader())
    told = f"{caught.value} {data.skipped.summary()} {data.skipped.as_dict()} {caplog.text}"
    assert "too short" in told and "SECRET" not in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://KEY:SECRET@bucket/a.tar", "s3://bucket/a.tar"),
        ("ftp://user:p@ss:SECRET@host/a/b.tar", "ftp://host/a/b.tar"),
        ("simplecache::https://host/a.tar?token=SECRET", "simplecache::https://host/a.tar?..."),
        ("403, message='Forbidden', url='https://host/a.tar?token=SECRET'", "403, message='Forbidden', url='https://host/a.tar?...'"),
        ("['https://u:SECRET@h/a.tar?SECRET', 's3://b/c.tar']", "['https://h/a.tar?...', 's3://b/c.tar']"),
        ("s3://bucket/clip-?.tar", "s3://bucket/clip-?.tar"),
        ("/a path/with@sign?.tar", "/a path/with@sign?.tar"),
    ],
)
def test_what_of_an_address_is_told(text, expected):
    assert shown(text) == expected


def test_credentials_are_not_told(monkeypatch):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    for url in ("nowhere://user:SECRET@host/a.tar", "memory://user:SECRET@host/folder", "http://user:SECRET@127.0.0.1:9/a.tar?SECRET"):
        with pytest.raises(ValueError) as caught:
            ShardReader(url)
        assert "SECRET" not in str(caught.value) and ";" in str(caught.value)


def test_lists_keep_the_host(monkeypatch):
    """File systems of hosts call a file by its path alone."""

    class Host:
        def glob(self, pattern):
            return ["/data/b.tar", "/data/a.tar"] if pattern == "/data/*.tar" else []

        def unstrip_protocol(self, name):
            return f"sftp://{name}"

    monkeypatch.setattr(storage, "file_system", lambda url: (Host(), "/data"))
    assert [path.url for path in storage.list_remote("sftp://user:SECRET@host/data/")] == [
        "sftp://user:SECRET@host/data/a.tar", "sftp://user:SECRET@host/data/b.tar",
    ]  # fmt: skip


def test_braces_and_signs_together(in_memory):
    assert [path.name for path in resolve_shards(f"{in_memory}/shard-00000{{0,2}}*.tar")] == ["shard-000000.tar", "shard-000002.tar"]


def test_a_store_that_fails_while_headers_are_read_is_asked_again(in_memory, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    fsspec.filesystem("memory").rm("/bucket/shards/shard.index.json")
    failures, opened = [2], MemoryFileSystem._open

    class Failing:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def read(self, size=-1):
            if failures[0] and self.file.tell() > 2000:
                failures[0] -= 1
                raise ConnectionError("try later")
            return self.file.read(size)

    monkeypatch.setattr(MemoryFileSystem, "_open", lambda *arguments, **options: Failing(opened(*arguments, **options)))
    assert ShardReader(in_memory).counts == [5, 5, 2] and not failures[0]
    failures[0] = 99
    with pytest.raises(SourceError, match=r"did not answer in 5 attempts \(ConnectionError: try later\)"):
        ShardReader(in_memory)


def test_a_store_that_refuses_the_connection():
    class Refusing(fsspec.AbstractFileSystem):
        protocol = "refusing"

        def __init__(self, *arguments, **options):
            raise ConnectionRefusedError("530 Login incorrect for refusing://user:SECRET@host")

    fsspec.register_implementation("refusing", Refusing, clobber=True)
    with pytest.raises(SourceError, match=r"refusing://host/a.tar was asked for; its store cannot be reached .*530") as caught:
        ShardReader("refusing://user:SECRET@host/a.tar")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("remote", [False, True])
def test_an_index_takes_little_memory(tmp_path, remote):
    """What a reader keeps, and sends to every worker, of sets of millions of samples."""
    with ShardWriter(tmp_path / "many", max_samples=500) as writer:
        for number in range(2000):
            writer.write(f"key-{number:06d}", {"json": {}, "png": b"x"})
    url, fs = str(tmp_path / "many"), fsspec.filesystem("memory")
    if remote:
        fs.put(url, "/many", recursive=True)
        url = "memory://many"
    reader = ShardReader(url)
    assert (
        len(pickle.dumps(reader)) < (80 if remote else 5) * 2000
        and bytes_held_by(lambda: ShardReader(url)) < (110 if remote else 20) * 2000
    )
    assert reader[1999].key == "key-001999" and reader[1999]["png"] == b"x"
    if remote:
        fs.rm("/many", recursive=True)


def bytes_held_by(make):
    """Memory that what is made holds."""
    tracemalloc.start()
    made = make()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert made is not None
    return held
