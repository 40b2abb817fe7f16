"""Shards whose contents lie or are damaged: bad samples, told by their cause, and never the end of a run."""

import io
import json
import struct
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from moviegen_data.audio_data import AudioData
from moviegen_data.buckets import Bucket
from moviegen_data.caption_data import CaptionData
from moviegen_data.contents import scan_shard
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.image import open_picture
from moviegen_data.reader import ShardReader
from moviegen_data.shards import ShardWriter, safetensors_header
from moviegen_data.tensors import latent_bytes, text_bytes


@pytest.mark.parametrize("form", ["png", "jpeg", "mpo", "webp", "gif", "bmp"])
def test_every_form_of_picture(form):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 8), (250, 100, 10)).save(buffer, form)
    assert np.abs(np.asarray(open_picture(buffer.getvalue())).reshape(-1, 3).mean(0) - [250, 100, 10]).max() < 10


def _shard(folder, parts):
    with ShardWriter(folder) as writer:
        for number, some in enumerate(parts):
            writer.write(f"k{number}", some)
    return str(folder)


GOOD = latent_bytes(torch.ones(2, 1, 2, 2))


def latent_with(**changes):
    """A packed latent with a header that lies."""
    header, begin = safetensors_header(GOOD)
    header["latent"] |= changes.pop("latent", {})
    text = json.dumps(header | changes).encode()
    return struct.pack("<Q", len(text)) + text + GOOD[begin:]


@pytest.mark.parametrize(
    "latent",
    [
        latent_with(latent={"shape": [-2, -1, 2, 2]}),
        latent_with(latent={"shape": [2, 1.0, 2, 2]}),
        latent_with(latent={"shape": [2, 0, 2, 2]}),
        latent_with(latent={"shape": ["2", 1, 2, 2]}),
        latent_with(latent={"shape": [1 << 40, 1 << 40, 1, 1]}),
        latent_with(latent={"shape": 7}),
        latent_with(latent={"data_offsets": [-64, 0]}),
        latent_with(latent={"data_offsets": [1 << 62, 0]}),
        latent_with(latent={"dtype": "X8"}),
        struct.pack("<Q", 1 << 62) + b"{",
        struct.pack("<Q", 3000) + b"[" * 3000,
        struct.pack("<Q", 2) + b"[]" + bytes(64),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_latents_whose_headers_lie_are_bad_samples(tmp_path, latent, num_workers):
    folder = _shard(tmp_path, [{"json": {}, "latent.safetensors": part} for part in (GOOD, GOOD, GOOD)])
    index = json.loads((tmp_path / "shard.index.json").read_text())
    _rewrite(tmp_path, [{"json": {}, "latent.safetensors": part} for part in (GOOD, latent, GOOD)], index)
    data = ShardData(urls=folder, latents=True, batch_size=3, num_workers=num_workers)
    batches = [batch.keys for batch in data.predict_dataloader()]
    assert batches == [["k0", "k2"]] and len(data.skipped) == 1


@pytest.mark.parametrize("shape", [[2, 0, 2, 2], [2, 2, 2], [8], []])
def test_latents_that_are_none_end_no_run_where_shapes_are_read_from_them(tmp_path, shape):
    folder = _shard(tmp_path, [{"json": {}, "latent.safetensors": part} for part in (GOOD, latent_with(latent={"shape": shape}), GOOD)])
    data = ShardData(urls=folder, latents=True, batch_size=2)
    assert [batch.keys for batch in data.predict_dataloader()] == [["k0", "k2"]]
    assert "the latent cannot be read" in data.skipped.summary()


def _rewrite(folder, parts, index):
    """Put other parts into the shard, and leave the shapes in the index: what a damaged disk or a hostile hand does."""
    with tarfile.open(folder / "shard-000000.tar", "w") as tar:
        for number, some in enumerate(parts):
            for kind, content in some.items():
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                member = tarfile.TarInfo(f"k{number}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    index["shards"][0]["num_bytes"] = (folder / "shard-000000.tar").stat().st_size
    (folder / "shard.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "record",
    [
        b"[" * 100_000, b'{"encoded": 5}', b'{"encoded": [1]}', b'{"fps": 1' + b"0" * 400 + b"}", b'{"duration_s": 1e999}',
        b'{"caption": ["x"], "fps": "fast", "encoded": {"fps": [], "frames": "many", "height": {}}}',
    ],
)  # fmt: skip
def test_json_that_lies_ends_no_run(tmp_path, record):
    folder = _shard(tmp_path, [{"json": {"caption": "x"}, "latent.safetensors": GOOD}, {"json": record, "latent.safetensors": GOOD}])
    data = ShardData(urls=folder, latents=True, batch_size=2, fps_prefix=True)
    (batch,) = data.train_dataloader()
    assert batch.keys[0] == "k0" or "k0" in batch.keys
    (captions,) = CaptionData(urls=folder, fps_prefix=True).predict_dataloader()
    assert "k0" in captions.keys


@pytest.mark.parametrize("size", [0.5, 1e308, -1, 10**400, "16", True, [16]])
@pytest.mark.parametrize("name", ["height", "width"])
def test_sizes_that_cannot_be_are_not_believed(tmp_path, name, size):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "png")
    folder = _shard(tmp_path, [{"json": {"height": 16, "width": 16, name: size}, "png": buffer.getvalue()}])
    buckets = [Bucket(num_frames=1, height=8, width=8), Bucket(num_frames=1, height=8, width=64)]
    (batch,) = ShardData(urls=folder, buckets=buckets, batch_size=1).train_dataloader()
    assert batch.video.shape == (1, 3, 1, 8, 8)


@pytest.mark.parametrize("duration_s", [1e308, 1e5, 3.0])
def test_sounds_that_are_shorter_than_their_json_says_are_heard(tmp_path, media_maker, duration_s):
    wave = np.sin(np.arange(16000) / 9.0)[None]
    folder = _shard(tmp_path, [{"json": {"duration_s": duration_s}, "wav": media_maker.encode_sound(wave, 8000)}] * 8)
    loader = AudioData(urls=folder, durations=[1.0], audio_hz=8000, batch_size=8).train_dataloader()
    (batch,) = loader
    assert bool((batch.audio.square().mean(-1) > 0.0).all()), "silence would be learnt"


@pytest.mark.parametrize(
    ("tokens", "mask", "cause"),
    [
        (torch.full((2, 4), float("nan")), torch.ones(2), "hold NaN or infinite values"),
        (torch.full((2, 4), float("inf")).bfloat16(), torch.ones(2), "hold NaN or infinite values"),
        (torch.ones(2), torch.ones(2), "cannot be read"),
        (torch.ones(2, 4), torch.ones(3), "cannot be read"),
        (torch.ones(0, 4), torch.ones(0), "cannot be read"),
        (torch.ones(2, 4, dtype=torch.int64), torch.ones(2), "cannot be read"),
    ],
)
def test_text_embeddings_that_cannot_be_are_bad_samples(tmp_path, tokens, mask, cause):
    good = text_bytes({"t5": (torch.ones(2, 4), torch.ones(2))})
    texts = [good, save({"t5.tokens": tokens, "t5.mask": mask}), good]
    folder = _shard(tmp_path, [{"json": {}, "latent.safetensors": GOOD, "text.safetensors": text} for text in texts])
    data = ShardData(urls=folder, latents=True, text=True, batch_size=3)
    assert [batch.keys for batch in data.predict_dataloader()] == [["k0", "k2"]]
    assert list(data.skipped.counts) == [f"the text embeddings {cause}"]


def test_text_embeddings_of_two_widths_end_the_run_with_a_word(tmp_path):
    texts = [text_bytes({"t5": (torch.ones(2, width), torch.ones(2))}) for width in (4, 5)]
    folder = _shard(tmp_path, [{"json": {}, "latent.safetensors": GOOD, "text.safetensors": text} for text in texts])
    with pytest.raises(SourceError, match=r"text embeddings 't5' of widths \[4, 5\] were drawn for one batch; .*; embed the captions"):
        list(ShardData(urls=folder, latents=True, text=True, batch_size=2).predict_dataloader())


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, b"Z"])
@pytest.mark.parametrize("size", [1 << 39, 1 << 45, 1 << 62, (1 << 63) - 1, 1 << 70])
def test_members_that_claim_more_than_any_disk_holds(tmp_path, kind, size):
    _shard(tmp_path, [{"json": {"caption": "x"}}, {"json": {"caption": "y"}}])
    path = tmp_path / "shard-000000.tar"
    content = bytearray(path.read_bytes())
    content[1024 + 124 : 1024 + 136] = b"\x80" + size.to_bytes(11, "big")
    content[1024 + 156 : 1024 + 157] = kind
    content[1024 + 148 : 1024 + 156] = b" " * 8
    content[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(content[1024:1536])
    path.write_bytes(content)
    assert scan_shard(path).keys == ["k0"] and "the shard cannot be read to its end" in _scanned(path)


def test_headers_that_tar_cannot_mean(tmp_path):
    _shard(tmp_path, [{"json": {"caption": "x"}}, {"json": {"caption": "y"}}])
    path = tmp_path / "shard-000000.tar"
    content = bytearray(path.read_bytes())
    content[1024 + 124 : 1024 + 136] = b"\xff" * 12  # a size below zero, in base 256
    content[1024 + 148 : 1024 + 156] = b" " * 8
    content[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(content[1024:1536])
    path.write_bytes(content)
    reader = ShardReader(str(path))
    assert reader[0].key == "k0" and "the shard cannot be read to its end" in {**reader.report.counts, **_scanned(path)}
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("a.json", "é.json"):
            tar.addfile(tarfile.TarInfo(name))
    contents = scan_shard(other)
    assert contents.keys == ["a"] and [problem.cause for problem in contents.problems] == ["the member's name is no UTF-8"]


def _scanned(path):
    return {problem.cause: 1 for problem in scan_shard(path).problems}
