"""Trains a small text-to-video model on two processes: `python meshes.py FOLDER PORT`; prints what it found as JSON."""

import json
import logging
import os
import sys
import warnings
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.checkpoint import LastCheckpoint
from moviegen_core.callbacks.configuration import ConfigurationSaver
from moviegen_core.callbacks.ema import ExponentialMovingAverage
from moviegen_core.errors import UsageError
from moviegen_core.parallel.strategy import MeshStrategy
from moviegen_core.randomness import keyed_noise, keyed_share
from moviegen_t2v import TextToVideo, VideoTransformer
from moviegen_text import HashedWordConditioner

SIZES = {"num_layers": 2, "width": 32, "ffn_width": 64, "num_heads": 2, "in_channels": 4, "max_frames": 4, "max_height": 4, "max_width": 4}
NUM_BATCHES = 12


class Keyed(TextToVideo):
    """Draws noise and times by the samples' keys, so that it makes no difference which process sees a sample."""

    def training_step(self, batch, batch_idx):
        noise = torch.stack([keyed_noise(batch.latents.shape[1:], self.global_step, key) for key in batch.keys])
        t = self.timesteps.quantile(torch.tensor([keyed_share(f"{key}/{self.global_step}") for key in batch.keys]))
        return self.losses(batch.latents, noise, t, self.condition(batch)).mean()


def make_model(optimizer=None, **sizes):
    torch.manual_seed(0)
    words = partial(HashedWordConditioner, width_text=16, num_layers=1, num_heads=2, max_words=32, num_buckets=256)
    return Keyed(
        backbone=partial(VideoTransformer, **{**SIZES, **sizes}),
        conditioners={"prompt": lambda width: words(width=width)},
        optimizer=optimizer or partial(torch.optim.AdamW, lr=1e-2),
        lr_scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=3),
    )


def make_batches(rank, world_size):
    """The share of a rank of the same samples."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for number in range(NUM_BATCHES):
        keys = [f"sample-{number}-{sample}" for sample in range(4)][rank * 4 // world_size : (rank + 1) * 4 // world_size]
        latents = torch.randn(4, 4, 2, 6, 6, generator=generator)[rank * 4 // world_size : (rank + 1) * 4 // world_size]
        batches.append(MediaBatch(captions=[f"a film of {key}" for key in keys], keys=keys, latents=latents))
    return batches


class Batches(DataLoader):
    """Goes on after a resume where it was."""

    def __init__(self, batches):
        super().__init__(batches, batch_size=None, collate_fn=lambda batch: batch)
        self.handed_out = self.first = 0

    def __iter__(self):
        self.handed_out = self.first
        for batch in list(self.dataset)[self.first :]:
            self.handed_out += 1
            yield batch

    def state_dict(self):
        return {"handed_out": self.handed_out}

    def load_state_dict(self, state):
        self.first = state["handed_out"]


class Curve(Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean").item())


def fit(folder, steps, *, ckpt_path=None, save_every=100, sizes=None, **mesh):
    """Losses from where training began, the average weights whole, and the trainer."""
    strategy = MeshStrategy(**mesh, timeout_s=60.0) if mesh else "auto"
    curve, ema = Curve(), ExponentialMovingAverage(decay=0.9)
    configuration = ConfigurationSaver(class_path="moviegen_t2v.TextToVideo", init_args={"num_frames": 2})
    trainer = Trainer(
        accelerator="cpu", devices=2 if mesh else 1, strategy=strategy, max_steps=steps, max_epochs=1, logger=False,
        callbacks=[curve, ema, configuration, LastCheckpoint(every_n_train_steps=save_every, dirpath=str(folder))],
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, gradient_clip_val=0.5,
    )  # fmt: skip
    replicas = mesh.get("data_parallel_size", 1)
    rank = (trainer.global_rank if dist.is_initialized() or mesh else 0) % replicas if replicas > 1 else 0
    trainer.fit(make_model(**(sizes or {})), Batches(make_batches(rank, replicas)), ckpt_path=ckpt_path)
    averages = {name: getattr(mean, "full_tensor", lambda mean=mean: mean)().clone() for name, mean in ema.averages.items()}
    return curve.losses, averages, trainer


def refusal(*args, **kwargs):
    try:
        fit(*args, **kwargs)
    except UsageError as error:
        return str(error)
    return "nothing was refused"


def main(folder):
    dp, tp = {"data_parallel_size": 2}, {"data_parallel_size": 1, "tensor_parallel_size": 2}
    found = {}
    found["whole"], _, _ = fit(folder / "whole", 8, **dp)
    found["part"], averages, _ = fit(folder / "part", 4, save_every=2, async_checkpoint=True, **dp)
    checkpoint = folder / "part" / "last.ckpt"
    found["dp2"], _, _ = fit(folder / "a", 8, ckpt_path=checkpoint, **dp)
    found["tp2"], _, _ = fit(folder / "b", 8, ckpt_path=checkpoint, **tp)
    _, resharded, _ = fit(folder / "c", 4, ckpt_path=checkpoint, **tp)
    found["far"] = max((averages[name] - resharded[name]).abs().max().item() for name in averages)
    fit(folder / "file", 4, save_distributed_checkpoint=False, **tp)
    found["file"], _, _ = fit(folder / "d", 8, ckpt_path=folder / "file" / "last.ckpt", **dp)
    found["another"] = refusal(folder / "e", 8, ckpt_path=checkpoint, sizes={"ffn_width": 96}, **dp)
    plain = partial(torch.optim.SGD, lr=1e-2)
    found["optimizer"] = refusal(folder / "f", 8, ckpt_path=checkpoint, sizes={"optimizer": plain}, **dp)
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    os.environ.update(WORLD_SIZE="2", NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2])
    child = os.fork()
    os.environ["LOCAL_RANK"] = "0" if child else "1"
    found = main(Path(sys.argv[1]))
    if child:
        print(json.dumps(found), flush=True)
        os.waitpid(child, 0)
    os._exit(0)
