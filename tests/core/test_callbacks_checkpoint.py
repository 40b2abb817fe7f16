"""`last.ckpt` is the run's end, not its last multiple of steps."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from moviegen_core.callbacks.checkpoint import LastCheckpoint


class Measured(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.register_buffer("measured_at", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.measured_at.fill_(self.global_step)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(folder, max_steps, model=None, **arguments):
    model, data = model or Measured(), DataLoader(torch.randn(20, 2), batch_size=2)
    quiet = {"logger": False, "num_sanity_val_steps": 0, "enable_progress_bar": False, "enable_model_summary": False}
    every = {"val_check_interval": 4, "check_val_every_n_epoch": None}
    callbacks = [LastCheckpoint(every_n_train_steps=4)]
    trainer = Trainer(default_root_dir=folder, max_steps=max_steps, accelerator="cpu", callbacks=callbacks, **quiet, **every, **arguments)
    trainer.fit(model, data, data)
    return model


@pytest.mark.parametrize("max_steps", [3, 4, 7, 13])
def test_it_holds_the_end_of_the_run_and_its_last_validation(max_steps, tmp_path):
    model = run(tmp_path, max_steps)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == max_steps
    assert saved["state_dict"]["measured_at"] == max_steps // 4 * 4
    torch.testing.assert_close(saved["state_dict"]["layer.weight"], model.layer.weight.detach(), rtol=0, atol=0)


def test_it_is_there_in_the_middle_of_a_run(tmp_path):
    class Broken(Exception):
        pass

    class Fails(Measured):
        def training_step(self, batch, batch_idx):
            if self.global_step == 6:
                raise Broken
            return super().training_step(batch, batch_idx)

    with pytest.raises(Broken):
        run(tmp_path, 20, Fails())
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_a_trial_run_leaves_nothing(tmp_path):
    run(tmp_path, 2, fast_dev_run=True)
    assert not list(tmp_path.iterdir())


def test_zero_steps_are_refused():
    with pytest.raises(ValueError, match="from 1 on"):
        LastCheckpoint(every_n_train_steps=0)
