"""Trains and samples the smallest text-to-video model on meshes of gloo processes; run as a script by test_mesh.py.

    python mesh_worker.py FOLDER 1x1x1 2x1x1 2x1x1-offload ...     (data x context x tensor, and a variant)
    python mesh_worker.py FOLDER building 2x1x1 ...                (builds a larger model and notes the peak of memory)

One interpreter imports everything and forks the processes of one mesh after the other. Each process leaves FOLDER/MESH_RANK.pt.
"""

import faulthandler
import logging
import math
import multiprocessing
import os
import socket
import sys
import warnings
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from moviegen_core.backbone import Backbone
from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.ema import ExponentialMovingAverage
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.optimizers import MuonAdamW
from moviegen_core.parallel.clipping import gradient_norm
from moviegen_core.parallel.place import data_place
from moviegen_core.parallel.strategy import MeshStrategy
from moviegen_core.randomness import keyed_noise, keyed_share
from moviegen_core.sampler import FlowSampler
from moviegen_t2v.model import VideoTransformer
from moviegen_t2v.training import TextToVideo
from moviegen_tae.training import TemporalAutoencoder
from moviegen_text.embedded import HashedWordConditioner

VARIANTS = {
    "bf16": {"param_dtype": "bfloat16"},
    "offload": {"cpu_offload": True},
    "all_to_all": {"context_method": "all_to_all"},
    "gathered": {"reshard_after_forward": False},
}
RAN_TWICE = "ran twice:"
STEPS, MICRO_BATCHES, SAMPLES = 10, 2, 4
LATENT = (4, 3, 3, 3)  # 27 tokens: no number of processes divides them
CAPTIONS = ["a red ball moves left", "two squares", "", "a green star on a very long and winding road"]


class KeyedDraws(TextToVideo):
    """Draws noise, time and dropped conditions of a training sample from its key, so that they do not depend on who trains on it."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.losses_seen, self.norms_seen = [], []

    def training_step(self, batch, batch_idx):
        x_1 = self.latents(batch)
        noise = torch.stack([keyed_noise(x_1.shape[1:], 1, key) for key in batch.keys])
        t = torch.tensor([keyed_share(key) for key in batch.keys])
        dropped = torch.tensor([keyed_share(key) * 10 % 1 < 0.25 for key in batch.keys])
        loss = self.losses(x_1, noise, t, self.condition(batch, {"prompt": dropped})).mean()
        self.losses_seen.append(loss.item())
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.norms_seen.append(gradient_norm(self).item())


class Samples(LightningDataModule):
    """Micro-batches of SAMPLES samples in all; each data-parallel process sees its share."""

    def _batches(self, count, *, with_latents):
        place = data_place(self.trainer)
        share = slice(place.rank * SAMPLES // place.count, (place.rank + 1) * SAMPLES // place.count)
        batches = []
        for number in range(count):
            keys = [f"{number}-{i}" for i in range(SAMPLES)][share]
            latents = torch.stack([keyed_noise(LATENT, 2, key) for key in keys]) if with_latents else None
            sizes = {"num_frames": 24, "height": 24, "width": 24}
            batches.append(MediaBatch(captions=CAPTIONS[share], keys=keys, latents=latents, metadata=[dict(sizes) for _ in keys]))
        return DataLoader(batches, batch_size=None, shuffle=False)

    def train_dataloader(self):
        return self._batches(STEPS * MICRO_BATCHES, with_latents=True)

    def predict_dataloader(self):
        return self._batches(1, with_latents=False)


class PlainBackbone(Backbone):
    """A backbone that knows nothing of meshes, with weights that only its constructor knows."""

    def __init__(self):
        super().__init__(in_channels=4, width=32)
        self.first, self.last = nn.Conv3d(4, 32, 1), nn.Conv3d(32, 4, 1)
        self.time = nn.Linear(1, 32)
        nn.init.zeros_(self.last.weight)

    def forward(self, x_t, t, conditioning):
        told = self.time(t[:, None]) + (conditioning.context * conditioning.context_mask[..., None]).sum(1)
        return self.last(nn.functional.silu(self.first(x_t) + told[:, :, None, None, None]))


def write_stage(folder):
    """The weights of an earlier stage, trained on shorter videos."""
    earlier = build_model(max_frames=3)
    earlier.configure_model()
    torch.save({"state_dict": {name: 1.5 * weight for name, weight in earlier.state_dict().items()}}, folder / "stage.ckpt")


def build_model(optimizer=None, init_checkpoint=None, max_frames=4, backbone=None):
    transformer = partial(
        VideoTransformer, num_layers=2, width=32, ffn_width=48, num_heads=4, in_channels=4, patch_size=(1, 1, 1),
        max_frames=max_frames, max_height=4, max_width=4,
    )  # fmt: skip
    return KeyedDraws(
        init_checkpoint=init_checkpoint,
        backbone=backbone or transformer,
        conditioners={"prompt": lambda width: HashedWordConditioner(width, width_text=16, num_layers=1, num_buckets=64)},
        autoencoder=partial(
            TemporalAutoencoder, base_channels=4, channel_multipliers=[1, 1, 1, 1], num_res_blocks=1, latent_channels=4, norm_groups=2
        ),
        optimizer=optimizer or partial(torch.optim.AdamW, lr=1e-2, eps=1e-6),
        lr_scheduler=partial(torch.optim.lr_scheduler.LinearLR, start_factor=0.5, total_iters=4),
    )  # fmt: skip


def sizes_of(mesh):
    return tuple(map(int, mesh.partition("-")[0].split("x")))


def build_trainer(mesh, **arguments):
    data, context, tensor = sizes_of(mesh)
    count, variant = data * context * tensor, mesh.partition("-")[2]
    sizes = {"data_parallel_size": data, "context_parallel_size": context, "tensor_parallel_size": tensor}
    strategy = (
        "ddp"
        if variant == "ddp"
        else MeshStrategy(**sizes, **VARIANTS.get(variant, {}))
        if count > 1 or variant in ("mesh", *VARIANTS)
        else "auto"
    )
    return Trainer(
        accelerator="cpu", devices=count, strategy=strategy, use_distributed_sampler=False, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **arguments,
    )  # fmt: skip


def whole(tensors):
    return {name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone() for name, t in tensors.items()}


def run(mesh, folder):
    """Train, then sample, on one mesh."""
    seed_everything(7, verbose=False)
    ema = ExponentialMovingAverage(decay=0.9)
    trainer = build_trainer(mesh, max_steps=STEPS, accumulate_grad_batches=MICRO_BATCHES, gradient_clip_val=0.5, callbacks=[ema])
    muon = partial(MuonAdamW, lr=1e-2, half_precision=False)
    choices = {
        "muon": {"optimizer": muon},
        "stage": {"init_checkpoint": str(folder / "stage.ckpt")},
        "plain": {"backbone": PlainBackbone},
    }
    model = build_model(**choices.get(mesh.partition("-")[2], {}))
    model.sampler = FlowSampler(steps=3, schedule=LinearSchedule())
    start = {}
    model.on_train_start = lambda: start.update(whole(dict(model.named_parameters())))
    trainer.fit(model, datamodule=Samples())
    predictions = trainer.predict(model, datamodule=Samples())
    state = {
        "place": vars(data_place(trainer)),
        "losses": model.losses_seen,
        "norms": model.norms_seen,
        "start": start,
        "weights": whole({name: p for name, p in model.named_parameters() if p.requires_grad}),
        "average": whole(ema.averages),
        "local_elements": sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in model.backbone.parameters()),
        "samples": {key: video for batch in predictions for key, video in zip(batch["keys"], batch["video"], strict=True)},
        "latents": {key: latent for batch in predictions for key, latent in zip(batch["keys"], batch["latents"], strict=True)},
    }
    torch.save(state, folder / f"{mesh}_{trainer.global_rank}.pt")


class WatchedBuilding(KeyedDraws):
    """Notes by how many bytes its process grew, at the most, while it was built."""

    def configure_model(self):
        if self.backbone is None:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            before = _status("VmRSS")
            super().configure_model()
            self.grown = _status("VmHWM") - before


def _status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def build(mesh, folder):
    """Build a model of 200 MB on a mesh, and note what that took."""
    seed_everything(7, verbose=False)
    sizes = {"num_layers": 12, "width": 512, "ffn_width": 1376, "num_heads": 8, "in_channels": 4, "patch_size": (1, 1, 1)}
    model = WatchedBuilding(backbone=partial(VideoTransformer, **sizes), conditioners={})
    build_trainer(mesh, max_steps=1).fit(model, datamodule=Samples())
    parameters = list(model.backbone.parameters())
    share, whole = (sum(4 * p.numel() for p in some) for some in ((p.to_local() for p in parameters), parameters))
    torch.save({"grown": model.grown, "share": share, "whole": whole}, folder / f"building-{mesh}_{model.trainer.global_rank}.pt")


def _enter(rank, count, port, function, arguments):
    place = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    if count == 1:
        os.environ.pop("LOCAL_RANK")
    faulthandler.enable()
    function(*arguments)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def fork(count, function, *arguments):
    """Run a function in `count` forked processes that find each other; an exit code other than 0 is an error.

    Where a process was killed by a signal, as by a fault in torch or gloo, they run once more, and stderr tells of it.
    """
    codes = _exit_codes(count, function, arguments)
    if min(codes) < 0:
        print(f"{RAN_TWICE} {function.__name__}{arguments}, after the exit codes {codes}", file=sys.stderr, flush=True)
        codes = _exit_codes(count, function, arguments)
    if any(codes):
        raise SystemExit(f"{function.__name__}{arguments}: exit codes {codes}")


def _exit_codes(count, function, arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_enter, args=(rank, count, port, function, arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def quiet():
    """What Lightning tells users is not for tests."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)


if __name__ == "__main__":
    quiet()
    folder, *meshes = sys.argv[1:]
    work = build if meshes[0] == "building" else run
    if work is run:
        write_stage(Path(folder))
    for mesh in meshes[work is build :]:
        fork(math.prod(sizes_of(mesh)), work, mesh, Path(folder))
