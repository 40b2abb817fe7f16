"""From shards to batches of latents and texts."""

import json
import struct
import tarfile

import pytest
import torch
from loading import latent_shards

from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SourceError
from moviegen_data.shards import ShardWriter, shard_index_path
from moviegen_data.tensors import latent_bytes, read_latent, read_text, text_bytes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_latents_and_texts(tmp_path, dtype):
    latents = latent_shards(tmp_path, [(4, 2, 3, 3)] * 6, dtype=dtype)
    data = ShardData(urls=str(tmp_path), latents=True, text=True, fps_prefix=True, batch_size=3, shuffle=False)
    batch = next(iter(data.train_dataloader()))
    assert batch.video is None and batch.latents.dtype == dtype
    assert torch.equal(batch.latents, torch.stack(latents[:3]))
    assert batch.captions[0] == "FPS-8 x" and batch.fps.tolist() == [8.0] * 3
    assert batch.metadata[0]["latent"] == {"encoder": "abc"}
    assert batch.text["t5"].tokens.shape == (3, 3, 5) and batch.text["t5"].mask.sum(1).tolist() == [1, 2, 3]
    assert batch.text["t5"].tokens[1].tolist() == [[1.0] * 5] * 2 + [[0.0] * 5]


def test_latents_of_several_shapes_make_batches_of_one(tmp_path):
    latent_shards(tmp_path, [(4, 2, 3, 3), (4, 1, 3, 3)] * 4)
    shapes = [tuple(batch.latents.shape) for batch in ShardData(urls=str(tmp_path), latents=True, batch_size=2).train_dataloader()]
    assert sorted(shapes) == [(2, 4, 1, 3, 3)] * 2 + [(2, 4, 2, 3, 3)] * 2


def test_bad_latents(tmp_path):
    latent_shards(tmp_path, [(4, 2, 3, 3)] * 4, nan=(1,))
    data = ShardData(urls=str(tmp_path), latents=True, batch_size=4)
    (batch,) = data.train_dataloader()
    assert batch.latents.isfinite().all() and data.skipped.counts == {"the latent holds NaN or infinite values": 1}
    with pytest.raises(SourceError, match="latent of a clip of another size: height 24, not 64"):
        list(ShardData(urls=str(tmp_path), latents=True, height=64).train_dataloader())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_infinite_value_passes(dtype, value):
    latent = torch.full((2, 1, 3, 3), torch.finfo(dtype).max, dtype=dtype)
    latent[0] = torch.finfo(dtype).min
    assert torch.equal(read_latent(latent_bytes(latent)), latent)
    latent[1, 0, 2, 1] = value
    with pytest.raises(Exception, match="NaN or infinite"):
        read_latent(latent_bytes(latent))


def test_broken_tensors():
    whole = latent_bytes(torch.zeros(2, 1, 2, 2))
    for data in (b"", whole[:20], whole[:-4], b"\xff" * 64, latent_bytes(torch.zeros(1, 1, 1, 1))[:40]):
        with pytest.raises(Exception, match="the latent cannot be read"):
            read_latent(data)
    with pytest.raises(Exception, match="the text embeddings cannot be read"):
        read_text(b"\xff" * 64)
    with pytest.raises(ValueError, match="pass one sample of the batch"):
        latent_bytes(torch.zeros(1, 2, 1, 2, 2))


@pytest.mark.parametrize(
    ("parts", "settings", "error", "told"),
    [
        ({"text.safetensors": None}, {"text": True}, SourceError, "no text embeddings.*; write them with .* TextShardWriter, or leave"),
        ({"latent.safetensors": None}, {}, UsageError, "no cached latent.*; give shards that LatentShardWriter has written, or leave"),
        ({}, {"height": 64}, SourceError, "another size.*; give the sizes that the latents were made with"),
        ({"json": {"caption": ""}}, {"require_caption": True}, SourceError, "no caption.*; caption the samples, or leave"),
        ({"latent.safetensors": latent_bytes(torch.full((4, 2, 3, 3), torch.nan))}, {}, SourceError, "NaN.*; correct the shards"),
    ],
)
def test_the_advice_fits_what_the_samples_lack(tmp_path, parts, settings, error, told):
    whole = {
        "json": {"caption": "x", "encoded": {"height": 24}},
        "latent.safetensors": latent_bytes(torch.zeros(4, 2, 3, 3)),
        "text.safetensors": text_bytes({"t5": (torch.zeros(1, 5), torch.ones(1, dtype=torch.bool))}),
    }
    with ShardWriter(tmp_path) as writer:
        for number in range(3):
            writer.write(f"k{number}", {name: part for name, part in {**whole, **parts}.items() if part is not None})
    with pytest.raises(error, match=rf"(?s){told}"):
        list(ShardData(urls=str(tmp_path), latents=True, **settings).train_dataloader())


def test_latents_of_repeated_samples_are_cached_once(tmp_path):
    from moviegen_data.latents import LatentShardWriter

    writer = LatentShardWriter(output=str(tmp_path))
    writer._writer = ShardWriter(tmp_path)
    batch = MediaBatch(captions=["x"] * 3, keys=["k", "l", "k"], latents=torch.zeros(3, 1, 1, 2, 2), metadata=[{}, {}, {"repeated": True}])
    writer.write_on_batch_end(None, None, batch, None, batch, 0, 0)
    assert writer._writer.num_samples == 2
    writer._writer.close()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_latents_around_bad_ones_keep_their_values(tmp_path, num_workers):
    latents = latent_shards(tmp_path, [(4, 2, 3, 3)] * 8, nan=(0, 2, 7))
    data = ShardData(urls=str(tmp_path), latents=True, batch_size=4, num_workers=num_workers)
    loaders = (data.predict_dataloader(), data.train_dataloader())
    for batch in (batch for loader in loaders for batch in loader):
        for key, latent in zip(batch.keys, batch.latents, strict=True):
            assert torch.equal(latent, latents[int(key[1:])])
    assert data.skipped.counts == {"the latent holds NaN or infinite values": 3}


def test_a_batch_that_is_kept_is_not_written_over(tmp_path):
    latents = latent_shards(tmp_path, [(4, 2, 3, 3)] * 12)
    kept = list(ShardData(urls=str(tmp_path), latents=True, batch_size=2, shuffle=False).train_dataloader())
    assert torch.equal(torch.cat([batch.latents for batch in kept]), torch.stack(latents))


def test_latents_of_two_precisions_and_long_headers(tmp_path):
    with ShardWriter(tmp_path) as writer:
        for number, (dtype, text) in enumerate([(torch.float16, "x"), (torch.float32, "x"), (torch.float32, "y" * 6000)]):
            latent = torch.full((2, 1, 2, 2), float(number), dtype=dtype)
            writer.write(f"k{number}", {"json": {}, "latent.safetensors": latent_bytes(latent, {"encoder": text})})
    (batch,) = ShardData(urls=str(tmp_path), latents=True, batch_size=3, shuffle=False).train_dataloader()
    assert batch.latents.flatten(1).float().mean(1).tolist() == [0.0, 1.0, 2.0]
    assert [len(record["latent"]["encoder"]) for record in batch.metadata] == [1, 1, 6000]


def test_texts_of_two_precisions_keep_their_values(tmp_path):
    tokens = [torch.ones(2, 3, dtype=torch.float16), torch.full((1, 3), 1e6), torch.full((2, 3), 2.0, dtype=torch.bfloat16)]
    with ShardWriter(tmp_path) as writer:
        for number, some in enumerate(tokens):
            text = text_bytes({"t5": (some, torch.ones(len(some), dtype=torch.bool))})
            writer.write(f"k{number}", {"json": {}, "latent.safetensors": latent_bytes(torch.ones(2, 1, 2, 2)), "text.safetensors": text})
    (batch,) = ShardData(urls=str(tmp_path), latents=True, text=True, batch_size=3, shuffle=False).train_dataloader()
    assert batch.text["t5"].tokens[:, 0, 0].tolist() == [1.0, 1e6, 2.0], "as half, a million is infinite"


def test_no_memory_is_taken_for_a_latent_that_is_too_large(tmp_path):
    num_bytes = 1 << 42
    told = {"latent": {"dtype": "F32", "shape": [1 << 20, 1 << 10, 1 << 5, 1 << 5], "data_offsets": [0, num_bytes]}}
    head = json.dumps(told).encode()
    head = struct.pack("<Q", len(head)) + head
    good = latent_bytes(torch.ones(2, 1, 2, 2))
    with open(tmp_path / "a.tar", "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for name, data, size in (("a.latent.safetensors", good, len(good)), ("b.latent.safetensors", head, len(head) + num_bytes)):
            member = tarfile.TarInfo(name)
            member.size = size
            file.write(member.tobuf() + data)
            file.seek(-(-(file.tell() + size - len(data)) // 512) * 512)
        tar.offset = file.tell()
    assert (tmp_path / "a.tar").stat().st_blocks < 1000, "a hole has no blocks"
    data = ShardData(urls=str(tmp_path), latents=True, batch_size=2, shuffle=False)
    (batch,) = data.train_dataloader()
    assert batch.keys == ["a", "a"] and "too large" in str(data.skipped)


@pytest.mark.parametrize("shapes", [7, [7], [[4, -2, 3, 3]], [["4", 2, 3, 3]], [[4, 2, 3]], [[]], [[4, 2, 3, True]]])
def test_shapes_in_an_index_that_cannot_be_are_not_believed(tmp_path, shapes):
    latent_shards(tmp_path, [(4, 2, 3, 3)] * 3)
    index = json.loads(shard_index_path(tmp_path).read_text())
    index["shards"][0]["latent_shapes"] = shapes
    shard_index_path(tmp_path).write_text(json.dumps(index))
    (batch,) = ShardData(urls=str(tmp_path), latents=True, batch_size=3).train_dataloader()
    assert batch.latents.shape == (3, 4, 2, 3, 3)
