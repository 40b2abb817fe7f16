"""Who hears the signals: we do, unless Lightning requeues a SLURM job by itself."""

import os
import signal
import stat
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch.utils.data import DataLoader

from moviegen_core.callbacks.checkpoint import LastCheckpoint
from moviegen_core.callbacks.termination import Terminated


class Signalled(LightningModule):
    def __init__(self, signum):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.signum = signum

    def training_step(self, batch, batch_idx):
        if self.global_step == 2 and self.signum is not None:
            os.kill(os.getpid(), self.signum)
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, signum, *, plugins=(), **options):
    trainer = Trainer(
        default_root_dir=folder, max_steps=4, accelerator="cpu", devices=1, plugins=list(plugins), logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[LastCheckpoint(every_n_train_steps=100, **options)],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before")
        trainer.fit(Signalled(signum), DataLoader(torch.ones(8, 2), batch_size=2))
    return trainer


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A SLURM job of one process, and a `scontrol` that writes down what it is told."""
    for name, value in {
        "JOB_ID": 7,
        "JOB_NAME": "train",
        "NTASKS": 1,
        "PROCID": 0,
        "LOCALID": 0,
        "NODEID": 0,
        "NTASKS_PER_NODE": 1,
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    tool = tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\n')
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return tmp_path


def test_the_step_is_finished_and_saved(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as end:
        fit(tmp_path, signal.SIGTERM)
    assert end.value.code == 143
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_the_option_nothing_is_saved(tmp_path):
    with pytest.raises(SystemExit) as end:
        fit(tmp_path, signal.SIGTERM, save_on_terminate=False)
    assert not isinstance(end.value, Terminated) and not list((tmp_path / "checkpoints").iterdir())


def test_lightning_requeues_by_itself(slurm):
    trainer = fit(slurm, signal.SIGUSR1, plugins=[SLURMEnvironment(requeue_signal=signal.SIGUSR1)])
    assert trainer.global_step == 4
    assert (slurm / "told").read_text() == "requeue 7\n"
    assert torch.load(slurm / "hpc_ckpt_1.ckpt", weights_only=True)["global_step"] == 2
    again = fit(slurm, None, plugins=[SLURMEnvironment()])
    assert again.ckpt_path == str(slurm / "hpc_ckpt_1.ckpt")


def test_sigterm_stays_lightnings_where_it_requeues(slurm):
    with pytest.raises(SystemExit) as end:
        fit(slurm, signal.SIGTERM, plugins=[SLURMEnvironment()])
    assert not isinstance(end.value, Terminated), "ours would have saved and told of it"


def test_it_is_ours_where_slurm_does_not_requeue(slurm):
    with pytest.raises(Terminated):
        fit(slurm, signal.SIGTERM, plugins=[SLURMEnvironment(auto_requeue=False)])
