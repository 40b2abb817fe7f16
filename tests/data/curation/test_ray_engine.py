"""Curation on Ray: the same shards as in one process, also where a worker or a whole machine is lost on the way."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from moviegen_core.errors import UsageError
from moviegen_data.curation import LocalEngine, RayEngine, curate
from moviegen_data.curation.engine import Operator, Part
from moviegen_data.curation.stage import Resources
from moviegen_data.curation.tries import KILLED

ray = pytest.importorskip("ray", reason="Ray is not installed; `pip install moviegen[curation]`")
REPOSITORY = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own sockets
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def paths(monkeypatch):
    """What Ray's workers import from."""
    found = [str(REPOSITORY / part) for part in ("", "plugins", "data", "tests/third_party/moviegen_hello")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*found, str(Path(__file__).parent)]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


class Refuses:
    def __call__(self, part: Part) -> Part:
        raise UsageError("the model x was given", "there is none", "give one")


def test_the_same_shards_as_in_one_process(paths, make_folder, make_config, hash_of, tmp_path):
    folder, config = make_folder(8), make_config()
    curate(str(folder), str(tmp_path / "one"), config=config, part_size=2)
    curate(str(folder), str(tmp_path / "ray"), config=config, part_size=2, engine=RayEngine(num_cpus=2))
    assert hash_of(tmp_path / "ray") == hash_of(tmp_path / "one")
    assert not ray.is_initialized(), "a Ray of its own is put away"


def test_in_a_block_ray_is_begun_once_and_put_away_behind_it(paths, tmp_path):
    operators, sessions = [Operator("t", Touches(tmp_path))], []
    with RayEngine(num_cpus=1) as engine:
        for number in (0, 1):
            with engine:
                assert list(engine.run(operators, [number])) == [number]
            sessions.append(ray.get_runtime_context().get_job_id())
    assert sessions[0] == sessions[1] and not ray.is_initialized()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_an_address_where_nobody_is(paths):
    with pytest.raises(UsageError, match="none answers there"):
        list(RayEngine(address="127.0.0.1:1").run([Operator("r", Refuses())], [0]))


class Touches:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, part: Part) -> Part:
        (self.folder / str(part.number)).touch()
        return part


class Slowly:
    """Writes down who works on a part, and takes its time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, part: Part) -> Part:
        (self.folder / f"{part.number:03d}-{ray.get_runtime_context().get_node_id()}-{os.getpid()}").touch()
        time.sleep(0.4)
        with (self.folder / f"done-{part.number:03d}").open("a") as file:
            file.write("x")
        return part


@pytest.fixture
def cluster(paths):
    """Two nodes on this machine; the first is the head."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    yield nodes, second
    ray.shutdown()
    nodes.shutdown()


@pytest.mark.slow
def test_a_users_mistake_comes_back_from_a_cluster(cluster):
    nodes, _ = cluster
    with pytest.raises(UsageError, match="there is none; give one"):
        list(RayEngine(address=nodes.address).run([Operator("r", Refuses())], range(2)))


class Odd(ImportError):
    """Can be pickled, and not be read back."""

    def __init__(self, one, other):
        super().__init__(f"{one} {other}")


class Raises:
    def __init__(self, error: type[Exception]):
        self.error = error

    def __call__(self, part: Part) -> Part:
        raise self.error("no", "library")


@pytest.mark.slow
def test_errors_come_back_from_a_cluster_as_themselves(cluster):
    nodes, _ = cluster
    for error, kind, told in ((FileNotFoundError, FileNotFoundError, "library"), (Odd, RuntimeError, "Odd: no library")):
        with pytest.raises(kind, match=told) as raised:
            list(RayEngine(address=nodes.address).run([Operator("r", Raises(error))], range(2)))
        assert "in __call__" in raised.value.__notes__[0]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["worker", "node"])
def test_a_lost_worker_or_node_loses_no_part(loss, cluster, tmp_path):
    nodes, second = cluster
    seen, count = tmp_path / "seen", 40
    seen.mkdir()

    def kill():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            at_work = {path.name.split("-")[1] for path in seen.glob("0*")}
            if len(at_work) == 2 and len(list(seen.glob("done-*"))) >= 4:
                break
            time.sleep(0.05)
        if loss == "node":
            nodes.remove_node(second, allow_graceful=False)
        else:
            os.kill(int(max(seen.glob("0*"), key=lambda path: path.stat().st_mtime).name.split("-")[-1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    done = list(RayEngine(address=nodes.address).run([Operator("w", Slowly(seen))], range(count)))
    killer.join()
    assert sorted(done) == list(range(count)), "nothing lost, nothing told twice"
    workers = {path.name.split("-", 1)[1] for path in seen.glob("0*")}
    assert len(workers) > 1, "the lost one was replaced, or another went on"


def workers_of_ray() -> list[int]:
    """Process numbers of Ray's actors; they change their own names."""
    names = {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()}
    return sorted(int(number) for number, name in names.items() if name.startswith(b"ray::MapWorker"))


@pytest.mark.slow
def test_two_nodes_give_the_same_shards_though_a_worker_and_a_node_die(cluster, make_folder, make_config, hash_of, tmp_path):
    nodes, second = cluster
    folder, config = make_folder(120), make_config()
    curate(str(folder), str(tmp_path / "one"), config=config, part_size=2, engine=LocalEngine())
    output, killed = tmp_path / "ray", []

    def wait_for(parts: int) -> int:
        deadline = time.monotonic() + 120
        while (done := len(list(output.glob(".curation/step-*/part-*.jsonl")))) < parts and time.monotonic() < deadline:
            time.sleep(0.01)
        return done

    def kill() -> None:
        done = wait_for(3)
        os.kill(workers_of_ray()[0], signal.SIGKILL)
        killed.append(("worker", done))
        done = wait_for(done + 8)
        nodes.remove_node(second, allow_graceful=False)
        killed.append(("node", done))

    killer = threading.Thread(target=kill)
    killer.start()
    told = curate(str(folder), str(output), config=config, part_size=2, engine=RayEngine(address=nodes.address))
    killer.join()
    assert [name for name, _ in killed] == ["worker", "node"] and killed[1][1] < 40, "both died in the middle"
    assert told["num_media"] == 120 and told["num_clips"] == 160
    assert hash_of(output) == hash_of(tmp_path / "one"), "nothing lost, nothing twice"


@pytest.mark.slow
def test_a_medium_that_kills_workers_ends_no_run(cluster, make_folder, tmp_path):
    nodes, _ = cluster
    folder, bomb = make_folder(12), tmp_path / "bomb"
    bomb.touch()
    stage = {"class_path": "test_tries.Kills", "init_args": {"word": "v007", "while_there": str(bomb)}}
    config = tmp_path / "deadly.yaml"
    config.write_text("# a test\n" + yaml.safe_dump({"stages": {"kills": stage}}))
    told = curate(str(folder), str(tmp_path / "out"), config=str(config), part_size=2, engine=RayEngine(address=nodes.address))
    assert told["num_clips"] == 11 and told["stages"][0]["reasons"] == {KILLED: 1}


@pytest.mark.slow
def test_settings_that_a_running_ray_would_not_heed(cluster):
    nodes, _ = cluster
    ray.init(address=nodes.address)
    for wrong in ({"num_cpus": 1}, {"address": "127.0.0.1:1"}):
        with pytest.raises(UsageError, match="this process already uses the Ray at"):
            list(RayEngine(**wrong).run([Operator("r", Refuses())], range(2)))
    with pytest.raises(UsageError, match=r"takes 1 CPUs and 0\.5 GPUs; no machine has both"):
        list(RayEngine().run([Operator("r", Refuses(), Resources(num_gpus=0.5))], range(2)))
