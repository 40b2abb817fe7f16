"""A checkpoint of two data-parallel processes goes on as tensor parallelism, as one process, and as safetensors."""

import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moviegen_core.errors import UsageError
from moviegen_core.files import partial_path
from moviegen_core.weights import export, open_weights

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the checkpoints of several trainings, and their losses."""
    folder = tmp_path_factory.mktemp("meshes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [HERE.parents[1], HERE.parents[1] / "plugins", HERE.parents[1] / "data"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(HERE / "meshes.py"), str(folder), str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0 and done.stdout, done.stderr[-3000:]
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_the_same_mesh_goes_on_exactly(trained):
    _, found = trained
    assert found["part"] + found["dp2"] == found["whole"]


def test_another_mesh_goes_on_within_rounding(trained):
    _, found = trained
    for name in ("tp2", "file"):
        assert len(found[name]) == 4
        assert found[name] == pytest.approx(found["dp2"], rel=1e-4)


def test_the_average_is_resharded_exactly(trained):
    assert trained[1]["far"] == 0.0


def test_one_process_goes_on(trained):
    import meshes

    folder, found = trained
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's on a loader without validation
        losses, _, _ = meshes.fit(folder / "one", 8, ckpt_path=folder / "part" / "last.ckpt")
    assert losses == pytest.approx(found["dp2"], rel=1e-4)


def test_nobody_gathers_the_average(trained):
    folder, _ = trained
    keys = open_weights(folder / "part" / "last.ckpt").folder.tensors
    online = [key for key in keys if key.startswith("callbacks.ExponentialMovingAverage.online.")]
    assert len(online) == sum(key.startswith("state_dict.") for key in keys)
    assert (folder / "part" / "last.ckpt" / "meta.pt").stat().st_size < 50_000


@pytest.mark.parametrize("ema", [None, True, False])
def test_export(trained, ema, tmp_path):
    folder, _ = trained
    export(str(folder / "part" / "last.ckpt"), str(tmp_path), ema=ema)
    found = load_file(tmp_path / "model.safetensors")
    content = open_weights(folder / "part" / "last.ckpt")
    online = content.metadata["callbacks"]["ExponentialMovingAverage"]["online"]
    assert found.keys() == set(content)
    differing = 0
    for name, tensor in found.items():
        assert torch.equal(tensor, online[name].read() if ema is False else content[name])
        differing += not torch.equal(online[name].read(), content[name])
    assert differing > 10, "the average is something else than what was trained"
    assert json.loads((tmp_path / "config.json").read_text())["class_path"] == "moviegen_t2v.TextToVideo"


def test_another_model_is_refused(trained):
    told = trained[1]["another"]
    assert "have another shape (backbone.blocks.0.ffn.w1.weight: (64, 32) given, (96, 32) wanted" in told and told.count("; give ") == 1


def test_another_optimizer_is_refused(trained):
    assert "was saved with another optimizer than SGD: it has no dampening; resume with the optimizer" in trained[1]["optimizer"]


def test_the_command_line_refuses_a_folder_that_is_not_whole(trained, tmp_path, capsys):
    from moviegen_core.cli import main

    path = partial_path(tmp_path / "last.ckpt")
    path.symlink_to(trained[0] / "part" / "last.ckpt")
    with pytest.raises(SystemExit):
        main(["fit", "--config", "t2v/debug", "--ckpt_path", str(path)])
    assert "unfinished" in capsys.readouterr().err
    with pytest.raises(UsageError, match="unfinished"):
        open_weights(path)
