"""The learning rate is halved where the validation loss no longer falls."""

import warnings
from itertools import count

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, ReduceLROnPlateau
from torch.utils.data import IterableDataset

from moviegen_core.callbacks.plateau import HalveOnPlateau
from moviegen_core.learning_rate import WarmupConstantLR

LOSSES = [5.0, 4.0, 4.0, 4.1, 4.0, 3.0, 3.0, 3.0, 2.9999, 3.5, 3.0, 3.0, 3.0, 1.0]


class Stream(IterableDataset):
    """Never ends, as shards that are repeated do not."""

    def __iter__(self):
        return (torch.zeros(1) for _ in count())


class Scripted(LightningModule):
    """Logs the given validation losses one after the other."""

    def __init__(self, losses, *, scheduler=None):
        super().__init__()
        self.losses = losses
        self.scheduler = scheduler
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.rates = []

    def training_step(self, batch, batch_idx):
        return (self.weight * batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.losses[self.trainer.global_step // 2 - 1])

    def on_train_batch_end(self, *_):
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            return LightningCLI.configure_optimizers(self, optimizer, scheduler)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def run(tmp_path, model, callbacks, *, num_validations=14, ckpt_path=None):
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=2,
        limit_val_batches=1,
        max_epochs=-1,
        max_steps=2 * num_validations + 1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, Stream(), Stream(), ckpt_path=ckpt_path)
    return trainer


def torch_rates(losses, **options):
    """The rate after each validation, by torch's own scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, **options)
    rates = []
    for loss in losses:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("options", [{"patience": 0}, {"patience": 1}, {"patience": 2, "threshold": 0.2}, {"patience": 0, "min_lr": 0.2}])
def test_same_rates_as_torch(tmp_path, options):
    model = Scripted(LOSSES)
    run(tmp_path, model, [HalveOnPlateau(**options)])
    expected = torch_rates(LOSSES, **{"threshold": 1e-3} | options)
    assert model.rates[2::2] == pytest.approx(expected)
    assert expected[-1] < 1.0


def test_the_stock_scheduler_never_steps_on_a_stream(tmp_path):
    """The reason why this callback exists; where this fails, the stock one has learned it and ours can go."""
    model = Scripted(LOSSES, scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val_loss", factor=0.5, patience=0))
    run(tmp_path, model, [])
    assert set(model.rates) == {1.0}


def test_a_warm_up_goes_on_below(tmp_path):
    model = Scripted([1.0] * 8, scheduler=lambda optimizer: WarmupConstantLR(optimizer, warmup_steps=4))
    run(tmp_path, model, [HalveOnPlateau(patience=2)], num_validations=8)
    assert model.rates[:4] == pytest.approx([0.5, 0.75, 1.0, 1.0])
    assert model.rates[8:13] == pytest.approx([0.5] * 5)
    assert model.rates[-1] == pytest.approx(0.25)


def test_resume_is_exact(tmp_path):
    whole = Scripted(LOSSES)
    run(tmp_path, whole, [HalveOnPlateau(patience=1)])
    first = run(tmp_path, Scripted(LOSSES), [HalveOnPlateau(patience=1)], num_validations=4)
    first.save_checkpoint(tmp_path / "part.ckpt")
    rest = Scripted(LOSSES)
    run(tmp_path, rest, [HalveOnPlateau(patience=1)], ckpt_path=tmp_path / "part.ckpt")
    assert rest.rates == pytest.approx(whole.rates[9:])


def test_larger_can_be_better(tmp_path):
    model = Scripted([-2.0, -1.0, -1.0, -0.5, -0.6])
    run(tmp_path, model, [HalveOnPlateau(mode="max", patience=0)], num_validations=5)
    assert model.rates[2::2] == pytest.approx([1.0, 1.0, 0.5, 0.5, 0.25])


def test_a_value_nobody_logs_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"watches 'loss'.*logged val_loss.*set `monitor`"):
        run(tmp_path, Scripted(LOSSES), [HalveOnPlateau(monitor="loss")])


@pytest.mark.parametrize("wrong", [{"factor": 1.0}, {"factor": 0.0}, {"mode": "lowest"}])
def test_refuses_wrong_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HalveOnPlateau(**wrong)
