"""The average of the weights: closed form, gradient accumulation, swapping, checkpoints and resume."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from moviegen_core.callbacks.ema import ExponentialMovingAverage


class Line(LightningModule):
    """A linear layer with dropout, a frozen part and a buffer, built late as the real models are."""

    def __init__(self, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.wanted_dtype = dtype
        self.layer: nn.Linear | None = None
        self.seen: dict[str, torch.Tensor] = {}

    def configure_model(self):
        if self.layer is not None:
            return
        self.layer = nn.Linear(3, 1).to(self.wanted_dtype)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.norm = nn.BatchNorm1d(3)

    def loss(self, batch):
        return (self.layer(nn.functional.dropout(batch[0], 0.2, self.training).to(self.wanted_dtype)) - batch[1]).square().mean()

    def training_step(self, batch, batch_idx):
        self.norm(batch[0])
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.seen["validation"] = self.layer.weight.detach().clone()
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.seen["test"] = self.layer.weight.detach().clone()

    def predict_step(self, batch, batch_idx):
        return self.layer.weight.detach().clone()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.layer.parameters(), lr=0.05)


class History(Callback):
    """Keeps the trained weights after every optimizer step."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.step = 0

    def on_train_start(self, trainer, pl_module):
        self.weights.append(pl_module.layer.weight.detach().clone())
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            self.weights.append(pl_module.layer.weight.detach().clone())


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 3, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=2)


def run(tmp_path, data, callbacks, *, model=None, ckpt_path=None, **options):
    torch.manual_seed(7)
    model = model or Line()
    options = {"max_epochs": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0} | options
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=callbacks, logger=False, enable_progress_bar=False, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers
        trainer.fit(model, data, data, ckpt_path=ckpt_path)
    return trainer, model


def closed_form(weights, decays):
    """sum_i (1 - d_i) prod_{j > i} d_j w_i, written out, in float64."""
    total = weights[0].double() * torch.tensor(decays, dtype=torch.float64).prod()
    for i, weight in enumerate(weights[1:]):
        total += (1 - decays[i]) * torch.tensor(decays[i + 1 :], dtype=torch.float64).prod() * weight.double()
    return total


@pytest.mark.parametrize("warmup", [False, True])
def test_average_is_the_closed_form(tmp_path, data, warmup):
    ema, history = ExponentialMovingAverage(decay=0.8, warmup=warmup), History()
    run(tmp_path, data, [ema, history], enable_checkpointing=False)
    assert len(history.weights) == 13
    decays = [min(0.8, (1 + n) / (10 + n)) if warmup else 0.8 for n in range(12)]
    torch.testing.assert_close(ema.averages["layer.weight"].double(), closed_form(history.weights, decays), rtol=1e-5, atol=1e-6)
    assert set(ema.averages) == {"layer.weight", "layer.bias", "norm.weight", "norm.bias"}, "frozen parameters and buffers are not averaged"


def test_accumulated_batches_count_once(tmp_path, data):
    ema, history = ExponentialMovingAverage(decay=0.5, warmup=False), History()
    run(tmp_path, data, [ema, history], accumulate_grad_batches=3, enable_checkpointing=False)
    assert ema.num_updates == 4 == len(history.weights) - 1
    torch.testing.assert_close(ema.averages["layer.weight"].double(), closed_form(history.weights, [0.5] * 4))


def test_update_every(tmp_path, data):
    ema, history = ExponentialMovingAverage(decay=0.5, warmup=False, update_every=5), History()
    run(tmp_path, data, [ema, history], enable_checkpointing=False)
    expected = closed_form([history.weights[i] for i in (0, 5, 10)], [0.5] * 2)
    torch.testing.assert_close(ema.averages["layer.weight"].double(), expected)


def test_half_precision_weights_have_an_average_in_float32(tmp_path, data):
    ema, history = ExponentialMovingAverage(decay=0.99, warmup=False), History()
    run(tmp_path, data, [ema, history], model=Line(dtype=torch.bfloat16), enable_checkpointing=False)
    average = ema.averages["layer.weight"]
    assert average.dtype == torch.float32
    torch.testing.assert_close(average.double(), closed_form(history.weights, [0.99] * 12), rtol=1e-5, atol=1e-6)


def test_validation_and_test_see_the_average_and_training_does_not(tmp_path, data):
    ema = ExponentialMovingAverage(decay=0.9)
    trainer, model = run(tmp_path, data, [ema], enable_checkpointing=False)
    average, trained = ema.averages["layer.weight"], model.layer.weight.detach().clone()
    assert (average - trained).abs().max() > 1e-3
    assert torch.equal(model.seen["validation"], average)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(model, data, verbose=False)
        (predicted, *_) = trainer.predict(model, data)
    assert torch.equal(model.seen["test"], average)
    assert torch.equal(predicted, average)
    assert torch.equal(model.layer.weight, trained)


def test_training_is_the_same_with_and_without(tmp_path, data):
    _, plain = run(tmp_path, data, [], enable_checkpointing=False, val_check_interval=4)
    _, averaged = run(tmp_path, data, [ExponentialMovingAverage()], enable_checkpointing=False, val_check_interval=4)
    assert torch.equal(plain.layer.weight, averaged.layer.weight)


def test_an_interrupted_validation_leaves_the_trained_weights(tmp_path, data):
    class Fails(Line):
        def validation_step(self, batch, batch_idx):
            raise RuntimeError("in validation")

    history, model = History(), Fails()
    with pytest.raises(RuntimeError, match="in validation"):
        run(tmp_path, data, [ExponentialMovingAverage(), history], model=model, enable_checkpointing=False)
    assert torch.equal(model.layer.weight, history.weights[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("use_for_predict", [True, False])
def test_resume_is_exact(tmp_path, data, dtype, use_for_predict):
    def once(folder, max_steps, ckpt_path=None):
        ema = ExponentialMovingAverage(decay=0.9, update_every=2, use_for_predict=use_for_predict)
        trainer, model = run(
            folder, data, [ema, KeepRandomState()], model=Line(dtype=dtype), max_epochs=-1, max_steps=max_steps, ckpt_path=ckpt_path
        )
        trainer.save_checkpoint(folder / "last.ckpt")
        return ema, model

    data = DataLoader(data.dataset, batch_size=24)  # one batch an epoch: where to go on in the data is not this callback's business
    whole_ema, whole = once(tmp_path / "whole", 9)
    once(tmp_path / "part", 5)
    ema, model = once(tmp_path / "rest", 9, tmp_path / "part" / "last.ckpt")
    assert ema.num_updates == whole_ema.num_updates == 4
    assert torch.equal(model.layer.weight, whole.layer.weight)
    for name, average in whole_ema.averages.items():
        assert torch.equal(ema.averages[name], average), name


class KeepRandomState(Callback):
    """Carries the random state over, as a resumable run does."""

    def state_dict(self):
        return {"torch": torch.get_rng_state()}

    def load_state_dict(self, state_dict):
        self.restored = state_dict["torch"]

    def on_train_start(self, trainer, pl_module):
        if hasattr(self, "restored"):
            torch.set_rng_state(self.restored)


@pytest.mark.parametrize("use_for_predict", [True, False])
def test_a_checkpoint_holds_both_and_predicts_without_the_callback(tmp_path, data, use_for_predict):
    ema = ExponentialMovingAverage(decay=0.9, use_for_predict=use_for_predict)
    trainer, model = run(tmp_path, data, [ema, ModelCheckpoint(tmp_path, save_last=True)])
    average, trained = ema.averages["layer.weight"], model.layer.weight.detach()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    state = saved["callbacks"]["ExponentialMovingAverage"]
    assert torch.equal(saved["state_dict"]["layer.weight"], average if use_for_predict else trained)
    aside = state["online"] if use_for_predict else state["average"]
    assert torch.equal(aside["layer.weight"], trained if use_for_predict else average)
    assert "frozen.weight" not in aside

    def predict(callbacks):
        plain = Trainer(accelerator="cpu", callbacks=callbacks, logger=False, enable_progress_bar=False, enable_checkpointing=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return plain.predict(Line(), data, ckpt_path=tmp_path / "last.ckpt")[0]

    assert torch.equal(predict([]), average if use_for_predict else trained)
    assert torch.equal(predict([ExponentialMovingAverage(use_for_predict=True)]), average)
    assert torch.equal(predict([ExponentialMovingAverage(use_for_predict=False)]), trained)


def test_a_checkpoint_given_after_fit_is_not_overlaid_by_the_newer_average(tmp_path, data):
    ema = ExponentialMovingAverage(decay=0.9)
    trainer, model = run(tmp_path, data, [ema, ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)])
    early, final = tmp_path / "step=4.ckpt", ema.averages["layer.weight"].clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (predicted, *_) = trainer.predict(model, data, ckpt_path=early)
    assert torch.equal(predicted, torch.load(early, weights_only=True)["state_dict"]["layer.weight"])
    assert not torch.equal(predicted, final)


def test_a_checkpoint_without_an_average_is_used_as_it_is(tmp_path, data):
    plain, model = run(tmp_path, data, [])
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    trainer, _ = run(tmp_path, data, [ExponentialMovingAverage(decay=0.9)], model=Line())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (predicted, *_) = trainer.predict(Line(), data, ckpt_path=tmp_path / "plain.ckpt")
    assert torch.equal(predicted, model.layer.weight)


def test_a_checkpoint_from_within_validation_holds_the_trained_weights(tmp_path, data):
    class Saves(Callback):
        def on_validation_batch_end(self, trainer, pl_module, *_):
            trainer.save_checkpoint(tmp_path / "within.ckpt")

    ema, history = ExponentialMovingAverage(decay=0.9), History()
    run(tmp_path, data, [ema, history, Saves()], enable_checkpointing=False)
    saved = torch.load(tmp_path / "within.ckpt", weights_only=True)
    assert torch.equal(saved["callbacks"]["ExponentialMovingAverage"]["online"]["layer.weight"], history.weights[-1])
    assert torch.equal(saved["state_dict"]["layer.weight"], ema.averages["layer.weight"])


def test_resuming_a_run_that_had_no_average_starts_one(tmp_path, data):
    trainer, model = run(tmp_path, data, [], max_epochs=-1, max_steps=3)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    ema, history = ExponentialMovingAverage(decay=0.5, warmup=False), History()
    run(tmp_path, data, [ema, history], max_epochs=-1, max_steps=5, ckpt_path=tmp_path / "plain.ckpt")
    torch.testing.assert_close(ema.averages["layer.weight"].double(), closed_form(history.weights, [0.5] * 2))


def test_weights_a_model_keeps_out_of_its_state_are_resumed_too(tmp_path, data):
    class Hides(Line):
        """As an autoencoder does with its discriminator, which it saves elsewhere."""

        def state_dict(self, *args, **kwargs):
            return {name: value for name, value in super().state_dict(*args, **kwargs).items() if not name.startswith("layer.")}

        def on_save_checkpoint(self, checkpoint):
            checkpoint["layer"] = self.layer.state_dict()

        def on_load_checkpoint(self, checkpoint):
            self.layer.load_state_dict(checkpoint["layer"])

        def load_state_dict(self, state_dict, strict=True):
            return super().load_state_dict(state_dict, strict=False)

    first = ExponentialMovingAverage(decay=0.9)
    trainer, model = run(tmp_path, data, [first], model=Hides(), max_epochs=-1, max_steps=5)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    second = ExponentialMovingAverage(decay=0.9)
    _, resumed = run(tmp_path, data, [second], model=Hides(), max_epochs=-1, max_steps=5, ckpt_path=tmp_path / "part.ckpt")
    assert torch.equal(second.averages["layer.weight"], first.averages["layer.weight"])
    assert torch.equal(resumed.layer.weight, model.layer.weight)


@pytest.mark.parametrize("wrong", [{"decay": 1.0}, {"decay": -0.1}, {"update_every": 0}])
def test_refuses_wrong_numbers(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExponentialMovingAverage(**wrong)
