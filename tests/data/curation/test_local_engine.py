"""The local engine: every part is done, and a worker that is killed costs its time only."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.curation.engine import Operator, Part
from moviegen_data.curation.local_engine import LocalEngine


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
    with pytest.raises(UsageError, match="part 1 was given to a worker process 2 times; each of them died, the last by SIGKILL.*fewer"):
        list(LocalEngine(num_workers=1, max_restarts=1).run([Operator("w", Writes(tmp_path, {1: 9}))], range(2)))
    assert (tmp_path / "part-0").is_file()


def test_a_killed_worker_takes_no_other_part_with_it(tmp_path):
    list(LocalEngine(num_workers=2).run([Operator("w", Writes(tmp_path, {0: 3}))], range(4)))
    assert [len((tmp_path / f"tries-{number}").read_text()) for number in range(4)] == [4, 1, 1, 1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_users_mistake_comes_back_from_workers(num_workers):
    with pytest.raises(UsageError, match="there is none; give one"):
        list(LocalEngine(num_workers=num_workers).run([Operator("r", Refuses())], range(2)))


class Odd(ImportError):
    """Can be pickled, and not be read back."""

    def __init__(self, one, other):
        super().__init__(f"{one} {other}")


class Raises:
    def __init__(self, error: str):
        self.error = error

    def __call__(self, part: Part) -> Part:
        if part.number:
            raise {"memory": MemoryError("out of it"), "odd": Odd("no", "library"), "file": FileNotFoundError(2, "gone", "a.mp4")}[
                self.error
            ]
        return part


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [("memory", MemoryError, "out of it"), ("odd", RuntimeError, "Odd: no library"), ("file", FileNotFoundError, "gone")],
)
def test_errors_come_back_from_workers_with_their_place(error, kind, told):
    with pytest.raises(kind, match=told) as raised:
        list(LocalEngine(num_workers=2).run([Operator("r", Raises(error))], range(3)))
    assert "in __call__" in raised.value.__notes__[0]


def is_alive(number: int) -> bool:
    status = Path(f"/proc/{number}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


class Waits:
    """Tells its process and takes ten minutes, all but part 0."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, part: Part) -> Part:
        (self.folder / f"{part.number}.{os.getpid()}").touch()
        if part.number:
            time.sleep(600)
        while not list(self.folder.glob("1.*")):  # part 0 ends when the other one has begun
            time.sleep(0.01)
        return part


def test_workers_end_with_a_run_that_is_left(tmp_path):
    run = LocalEngine(num_workers=2).run([Operator("w", Waits(tmp_path))], range(2))
    assert next(run) == 0
    run.close()
    assert not any(is_alive(int(path.suffix[1:])) for path in tmp_path.iterdir())


SCRIPT = """
import sys
from pathlib import Path
from moviegen_data.curation.engine import Operator
from moviegen_data.curation.local_engine import LocalEngine
from test_local_engine import Waits
{guard}list(LocalEngine(num_workers=2).run([Operator("w", Waits(Path(sys.argv[1])))], range(3)))
"""


def start(tmp_path: Path, *, guard: str) -> subprocess.Popen:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(guard=guard))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    (tmp_path / "seen").mkdir()
    return subprocess.Popen([sys.executable, str(path), str(tmp_path / "seen")], env=environment, stderr=subprocess.PIPE, text=True)


def test_workers_end_with_a_process_that_is_killed(tmp_path):
    run, deadline = start(tmp_path, guard="if __name__ == '__main__': "), time.monotonic() + 60
    while len(found := list((tmp_path / "seen").iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    run.kill()
    run.communicate()
    while any(is_alive(int(path.suffix[1:])) for path in found) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) >= 2 and not any(is_alive(int(path.suffix[1:])) for path in found)


def test_a_script_that_cannot_have_workers_is_told_why(tmp_path):
    run = start(tmp_path, guard="")
    _, told = run.communicate(timeout=60)
    assert (
        run.returncode == 1
        and "no worker process could begin (exit status 1; what it printed tells why)" in told
        and "below `if __name__ == '__main__':`" in told
    )


@pytest.mark.parametrize("wrong", [{"num_workers": -1}, {"max_restarts": -1}])
def test_settings_are_checked(wrong):
    with pytest.raises(UsageError):
        LocalEngine(**wrong)
