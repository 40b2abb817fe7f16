"""Training and sampling on meshes of gloo processes equal those of one process, from the first weights on (3.1.6)."""

import fcntl
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).parent / "mesh_worker.py"
MESHES = ("2x1x1", "1x2x1", "1x1x2", "2x2x1", "1x2x2", "2x1x2")
SAME = ("1x2x2-all_to_all", "1x1x1-mesh", "2x1x1-offload", "2x1x1-gathered", "2x1x1-ddp")  # other ways to the same numbers
OTHERS = (  # other models, each beside its own reference
    ("1x1x1-muon", "2x1x1-muon"),
    ("1x1x1-stage", "1x2x2-stage"),
    ("1x1x1-plain", "2x1x1-plain"),
)
HALF = ("2x1x1-bf16", "1x1x2-bf16")
TOLERANCE = 1e-4


def start(folder, *meshes):
    done = subprocess.run([sys.executable, WORKER, folder, *meshes], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    if "ran twice:" in done.stderr:
        (folder / "crashes.txt").write_text(done.stderr)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """One interpreter forks all meshes, once for all test processes; each mesh leaves a file per process."""
    shared = tmp_path_factory.getbasetemp()
    folder = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "meshes"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            start(folder, "1x1x1", *MESHES, *SAME, "1x1x1-bf16", *HALF, *(mesh for pair in OTHERS for mesh in pair))
            (folder / "done").touch()
    return folder


def load(folder, mesh):
    files = sorted(folder.glob(f"{mesh}_*.pt"))
    return [torch.load(file, weights_only=True) for file in files]


def relative(given, reference):
    return ((given - reference).norm() / reference.norm().clamp_min(1e-12)).item()


def check_equal_to_one_process(folder, mesh, reference="1x1x1"):
    (one,), ranks = load(folder, reference), load(folder, mesh)
    data, context, tensor = map(int, mesh.partition("-")[0].split("x"))
    assert len(ranks) == data * context * tensor
    assert [rank["place"]["leads"] for rank in ranks].count(True) == data
    moved = {name: relative(weight, one["start"][name]) for name, weight in one["weights"].items()}
    assert min(moved.values()) > 10 * TOLERANCE, min(moved, key=moved.get)

    for rank in ranks:
        for name, weight in one["start"].items():
            assert torch.equal(rank["start"][name], weight), f"{name} starts differently"
        assert rank["norms"] == pytest.approx(one["norms"], rel=TOLERANCE)
        for part in ("weights", "average"):
            far = {name: relative(rank[part][name], weight) for name, weight in one[part].items()}
            assert max(far.values()) < TOLERANCE, max(far, key=far.get)

    means = [statistics.mean(losses) for losses in zip(*(rank["losses"] for rank in ranks), strict=True)]
    assert means == pytest.approx(one["losses"], rel=TOLERANCE)

    for part in ("latents", "samples"):
        for rank in ranks:
            assert len(rank[part]) == len(one[part]) // data
            for key, sample in rank[part].items():
                assert relative(sample, one[part][key]) < TOLERANCE


@pytest.mark.parametrize("mesh", [*MESHES, *SAME])
def test_a_mesh_equals_one_process(folder, mesh):
    check_equal_to_one_process(folder, mesh)


@pytest.mark.parametrize(("reference", "mesh"), OTHERS)
def test_orthogonalised_momentum_grown_stages_and_plain_backbones(folder, reference, mesh):
    check_equal_to_one_process(folder, mesh, reference)


def test_no_process_crashed(folder):
    """A fault in torch or gloo, seen once in some hundred runs of all tests and not understood, is told and not hidden."""
    if (folder / "crashes.txt").exists():
        told = (folder / "crashes.txt").read_text()
        at = max(told.find("Fatal Python error"), 0)
        pytest.skip(
            f"a process was killed, and its mesh {told[told.find('ran twice:') :].splitlines()[0]}; {' | '.join(told[at:][:3000].split())}"
        )


@pytest.mark.parametrize("mesh", MESHES)
def test_no_process_holds_more_than_its_share(folder, mesh):
    (one,), ranks = load(folder, "1x1x1"), load(folder, mesh)
    for rank in ranks:
        # Biases, norms and tables are whole in a tensor group; padding of uneven shards adds a little.
        assert rank["local_elements"] < one["local_elements"] / len(ranks) * 1.5
    assert sum(rank["local_elements"] for rank in ranks) >= one["local_elements"]


@pytest.mark.parametrize("mesh", HALF)
def test_half_precision_on_a_mesh_is_that_of_one_process(folder, mesh):
    (whole,), (one,), ranks = load(folder, "1x1x1"), load(folder, "1x1x1-bf16"), load(folder, mesh)
    means = [statistics.mean(losses) for losses in zip(*(rank["losses"] for rank in ranks), strict=True)]
    assert means == pytest.approx(one["losses"], rel=1e-3)
    assert means != pytest.approx(whole["losses"], rel=1e-5), "nothing was computed in half precision"
    assert means == pytest.approx(whole["losses"], rel=2e-2)
    for rank in ranks:
        assert rank["norms"] == pytest.approx(one["norms"], rel=2e-2)
        for name, weight in one["weights"].items():
            assert rank["weights"][name].dtype == torch.float32
            assert relative(rank["weights"][name], weight) < 0.05, name


def test_no_process_ever_holds_the_whole_model_while_it_is_built(tmp_path):
    meshes = ("2x1x1", "1x1x2")
    start(tmp_path, "building", *meshes)
    for rank in (rank for mesh in meshes for rank in load(tmp_path, f"building-{mesh}")):
        # Beside its share a process holds one tensor at a time, and what the allocator keeps of those before.
        assert 0.9 * rank["share"] < rank["grown"] < 0.8 * rank["whole"], rank


@pytest.mark.slow
def test_eight_processes_equal_one(tmp_path):
    check_equal_to_one_process(start(tmp_path, "1x1x1", "2x2x2"), "2x2x2")
