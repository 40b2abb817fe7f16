"""Rates of a training whose cost is known, by a clock that only the test moves."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.backbone import Backbone
from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.machine import measure_peak_tflops, readable_time
from moviegen_core.callbacks.throughput import Throughput
from moviegen_core.conditioner import Conditioning

STEP_S, WAIT_S, VALIDATION_S, CONTEXT_LENGTH = 2.0, 1.0, 30.0, 5


class Clock:
    """Stands for the module `time`."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


time = Clock()


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr("moviegen_core.callbacks.throughput.time", time)


class Counted(Backbone):
    """A backbone whose costs are easily told."""

    def __init__(self):
        super().__init__(in_channels=4, width=8)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x_t, t, conditioning):
        return self.scale * x_t

    def num_tokens(self, latent_shape):
        return latent_shape[1] * latent_shape[2] * latent_shape[3]

    def num_flops(self, latent_shape, context_length):
        return self.num_tokens(latent_shape) * (1000 + context_length)


class Model(LightningModule):
    def __init__(self, backbone=None):
        super().__init__()
        self.backbone = backbone
        self.autoencoder = Autoencoder(latent_channels=4)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        time.sleep(STEP_S)
        x = torch.ones(len(batch), 4, 2, 4, 4)
        if self.backbone is None:
            return (self.scale * x).mean()
        context = torch.zeros(len(batch), CONTEXT_LENGTH, 8)
        mask = torch.ones(len(batch), CONTEXT_LENGTH, dtype=torch.bool)
        return self.backbone(x, torch.zeros(len(batch)), Conditioning(context=context, context_mask=mask)).mean()

    def validation_step(self, batch, batch_idx):
        time.sleep(VALIDATION_S)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Slow(Dataset):
    """Lets a batch wait."""

    def __init__(self, *, latents):
        self.media = {"latents": torch.ones(3, 4, 2, 4, 4)} if latents else {"video": torch.ones(3, 3, 16, 32, 32)}

    def __len__(self):
        return 20

    def __getitem__(self, index):
        time.sleep(WAIT_S)
        return MediaBatch(captions=["a"] * 3, keys=["k"] * 3, **self.media)


class Bar(Callback):
    """Keeps what a progress bar would show at the end of every batch."""

    def __init__(self):
        self.shown = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.shown.append(dict(trainer.progress_bar_metrics))


def run(tmp_path, callback, *others, backbone=None, latents=True, **options):
    logger = CSVLogger(tmp_path)
    model = options.pop("model", None) or Model(backbone)
    seen = []
    logger.log_metrics = lambda metrics, step=None: seen.append((step, dict(metrics)))
    trainer = Trainer(
        accelerator="cpu",
        logger=logger,
        callbacks=[callback, *others],
        max_epochs=-1,
        max_steps=options.pop("max_steps", 20),
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    data = Slow(latents=latents)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, DataLoader(data, batch_size=None), DataLoader([MediaBatch(captions=["a"], keys=["k"])], batch_size=None))
    return model, [(step, {name.removeprefix("throughput/"): value for name, value in metrics.items()}) for step, metrics in seen]


@pytest.mark.parametrize("latents", [True, False])
def test_counts_follow_from_each_other(tmp_path, latents):
    model, logged = run(tmp_path, Throughput(every_n_steps=5, peak_tflops=2e-6), backbone=Counted(), latents=latents)
    assert [step for step, _ in logged] == [5, 10, 15, 20]
    for step, values in logged:
        # 2 x 4 x 4 latent cells: pixels and latents of this test are the same size to the backbone.
        assert values["tokens_per_s"] / values["samples_per_s"] == pytest.approx(32)
        assert values["samples_per_s"] * values["step_s"] == pytest.approx(3)
        flops = 3 * 32 * (1000 + CONTEXT_LENGTH) * 3
        assert values["model_tflops_per_s"] * values["step_s"] == pytest.approx(flops / 1e12)
        assert values["mfu"] == pytest.approx(values["model_tflops_per_s"] / 2e-6)
        assert values["remaining_s"] == pytest.approx((20 - step) * values["step_s"])
        assert values["memory_gib"] > 0.05
    assert not model.backbone._forward_pre_hooks, "nothing is left on the model"


def test_waiting_and_validation_are_told_apart(tmp_path):
    _, logged = run(tmp_path, Throughput(every_n_steps=10), val_check_interval=4)
    assert [step for step, _ in logged] == [10, 20]
    for _, values in logged:
        assert "tokens_per_s" not in values
    values = logged[1][1]
    assert values["step_s"] == pytest.approx(STEP_S + WAIT_S)
    assert values["data_wait_share"] == pytest.approx(WAIT_S / (STEP_S + WAIT_S))
    assert values["samples_per_s"] == pytest.approx(3 / (STEP_S + WAIT_S))


def test_accumulated_batches_are_one_step(tmp_path):
    _, logged = run(tmp_path, Throughput(every_n_steps=2), accumulate_grad_batches=5, max_steps=4)
    assert [step for step, _ in logged] == [2, 4]
    assert logged[0][1]["samples_per_s"] * logged[0][1]["step_s"] == pytest.approx(15)


def test_refuses_wrong_numbers():
    with pytest.raises(ValueError, match="every_n_steps=0"):
        Throughput(every_n_steps=0)


def test_the_progress_bar_shows_a_few(tmp_path):
    bar = Bar()
    _, logged = run(tmp_path, Throughput(every_n_steps=5, peak_tflops=2e-6), bar, backbone=Counted())
    last = dict(logged)[15]
    assert bar.shown[3] == {} and bar.shown[14] == bar.shown[17]
    shown = bar.shown[14]
    assert shown == {"step_s": last["step_s"], "tokens_per_s": last["tokens_per_s"], "mfu": last["mfu"], "left": "15 s"}


def test_memory_has_four_parts(tmp_path):
    class Large(Model):
        def __init__(self):
            super().__init__(Counted())
            self.autoencoder = None
            self.table = torch.nn.Parameter(torch.zeros(2**22))

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) + self.table.sum()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.0)

    model = Large()
    _, logged = run(tmp_path, Throughput(every_n_steps=5), model=model)
    values = logged[-1][1]
    small = pytest.approx(2**-6, rel=1e-4)  # 4 Mi floats are 16 MiB
    assert values["memory_parameters_gib"] == small and values["memory_gradients_gib"] == small
    assert values["memory_optimizer_gib"] == pytest.approx(2**-5, rel=1e-4)
    parts = [values[f"memory_{part}_gib"] for part in ("parameters", "gradients", "optimizer", "rest")]
    assert sum(parts) == pytest.approx(values["memory_gib"]) and parts[-1] > 0


def test_a_measured_peak(tmp_path, monkeypatch):
    monkeypatch.setattr("moviegen_core.callbacks.throughput.measure_peak_tflops", lambda device, dtype: 3e-6)
    _, logged = run(tmp_path, Throughput(every_n_steps=5, measure_peak=True), backbone=Counted())
    assert logged[0][1]["mfu"] == pytest.approx(logged[0][1]["model_tflops_per_s"] / 3e-6)
    state = torch.get_rng_state()
    assert 1e-5 < measure_peak_tflops(torch.device("cpu"), torch.float32, repeats=1) < 1e3
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="one peak"):
        Throughput(measure_peak=True, peak_tflops=1.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.6, "1 min"), (75, "1 min 15 s"), (3600, "1 h"), (266500, "3 d 2 h"), (86399, "23 h 59 min"), (86460, "1 d")],
)
def test_times_are_readable(seconds, text):
    assert readable_time(seconds) == text
