"""Workers that go on from one run to the next in a block: as safe as new ones, and without what the last run loaded."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import yaml
from test_local_engine import Waits, is_alive

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip, LocalEngine, SetStage, curate
from moviegen_data.curation.engine import Operator, Part
from moviegen_data.curation.local_engine import tell_of_copies


def children() -> set[int]:
    """Process numbers of this process's children, also of those that ended and were not waited for."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"resource_tracker" not in (path / "cmdline").read_bytes():
                found.add(int(path.name))
        except OSError:  # it is gone already
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = children()
    yield
    assert children() <= before


class Tells:
    """Tells by whom a part was worked on; at some parts the first one dies."""

    def __init__(self, folder: Path, *, deaths: Iterable[int] = (), ballast: bytes = b"") -> None:
        self.folder, self.deaths, self.ballast = folder, tuple(deaths), ballast
        folder.mkdir(exist_ok=True)

    def __call__(self, part: Part) -> Part:
        path = self.folder / str(part.number)
        is_first = not path.exists()
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if is_first and part.number in self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return part


def who(folder: Path) -> set[int]:
    return {int(line) for path in folder.iterdir() for line in path.read_text().split()}


def tell(engine: LocalEngine, folder: Path, count: int = 5, **options) -> set[int]:
    """A run in which everyone tells who he is."""
    assert sorted(engine.run([Operator("tells", Tells(folder, **options))], range(count))) == list(range(count))
    return who(folder)


def test_workers_go_on_in_a_block(tmp_path):
    with LocalEngine(num_workers=2) as engine:
        first = tell(engine, tmp_path / "a")
        assert len(first) == 2 and children() >= first
        assert tell(engine, tmp_path / "b", ballast=bytes(4_000_000)) == first, "also where more is sent than a pipe holds"
        assert tell(engine, tmp_path / "c", count=1) < first
        with engine:
            assert tell(engine, tmp_path / "d") == first
        assert tell(engine, tmp_path / "e") == first, "the end of an inner block ends nothing"
    assert not tell(engine, tmp_path / "f", ballast=bytes(4_000_000)) & first
    assert not children() & who(tmp_path / "f"), "without a block they end with the run"


def test_there_are_no_more_workers_than_parts(tmp_path):
    with LocalEngine(num_workers=3) as engine:
        one = tell(engine, tmp_path / "a", count=1)
        two = tell(engine, tmp_path / "b", count=2)
        assert len(one) == 1 and len(two) == 2 and one < two


def test_workers_that_are_killed_in_any_run_are_replaced(tmp_path):
    with LocalEngine(num_workers=2) as engine:
        first = tell(engine, tmp_path / "a", deaths={1})
        second = tell(engine, tmp_path / "b", deaths={0, 3})
        assert [len((tmp_path / "a" / str(number)).read_text().split()) for number in range(5)] == [1, 2, 1, 1, 1]
        assert [len((tmp_path / "b" / str(number)).read_text().split()) for number in range(5)] == [2, 1, 1, 2, 1]
    assert len(first | second) >= 4, "three died, and one at least is left"


def test_one_that_is_killed_at_no_part_counts_for_none(tmp_path):
    with LocalEngine(num_workers=2, max_restarts=0) as engine:
        killed, other = sorted(tell(engine, tmp_path / "a"))
        os.kill(killed, signal.SIGKILL)
        while any(child.pid == killed for child in multiprocessing.active_children()):
            time.sleep(0.01)
        second = tell(engine, tmp_path / "b")
    assert other in second and killed not in second and len(second) == 2


def test_a_run_that_always_kills_ends_all(tmp_path):
    with LocalEngine(num_workers=2, max_restarts=0) as engine:
        first = tell(engine, tmp_path / "a")
        with pytest.raises(UsageError, match="part 1 was given to a worker process 1 times"):
            tell(engine, tmp_path / "b", deaths={1})
        assert not children() & first


def test_what_cannot_be_sent_is_told_and_costs_no_worker(tmp_path):
    with LocalEngine(num_workers=2) as engine:
        first = tell(engine, tmp_path / "a")
        with pytest.raises(UsageError, match=r"the stages odd were given with worker processes; they cannot be sent to these \(.*lambda"):
            list(engine.run([Operator("odd", lambda part: part)], range(2)))
        assert tell(engine, tmp_path / "b") == first
    assert list(LocalEngine().run([Operator("odd", lambda part: part)], range(2))) == [0, 1]


class Unreadable:
    """Can be pickled; reading it calls a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(("call", "told"), [((int, "x"), "ValueError: invalid literal"), ((sys.exit, 3), "SystemExit: 3")])
def test_what_workers_cannot_read_is_told(call, told, tmp_path):
    with LocalEngine(num_workers=2) as engine:
        tell(engine, tmp_path / "a")
        with pytest.raises(UsageError, match=rf"no worker process could begin \({told}.*define stages in a module"):
            list(engine.run([Operator("odd", Unreadable(*call))], range(2)))
        tell(engine, tmp_path / "b")


def test_a_run_that_is_left_ends_its_workers_and_not_the_block(tmp_path):
    (tmp_path / "w").mkdir()
    with LocalEngine(num_workers=2) as engine:
        first = tell(engine, tmp_path / "a")
        run = engine.run([Operator("waits", Waits(tmp_path / "w"))], range(2))
        assert next(run) == 0
        run.close()
        assert not children() & first
        assert not tell(engine, tmp_path / "b") & first


def test_an_error_in_the_block_ends_idle_workers(tmp_path):
    with pytest.raises(KeyError), LocalEngine(num_workers=2) as engine:
        tell(engine, tmp_path / "a")
        raise KeyError
    assert not children() & who(tmp_path / "a")


def test_two_runs_that_take_turns_share_no_worker(tmp_path):
    with LocalEngine(num_workers=2) as engine:
        one, two = (engine.run([Operator("tells", Tells(tmp_path / name))], range(4)) for name in ("one", "two"))
        assert sorted([next(one), next(two), *one, *two]) == sorted([*range(4), *range(4)])
        assert not who(tmp_path / "one") & who(tmp_path / "two")
        assert len(tell(engine, tmp_path / "a")) == 2


class Model:
    """Is part of a cycle, as models are; tells when it goes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.me = folder, self

    def __del__(self) -> None:
        (self.folder / f"gone-{os.getpid()}").touch()


class Loads:
    """Loads a model on first use; tells what of others is there when it is built."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, None

    def __setstate__(self, state) -> None:
        vars(self).update(state)
        self.tell(f"met-{sum(isinstance(each, Model) for each in gc.get_objects())}")

    def tell(self, word: str) -> None:
        with (self.folder / word).open("a") as file:
            file.write(f"{os.getpid()}\n")

    def __call__(self, part: Part) -> Part:
        if self.model is None:
            self.tell("loaded")
            self.model = Model(self.folder)
        return part


def test_models_are_loaded_once_and_go_with_their_run(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    with LocalEngine(num_workers=2) as engine:
        for folder in folders:
            folder.mkdir()
            list(engine.run([Operator("loads", Loads(folder))], range(6)))
            deadline = time.monotonic() + 60
            while len(list(folder.glob("gone-*"))) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(list(folder.glob("gone-*"))) == 2, "at the end of the run, not at the next one's beginning"
    for folder in folders:
        assert {path.name: len(path.read_text().split()) for path in folder.glob("*ed")} == {"loaded": 2}
        assert [path.name for path in folder.glob("met-*")] == ["met-0"] and len((folder / "met-0").read_text().split()) == 2


def tells_clip(clip: Clip, media, *, folder: str) -> Clip:
    Tells(Path(folder))(Part(hash(clip.key)))
    return clip


class Compares(SetStage):
    """Lets all pass, or fails.

    Args:
        fails: whether it does.
    """

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails

    def apply(self, clips):
        if self.fails:
            raise KeyError("compares")
        return clips


@pytest.mark.parametrize("fails", [False, True])
def test_workers_go_through_all_steps_of_curation(fails, make_folder, tmp_path):
    def tells(name: str) -> dict:
        arguments = {"folder": str(tmp_path / name)}
        return {"class_path": "Function", "init_args": {"path": "test_kept_workers:tells_clip", "arguments": arguments}}

    compares = {"class_path": "test_kept_workers.Compares", "init_args": {"fails": fails}}
    (tmp_path / "c.yaml").write_text(
        "# a test\n" + yaml.safe_dump({"stages": {"a": tells("a"), "c": compares, "b": tells("b")}}, sort_keys=False)
    )
    options = {"config": str(tmp_path / "c.yaml"), "part_size": 1, "engine": LocalEngine(num_workers=2)}
    if fails:
        with pytest.raises(KeyError, match="compares"):
            curate(str(make_folder(6)), str(tmp_path / "out"), **options)
    else:
        assert curate(str(make_folder(6)), str(tmp_path / "out"), **options)["num_clips"] == 6
        assert who(tmp_path / "b") == who(tmp_path / "a")
    assert len(who(tmp_path / "a")) == 2 and not any(is_alive(number) for number in who(tmp_path / "a"))


SCRIPT = """
import sys
import time
from pathlib import Path
from moviegen_data.curation.engine import Operator
from moviegen_data.curation.local_engine import LocalEngine
from test_kept_workers import Tells
from test_local_engine import Waits
if __name__ == "__main__":
    engine, folder = LocalEngine(num_workers=2), Path(sys.argv[1])
    with engine:
        list(engine.run([Operator("t", Tells(folder / "a"))], range(2)))
        {then}
"""
IDLE = 'print("there", flush=True); time.sleep(600)'
AT_WORK = 'run = engine.run([Operator("w", Waits(folder / "w"))], range(2)); next(run); print("there", flush=True); next(run)'
LEFT = 'run = engine.run([Operator("w", Waits(folder / "w"))], range(2)); next(run); print("there", flush=True); engine.__enter__()'


def _hear_interrupts() -> None:
    """A shell lets what it starts in the background ignore them, and these tests may have been."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def script(tmp_path):
    """Start a script of its own; it is there when it has printed so."""
    runs = []

    def start(then: str) -> subprocess.Popen:
        (tmp_path / "w").mkdir()
        path = tmp_path / "script.py"
        path.write_text(SCRIPT.format(then=then))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        how = {"start_new_session": True, "preexec_fn": _hear_interrupts}
        runs.append(subprocess.Popen([sys.executable, str(path), str(tmp_path)], env=environment, **how, **pipes))
        assert runs[0].stdout.readline() == "there\n"
        return runs[0]

    yield start
    for run in runs:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


@pytest.mark.parametrize(("then", "number"), [(IDLE, signal.SIGKILL), (IDLE, signal.SIGINT), (AT_WORK, signal.SIGINT)])
def test_workers_end_with_a_script_that_is_ended(then, number, script, tmp_path):
    run = script(then)
    workers, deadline = who(tmp_path / "a"), time.monotonic() + 60
    assert len(workers) == 2 and all(is_alive(worker) for worker in workers)
    os.kill(run.pid, number) if number == signal.SIGKILL else os.killpg(run.pid, number)  # as a terminal does
    _, told = run.communicate(timeout=60)
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.returncode == -number and not any(is_alive(worker) for worker in workers)
    assert told.count("Traceback") == (number == signal.SIGINT), "workers say nothing"


def test_a_script_that_leaves_a_run_and_a_block_open_ends(script, tmp_path):
    run = script(LEFT)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 0 and not told and not any(is_alive(worker) for worker in who(tmp_path / "a"))


def test_copies_of_models_on_one_gpu_are_told(monkeypatch, caplog):
    operators = [Operator("probe", id), Operator("quality+look", id, uses_gpu=True)]
    for is_there, num_workers, own in ((True, 2, operators), (True, 1, operators), (True, 2, operators[:1]), (False, 2, operators)):
        caplog.clear()
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=is_there: is_there)
        tell_of_copies(own, num_workers)
        told = "each of the 2 workers loads its own models of quality+look, onto the first GPU" in caplog.text
        assert told == (is_there and num_workers == 2 and own == operators)


def test_what_workers_import_is_no_more_than_needed():
    script = (
        "import sys; import moviegen_data.curation.operators, moviegen_data.curation.stages.quality; sys.exit('lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}).returncode == 0
