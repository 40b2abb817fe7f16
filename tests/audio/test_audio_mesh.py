"""Training and sampling sounds on meshes of gloo processes equal those of one process."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "audio_mesh_worker.py"
MESHES = ("2x1x1", "1x2x1", "1x1x2", "2x2x1", "1x2x2", "2x1x2")


def comparison():
    spec = importlib.util.spec_from_file_location("core_test_mesh", Path(__file__).parents[1] / "core" / "test_mesh.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.check_equal_to_one_process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    done = subprocess.run([sys.executable, WORKER, folder, "1x1x1", *MESHES], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_equals_one_process(folder, mesh):
    comparison()(folder, mesh)
