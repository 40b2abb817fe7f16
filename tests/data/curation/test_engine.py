"""Engines: all give the same, and a worker that is killed costs its time only."""

import os
import signal
from pathlib import Path

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.curation.engine import LocalEngine, Operator, Part
from moviegen_data.curation.ray_engine import RayEngine, chains
from moviegen_data.curation.stage import Resources


class Writes:
    """Writes a file for each part; dies at some, as often as told."""

    def __init__(self, folder: Path, deaths: dict[int, int] | None = None):
        self.folder, self.deaths = folder, deaths or {}

    def __call__(self, part: Part) -> Part:
        tries = self.folder / f"tries-{part.number}"
        with tries.open("a") as file:
            file.write("x")
        if len(tries.read_text()) <= self.deaths.get(part.number, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / f"part-{part.number}").write_text(str(part.number))
        return part


class Refuses:
    def __call__(self, part: Part) -> Part:
        raise UsageError("the model x was given", "there is none", "give one")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_part_is_done(num_workers, tmp_path):
    done = list(LocalEngine(num_workers=num_workers).run([Operator("w", Writes(tmp_path))], range(5)))
    assert sorted(done) == [0, 1, 2, 3, 4] and len(list(tmp_path.glob("part-*"))) == 5


def test_killed_workers_are_replaced(tmp_path):
    done = list(LocalEngine(num_workers=2).run([Operator("w", Writes(tmp_path, {1: 1, 3: 1}))], range(5)))
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_workers_that_die_each_time_are_told(tmp_path):
    with pytest.raises(UsageError, match="killed 2 times.*fewer"):
        list(LocalEngine(num_workers=1, max_restarts=1).run([Operator("w", Writes(tmp_path, {0: 9}))], range(1)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_users_mistake_comes_back_from_workers(num_workers):
    with pytest.raises(UsageError, match="there is none; give one"):
        list(LocalEngine(num_workers=num_workers).run([Operator("r", Refuses())], range(2)))


@pytest.mark.parametrize("wrong", [{"num_workers": -1}, {"max_restarts": -1}])
def test_settings_are_checked(wrong):
    with pytest.raises(UsageError):
        LocalEngine(**wrong)


def test_reading_and_writing_join_their_neighbours():
    gpu = Resources(num_gpus=1.0)
    names = [Operator(name, name, share) for name, share in (("load", Resources()), ("a", gpu), ("b", Resources()), ("save", Resources()))]
    assert [members for _, members in chains(names)] == [("load", "a"), ("b", "save")]
    assert [members for _, members in chains(names[:1])] == [("load",)]


def test_ray_takes_one_of_cores_and_address():
    with pytest.raises(UsageError, match="a cluster has its own"):
        RayEngine(address="auto", num_cpus=2)
