"""How Ray's shares of machines are given out, without Ray."""

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.curation.engine import Operator
from moviegen_data.curation.ray_engine import RayEngine, chains, most_workers, require_room
from moviegen_data.curation.stage import Resources


def test_reading_and_writing_join_their_neighbours():
    gpu = Resources(num_gpus=1.0)
    names = [Operator(name, name, share) for name, share in (("load", Resources()), ("a", gpu), ("b", Resources()), ("save", Resources()))]
    assert [members for _, members in chains(names)] == [("load", "a"), ("b", "save")]
    assert [members for _, members in chains(names[:1])] == [("load",)]


def test_models_get_a_gpu_where_there_are_some():
    names = [Operator("load", "load"), Operator("a", "a"), Operator("model", "model", uses_gpu=True), Operator("save", "save")]
    assert [(share.num_gpus, members) for share, members in chains(names)] == [(0.0, ("load", "a", "model", "save"))]
    assert [(share.num_gpus, members) for share, members in chains(names, 2.0)] == [(0.0, ("load", "a")), (1.0, ("model", "save"))]
    names[2] = Operator("model", "model", Resources(num_gpus=0.25), uses_gpu=True)
    assert [share.num_gpus for share, _ in chains(names, 2.0)] == [0.0, 0.25]


def test_what_could_never_run_is_refused():
    held, nodes = {"CPU": 2.0}, [{"CPU": 2.0}]
    require_room([Resources(), Resources(num_gpus=0.0)], held, nodes)
    with pytest.raises(UsageError, match=r"takes 1 CPUs and 0\.5 GPUs; no machine has both"):
        require_room([Resources(num_gpus=0.0), Resources(num_gpus=0.5)], held, nodes)
    with pytest.raises(UsageError, match=r"take 1 \+ 1 \+ 1 CPUs; the machines have 2"):
        require_room([Resources()] * 3, held, nodes)
    with pytest.raises(UsageError, match=r"takes 3 CPUs and 0 GPUs; no machine has both"):
        require_room([Resources(num_cpus=3)], {"CPU": 4.0}, nodes * 2)
    with pytest.raises(UsageError, match="above 1, workers take whole GPUs"):
        require_room([Resources(num_gpus=1.5)], {"CPU": 8.0, "GPU": 8.0}, [{"CPU": 8.0, "GPU": 8.0}])


def test_workers_fill_the_machines():
    held = {"CPU": 16.0, "GPU": 2.0}
    assert most_workers(Resources(num_gpus=0.0), held, 100) == 16 and most_workers(Resources(num_gpus=0.0), held, 3) == 3
    assert most_workers(Resources(num_gpus=0.25), held, 100) == 8 and most_workers(Resources(num_cpus=4, num_gpus=0.25), held, 100) == 4
    assert most_workers(Resources(num_cpus=0, num_gpus=0.0, num_workers=7), held, 100) == 7


def test_ray_takes_one_of_cores_and_address():
    with pytest.raises(UsageError, match="a cluster has its own"):
        RayEngine(address="auto", num_cpus=2)


@pytest.mark.parametrize("wrong", ["ray://127.0.0.1:10001", "127.0.0.1", "head:port", ""])
def test_addresses_that_no_cluster_has(wrong):
    with pytest.raises(UsageError, match="address is HOST:PORT"):
        RayEngine(address=wrong)
