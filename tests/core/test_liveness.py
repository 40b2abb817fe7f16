"""A process that is stuck or gone is named by the others, soon, and all end with the documented code."""

import json
import subprocess
import sys

import pytest

from moviegen_core.parallel.liveness import Beat, find_late

SCRIPT = """
import logging
import os
import signal
import sys
import time
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from moviegen_core.parallel.strategy import MeshStrategy

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_num_threads(1)
HOW, WHO, FORKED = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "forked"


class Network(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = None

    def configure_model(self):
        if self.layer is None:
            self.layer = nn.Linear(4, 4)
            self.trainer.strategy.plan.shard(self.layer)

    def training_step(self, batch, batch_idx):
        if self.global_step == 3 and self.global_rank == WHO:
            if HOW == "sleeps":
                time.sleep(600)
            if HOW == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if HOW == "fails":
                raise ArithmeticError("of its own")
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if FORKED:
    os.environ.update(WORLD_SIZE="2", NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[4])
    child = os.fork()
    os.environ["LOCAL_RANK"] = "0" if child else "1"
trainer = Trainer(
    accelerator="cpu", devices=2, strategy=MeshStrategy(data_parallel_size=2, timeout_s=2.0), max_steps=6, max_epochs=-1, logger=False,
    enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
)
code = 0
try:
    trainer.fit(Network(), DataLoader(torch.randn(8, 4), batch_size=4))
except ArithmeticError:
    code = 3
if FORKED and child:
    sys.stderr.flush()
    _, status = os.waitpid(child, 0)
    print("other", os.waitstatus_to_exitcode(status))
os._exit(code)
"""


def run(tmp_path, how, who, *, forked=True):
    (tmp_path / "script.py").write_text(SCRIPT)
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", str(tmp_path / "script.py"), how, str(who), "forked" if forked else "launched", str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("who", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_one_sleeps(tmp_path, who):
    done = run(tmp_path, "sleeps", who)
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1, done.stderr
    assert f"error: rank {who} (process " in errors[0] and "did not arrive" in errors[0] and "training step after step 3" in errors[0]
    assert f"rank {1 - who} has waited" in errors[0] and "timeout_s" in errors[0]
    assert done.returncode == 70, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_one_is_killed(tmp_path, who):
    done = run(tmp_path, "dies", who)
    assert f"error: rank {who}" in done.stderr and "is gone" in done.stderr, done.stderr


def test_a_launched_one_is_killed(tmp_path):
    done = run(tmp_path, "dies", 1, forked=False)
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1 and "rank 1 (process " in errors[0] and "killed by signal 9" in errors[0], done.stderr
    assert "training step after step 3" in errors[0] and "--ckpt_path last" in errors[0]
    assert done.returncode == 70


@pytest.mark.slow
def test_nobody_is_accused_where_all_is_well(tmp_path):
    done = run(tmp_path, "lives", 0)
    assert done.returncode == 0 and "other 0" in done.stdout and "error" not in done.stderr


def beat(rank, **calls):
    return Beat(rank, "host", 1, calls=calls)


def test_who_waits_for_another_is_not_to_blame():
    # 1 waits for 3 in their group b; 0 waits for 1, and 2 for 3, in the groups a and c.
    beats = [beat(0, a=5), beat(1, a=4, b=8), beat(2, c=3), beat(3, b=7, c=2)]
    assert [late.rank for late in find_late(beats)] == [3]
    assert find_late([beat(0, a=5), beat(1, a=5)]) == []
    assert [late.rank for late in find_late([beat(0, a=5), beat(1, a=4), beat(2, a=4)])] == [1, 2]
    assert json.loads(json.dumps(beats[0].calls)) == {"a": 5}
