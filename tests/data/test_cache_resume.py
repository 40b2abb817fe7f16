"""Caches whose making is interrupted, again and again: they go on, and end with the bytes of one that was not."""

import gc
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from cache_lives import Pooling, cache, cache_texts

from moviegen_core.errors import UsageError
from moviegen_data import latents as latents_module
from moviegen_data.datamodule import ShardData
from moviegen_data.reader import ShardReader
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_header

HERE = Path(__file__).parent


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def lives(shards, output, *kill_after, ranks=1, kind="latents"):
    """Run lives, killed after so many batches (0 for none); return the exit codes of each."""
    paths = [HERE, HERE.parents[1], HERE.parents[1] / "plugins", HERE.parents[1] / "data"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(HERE / "cache_lives.py"), kind, str(shards), str(output), str(ranks), *map(str, kill_after)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=560, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def shards(make_shards):
    return str(make_shards(num_samples=23, max_samples=10, num_frames=6))


@pytest.mark.parametrize("kind", ["latents", "texts"])
@pytest.mark.parametrize("num_kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_again_and_again(make_shards, tmp_path, num_kills, kind):
    num_samples = 1 + 7 * num_kills  # so many that none of the lives comes to the end
    shards = str(make_shards(num_samples=num_samples, max_samples=10, num_frames=6))
    {"latents": cache, "texts": cache_texts}[kind](shards, str(tmp_path / "whole"))
    reference = content(tmp_path / "whole")
    assert len(reference) == -(-num_samples // 2) + 1 and len(ShardReader(str(tmp_path / "whole"))) == num_samples
    chance = random.Random(num_kills)
    kills = [chance.randint(1, 3) for _ in range(num_kills)]
    codes = lives(shards, tmp_path / "killed" / "cache", *kills, 0, kind=kind)
    assert codes == [[-9]] * num_kills + [[0]]
    assert content(tmp_path / "killed/cache") == reference


@pytest.mark.slow
def test_ranks_are_killed_together_and_go_on_together(shards, tmp_path):
    assert lives(shards, tmp_path / "whole" / "cache", 0, ranks=2) == [[0, 0]]
    reference = content(tmp_path / "whole/cache")
    assert len(ShardReader(str(tmp_path / "whole/cache"))) == 23 and {name[:16] for name in reference} == {
        "latents-rank0000", "latents-rank0001",
    }  # fmt: skip
    codes = lives(shards, tmp_path / "killed" / "cache", 3, 2, 5, 0, ranks=2)
    assert codes[-1] == [0, 0] and [-9, -9] in codes
    assert content(tmp_path / "killed/cache") == reference


def fail_at(monkeypatch, number):
    """Let the model fail at one batch, counted over all runs."""
    count, encode = [0], Pooling.predict_step

    def failing(model, batch, batch_idx):
        count[0] += 1
        if count[0] == number:
            raise RuntimeError("interrupted")
        return encode(model, batch, batch_idx)

    monkeypatch.setattr(Pooling, "predict_step", failing)


class PowerCut(BaseException):
    """Ends everything at once, as nothing in the program expects."""


def cut_at(monkeypatch, number):
    """Let what makes a change last never happen from one such step on: flushing a file or a folder, and renaming."""
    count = [0]

    def limited(step):
        def limit(*arguments):
            count[0] += 1
            if count[0] > number:
                raise PowerCut
            step(*arguments)

        return limit

    for name in ("replace", "fsync"):
        monkeypatch.setattr(os, name, limited(getattr(os, name)))


@pytest.mark.parametrize("overwrite", [False, True])
def test_cut_at_every_step(shards, tmp_path, monkeypatch, overwrite):
    """Between any two steps that last: notes, shards, the index, and their names."""
    cache(shards, str(tmp_path / "whole"), max_samples=10)
    reference = content(tmp_path / "whole")
    cuts = 0
    for number in range(60):
        folder = tmp_path / f"cut{number}"
        if overwrite:
            with ShardWriter(folder, prefix="latents", max_samples=1) as writer:
                for key in range(5):
                    writer.write(f"old-{key}", {"json": {}})
        with monkeypatch.context() as patch:
            patch.setattr(latents_module.LatentShardWriter, "on_exception", lambda *arguments: None)  # nobody is there to tidy up
            cut_at(patch, number)
            try:
                cache(shards, str(folder), max_samples=10, overwrite=overwrite)
            except PowerCut:
                cuts += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        cache(shards, str(folder), max_samples=10, overwrite=overwrite)
        assert content(folder) == reference, f"cut at step {number}"
        if cuts <= number:
            break
    assert cuts >= 15


def test_what_was_written_is_not_encoded_again(shards, tmp_path, monkeypatch):
    encoded, encode = [], Pooling.predict_step
    fail_at = [5]

    def counting(model, batch, batch_idx):
        encoded.append(batch.keys)
        if len(encoded) == fail_at[0]:
            raise RuntimeError("out of memory")
        return encode(model, batch, batch_idx)

    monkeypatch.setattr(Pooling, "predict_step", counting)
    with pytest.raises(RuntimeError, match="out of memory"):
        cache(shards, str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("*.tar"))
    encoded.clear()
    fail_at[0] = 0
    cache(shards, str(tmp_path / "cache"))
    assert encoded[0][0] == "shards-0009", "the fourth batch: its samples were in the shard that was not finished"
    assert len(encoded) == 5
    encoded.clear()
    cache(shards, str(tmp_path / "cache"))
    assert encoded == [], "it is whole"
    assert [ShardReader(str(tmp_path / "cache"))[number].key for number in range(23)] == [f"shards-{number:04d}" for number in range(23)]


def test_a_whole_cache_is_made_anew_where_that_is_asked_for(shards, tmp_path, monkeypatch):
    cache(shards, str(tmp_path / "cache"))
    reference, count, encode = content(tmp_path / "cache"), [0], Pooling.predict_step
    monkeypatch.setattr(Pooling, "predict_step", lambda *arguments: (count.__setitem__(0, count[0] + 1), encode(*arguments))[1])
    cache(shards, str(tmp_path / "cache"))
    assert count[0] == 0, "it is whole"
    next((tmp_path / "cache").glob("*-000003.tar")).write_bytes(b"damaged" * (len(reference["latents-000003.tar"]) // 7))
    cache(shards, str(tmp_path / "cache"), overwrite=True)
    assert count[0] == 8 and content(tmp_path / "cache") == reference


def test_an_interrupted_overwriting_goes_on(shards, tmp_path, monkeypatch):
    cache(shards, str(tmp_path / "cache"))
    reference = content(tmp_path / "cache")
    with monkeypatch.context() as patch:
        fail_at(patch, 5)
        with pytest.raises(RuntimeError, match="interrupted"):
            cache(shards, str(tmp_path / "cache"), overwrite=True)
    assert {name: data for name, data in files(tmp_path / "cache").items() if not name.startswith(".")} == reference, "the old ones stay"
    count, encode = [0], Pooling.predict_step
    monkeypatch.setattr(Pooling, "predict_step", lambda *arguments: (count.__setitem__(0, count[0] + 1), encode(*arguments))[1])
    cache(shards, str(tmp_path / "cache"), overwrite=True)
    assert count[0] == 5 and content(tmp_path / "cache") == reference


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_two_samples_of_one_key_are_not_taken_for_one(make_shards, tmp_path):
    """Two sets whose keys are the same: the second one's samples would be lost without a word."""
    one = make_shards("one", num_samples=8, max_samples=4, num_frames=6)
    with ShardWriter(tmp_path / "same", max_samples=4) as writer:
        for number in range(8):
            sample = ShardReader(str(one))[number]
            writer.write(sample.key, dict(sample))
    sources = [str(one), str(tmp_path / "same")]
    for batch_size in (1, 2, 3, 5, 8):
        for _ in range(2):  # the first run, and one that goes on
            with pytest.raises(ValueError, match="'one-0000' was given twice"):
                cache(sources, str(tmp_path / f"cache{batch_size}"), batch_size=batch_size)


def test_shards_of_another_number_of_processes_are_not_left_beside(shards, tmp_path):
    folder = tmp_path / "cache"
    for rank in range(2):
        with ShardWriter(folder, prefix=f"latents-rank{rank:04d}") as writer:
            writer.write(f"old-{rank}", {"json": {}})
    (folder / ".latents-rank0002.partial").mkdir()
    with pytest.raises(UsageError, match=r"for the shards of 1 process; it holds latents-rank0000-\*.tar .*; choose another folder"):
        cache(shards, str(folder))
    cache(shards, str(folder), overwrite=True)
    cache(shards, str(tmp_path / "alone"))
    assert content(folder) == content(tmp_path / "alone")


def test_weights_in_half_precision_are_not_signed(shards, tmp_path):
    with pytest.raises(UsageError, match="autoencoder in torch.bfloat16; the checksum of rounded weights .*; give trainer.precision"):
        cache(shards, str(tmp_path / "cache"), precision="bf16-true")


@pytest.mark.parametrize("change", ["encoder", "statistics", "dtype", "data"])
def test_nothing_stale_is_gone_on_with(shards, make_shards, tmp_path, monkeypatch, change):
    build = Pooling.__init__
    fail_at(monkeypatch, 5)
    with pytest.raises(RuntimeError, match="interrupted"):
        cache(shards, str(tmp_path / "cache"))
    assert list((tmp_path / "cache/.latents.partial").glob("*.tar"))

    def changed(model, record=None):
        build(model, record)
        if change == "encoder":
            model.gain.data += 1.0
        elif change == "statistics":
            model.set_latent_statistics(torch.zeros(3), torch.full((3,), 2.0))

    monkeypatch.setattr(Pooling, "__init__", changed)
    source = str(make_shards("others", num_samples=23, max_samples=10, num_frames=7)) if change == "data" else shards
    settings = {"dtype": "fp32"} if change == "dtype" else {}
    cache(source, str(tmp_path / "cache"), **settings)
    cache(source, str(tmp_path / "anew"), **settings)
    assert content(tmp_path / "cache") == content(tmp_path / "anew")
    origins = [latent_header(sample["latent.safetensors"]) for sample in map(ShardReader(str(tmp_path / "cache")).__getitem__, range(23))]
    assert {origin[2]["encoder"] for origin in origins} == {Pooling().checksum()}
    if change != "dtype":
        with pytest.raises(FileExistsError, match="already holds"):
            monkeypatch.setattr(Pooling, "__init__", lambda model, record=None: (changed(model, record), model.gain.data.mul_(3.0))[0])
            cache(source, str(tmp_path / "cache"))


@pytest.mark.parametrize("damage", ["note", "shard", "missing"])
def test_a_damaged_note_or_shard_begins_anew(shards, tmp_path, monkeypatch, damage):
    cache(shards, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        fail_at(patch, 5)
        with pytest.raises(RuntimeError, match="interrupted"):
            cache(shards, str(tmp_path / "cache"))
    partial = tmp_path / "cache/.latents.partial"
    first = partial / "latents-000000.tar"
    if damage == "note":
        (partial / "notes.jsonl").write_text('{"made_from')
    elif damage == "shard":
        first.write_bytes(first.read_bytes()[:-512])
    else:
        first.unlink()
    cache(shards, str(tmp_path / "cache"))
    assert content(tmp_path / "cache") == content(tmp_path / "whole")


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_kept_in_the_precision_that_was_asked_for(shards, tmp_path, dtype):
    cache(shards, str(tmp_path / "cache"), dtype=dtype)
    batch = next(iter(ShardData(urls=str(tmp_path / "cache"), latents=True, batch_size=4, shuffle=False).train_dataloader()))
    assert batch.latents.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]


def test_what_overflows_the_precision_is_told(shards, tmp_path, monkeypatch):
    build = Pooling.__init__

    def loud(model, record=None):
        build(model, record)
        model.gain.data.fill_(1e6)

    monkeypatch.setattr(Pooling, "__init__", loud)
    with pytest.raises(ValueError, match="latent of 'shards-0000' was to be kept in fp16; it holds NaN or infinite values"):
        cache(shards, str(tmp_path / "cache"), dtype="fp16")
    cache(shards, str(tmp_path / "cache"), dtype="bf16")


def test_shards_written_anew_with_the_same_sizes_are_other_shards(make_shards, tmp_path, monkeypatch):
    shards = str(make_shards(num_samples=23, max_samples=10, num_frames=6))
    cache(shards, str(tmp_path / "cache"))
    with pytest.raises(FileExistsError, match="already holds"):
        for path in Path(shards).glob("*.tar"):
            os.utime(path, ns=(0, 1_000_000_000))
        cache(shards, str(tmp_path / "cache"))
    count, encode = [0], Pooling.predict_step
    monkeypatch.setattr(Pooling, "predict_step", lambda *arguments: (count.__setitem__(0, count[0] + 1), encode(*arguments))[1])
    cache(shards, str(tmp_path / "cache"), overwrite=True)
    assert count[0] == 8, "all is encoded again"
