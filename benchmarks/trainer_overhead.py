"""What a training step costs over a bare loop: Lightning alone, and with this project's callbacks idle.

    python benchmarks/trainer_overhead.py --threads 1 --rounds 9

A small multilayer perceptron on a fixed batch; every subject is timed once per round in turn, medians over rounds. The differences are
what matters: they hardly depend on the model. Times are the process's own processor time, so that what else the machine does is not
counted; on one thread of an idle machine they equal the clock's. The callbacks are all there and have nothing to write in the timed
steps, but for the moving average, which moves at every step as it must. Results go to benchmarks/results/trainer_overhead.json.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.ema import ExponentialMovingAverage
from moviegen_core.callbacks.media import ReconstructionLogger, SampleLogger
from moviegen_core.callbacks.plateau import HalveOnPlateau
from moviegen_core.callbacks.throughput import Throughput

HERE = Path(__file__).parent
WARMUP_STEPS = 20


class Model(LightningModule):
    """A perceptron whose step takes well under a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(64, 64), nn.SiLU())])

    def training_step(self, batch: MediaBatch, batch_idx: int) -> Tensor:
        """Any loss."""
        return self.network(batch.latents).square().mean()

    def generate(self, captions: list[str]) -> Tensor:
        """Never called in the timed steps."""
        raise AssertionError("the callbacks are to be idle")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


class Stopwatch(Callback):
    """Times the steps after the warm-up, from batch to batch."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.step_ms = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start after the warm-up, stop at the last batch."""
        if batch_idx == WARMUP_STEPS:
            self.started = time.process_time()
        elif batch_idx == WARMUP_STEPS + self.num_steps:
            self.step_ms = (time.process_time() - self.started) / self.num_steps * 1e3


def batch() -> MediaBatch:
    """The one batch of all steps."""
    return MediaBatch(captions=["a"] * 8, keys=["k"] * 8, latents=torch.ones(8, 64))


def bare(num_steps: int) -> float:
    """Milliseconds per step of a plain loop."""
    model, data = Model(), batch()
    optimizer = model.configure_optimizers()
    started = 0.0
    for step in range(WARMUP_STEPS + num_steps):
        if step == WARMUP_STEPS:
            started = time.process_time()
        optimizer.zero_grad()
        model.training_step(data, step).backward()
        optimizer.step()
    return (time.process_time() - started) / num_steps * 1e3


def trained(num_steps: int, callbacks: Callable[[], list[Callback]]) -> float:
    """Milliseconds per step of a Trainer without checkpoints and progress bar, logging too rarely to be seen."""
    stopwatch = Stopwatch(num_steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            logger=TensorBoardLogger(folder),
            callbacks=[*callbacks(), stopwatch],
            max_epochs=1,
            log_every_n_steps=100_000,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Model(), DataLoader([batch()] * (WARMUP_STEPS + num_steps + 1), batch_size=None))
    return stopwatch.step_ms


SUBJECTS: dict[str, Callable[[int], float]] = {
    "bare": bare,
    "lightning": lambda n: trained(n, list),
    "ema": lambda n: trained(n, lambda: [ExponentialMovingAverage()]),
    "throughput": lambda n: trained(n, lambda: [Throughput(every_n_steps=100_000)]),
    "media": lambda n: trained(n, lambda: [SampleLogger(prompts=["a"], every_n_steps=100_000), ReconstructionLogger()]),
    "all": lambda n: trained(
        n,
        lambda: [
            ExponentialMovingAverage(),
            Throughput(every_n_steps=100_000),
            SampleLogger(prompts=["a"], every_n_steps=100_000),
            ReconstructionLogger(),
            HalveOnPlateau(),
        ],
    ),
}


def main() -> None:
    """Time all subjects, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "trainer_overhead.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")

    times: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    for _ in range(args.rounds):
        for name, subject in SUBJECTS.items():
            times[name].append(subject(args.steps))
    medians = {name: statistics.median(values) for name, values in times.items()}
    over = {name: median - medians["lightning"] for name, median in medians.items() if name not in ("bare", "lightning")}
    for name, median in medians.items():
        above = f"{median - medians['bare']:+7.3f} over bare"
        print(f"{name:>12} {median:7.3f} ms/step  {above}  {median - medians['lightning']:+7.3f} over Lightning")
    result = {
        "clock": "processor time of the process",
        "ms_per_step": {name: round(median, 4) for name, median in medians.items()},
        "lightning_over_bare_ms": round(medians["lightning"] - medians["bare"], 4),
        "over_lightning_ms": {name: round(value, 4) for name, value in over.items()},
        "goal_over_lightning_ms": 0.3,
        "rounds": args.rounds,
        "steps": args.steps,
        "threads": args.threads,
        "cpu_count": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
