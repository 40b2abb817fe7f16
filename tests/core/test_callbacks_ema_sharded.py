"""The average of sharded weights: two processes agree with one, and resume exactly, from whole and from sharded checkpoints."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset

from moviegen_core.callbacks.ema import ExponentialMovingAverage

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_num_threads(1)
FOLDER, SHARDED_FILES = Path(sys.argv[1]), sys.argv[2] == "sharded"


class Network(LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = None

    def configure_model(self):
        if self.layers is not None:
            return
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
        if self.device_mesh is not None:
            fully_shard(self.layers, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, batch_idx):
        return (self.layers(batch[0]) - 1).square().mean()

    def validation_step(self, batch, batch_idx):
        self.layers(batch[0])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05)


def run(steps, *, sharded=True, ckpt_path=None):
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
    ema = ExponentialMovingAverage(decay=0.9)
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=SHARDED_FILES)
    trainer = Trainer(
        accelerator="cpu", devices=2 if sharded else 1, strategy=strategy if sharded else "auto", max_epochs=-1, max_steps=steps,
        callbacks=[ema], logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
        use_distributed_sampler=False, inference_mode=False,
    )
    model = Network()
    data = DataLoader(TensorDataset(x), batch_size=24)  # every process sees the same batch, so that one process is a reference
    trainer.fit(model, data, data, ckpt_path=ckpt_path)
    trained = dict(model.named_parameters())
    tensors = {f"average.{k}": v for k, v in ema.averages.items()} | {f"trained.{k}": v for k, v in trained.items()}
    return trainer, {k: getattr(v, "full_tensor", lambda v=v: v)().detach().clone() for k, v in tensors.items()}


_, one = run(7, sharded=False)
trainer, whole = run(7)
part, _ = run(4)
part.save_checkpoint(FOLDER / "part.ckpt")
_, resumed = run(7, ckpt_path=FOLDER / "part.ckpt")
if trainer.is_global_zero:
    far = {k: (one[k] - whole[k]).abs().max().item() for k in one}
    print(json.dumps({"far": far, "resumed": {k: torch.equal(whole[k], resumed[k]) for k in whole}}))
"""


@pytest.mark.parametrize("files", ["whole", "sharded"])
def test_two_processes(tmp_path, files):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert len(found["far"]) == 8
    assert max(found["far"].values()) < 1e-5
    assert all(found["resumed"].values())
