"""A sharded checkpoint is written in the background, from a copy, and its failure is told at the next occasion."""

import threading
import warnings

import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter

from moviegen_core.errors import UsageError
from moviegen_core.parallel import checkpointing
from moviegen_core.parallel.checkpointing import ShardedSaver
from moviegen_core.weights import open_weights


class OneProcess:
    """A strategy of one process."""

    is_global_zero = True

    def broadcast(self, value):
        return value


@pytest.fixture(autouse=True)
def _alone():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is")
        yield


@pytest.fixture
def held(monkeypatch):
    """Savings wait in the middle of writing until this is set."""
    go = threading.Event()
    write = FileSystemWriter.write_data

    def wait_and_write(*args):
        assert go.wait(30)
        return write(*args)

    monkeypatch.setattr(FileSystemWriter, "write_data", wait_and_write)
    yield go
    go.set()


def state(value):
    return {"state_dict": {"a": torch.full((4,), float(value))}, "optimizer_states": [], "callbacks": {"c": {"n": value}}}


def saved(path):
    file = open_weights(path)
    return file["a"][0].item(), file.metadata["callbacks"]["c"]["n"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_replaces_the_other(tmp_path, asynchronous):
    saver, path = ShardedSaver(OneProcess(), asynchronous=asynchronous), tmp_path / "run" / "last.ckpt"
    for value in range(3):
        saver.save(state(value), path)
        saver.wait()
        assert saved(path) == (value, value)
        assert [child.name for child in path.parent.iterdir()] == ["last.ckpt"]


def test_training_goes_on_while_it_is_written(tmp_path, held):
    saver, path = ShardedSaver(OneProcess(), asynchronous=True), tmp_path / "last.ckpt"
    held.set()
    saver.save(state(1), path)
    saver.wait()
    held.clear()
    content = state(2)
    saver.save(content, path)  # returns although nothing can be written
    content["state_dict"]["a"].zero_()
    content["callbacks"]["c"]["n"] = 0
    assert saved(path) == (1, 1), "the earlier one is valid meanwhile"
    held.set()
    saver.wait()
    assert saved(path) == (2, 2), "what was trained since is not in it"


def test_the_outdated_one_stays_until_the_new_one_is_whole(tmp_path, held):
    saver = ShardedSaver(OneProcess(), asynchronous=True)
    held.set()
    saver.save(state(1), tmp_path / "1.ckpt")
    saver.wait()
    held.clear()
    saver.save(state(2), tmp_path / "2.ckpt")
    saver.remove(str(tmp_path / "1.ckpt"))  # as ModelCheckpoint does after each saving
    assert saved(tmp_path / "1.ckpt") == (1, 1)
    held.set()
    saver.wait()
    assert [child.name for child in tmp_path.iterdir()] == ["2.ckpt"]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("broken", ["shards", "rename"])
def test_a_failure_is_told_and_the_earlier_one_stays(tmp_path, monkeypatch, asynchronous, broken):
    saver, path = ShardedSaver(OneProcess(), asynchronous=asynchronous), tmp_path / "last.ckpt"
    saver.save(state(1), path)
    saver.wait()

    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(*((FileSystemWriter, "write_data", fail) if broken == "shards" else (checkpointing, "publish", fail)))
        with pytest.raises(UsageError, match="was to be saved; .* failed: .*; what had this name before is still valid"):
            saver.save(state(2), path)
            saver.wait()
    assert saved(path) == (1, 1)
    saver.save(state(3), path)  # and clears away what the failed one left
    saver.wait()
    assert saved(path) == (3, 3) and [child.name for child in tmp_path.iterdir()] == ["last.ckpt"]


def test_after_an_exception_a_failure_is_a_warning(tmp_path, monkeypatch):
    saver = ShardedSaver(OneProcess(), asynchronous=True)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSystemWriter, "write_data", fail)
    saver.save(state(2), tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match="No space left"):
        saver.abandon()
