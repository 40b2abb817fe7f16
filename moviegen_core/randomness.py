"""Random draws of training as a function of where it stands, so that resuming continues them and no two ranks share them."""

import hashlib
import os

import torch
from lightning.pytorch import LightningModule

from moviegen_core.parallel.place import data_place


def run_seed() -> int:
    """The run's seed: that of `seed_everything`, else 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def seed_from(*place: object) -> int:
    """A seed for torch that depends on all parts of a place."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, place)).encode()).digest()[:8], "little") >> 1


def seed_step(module: LightningModule, batch_idx: int) -> None:
    """Seed torch for one training step from the run's seed (`seed_everything`), the samples' rank, the optimizer step and the batch.

    Called at the start of a training step, it makes everything drawn in the step (noise, times, dropped conditions, samples of a
    posterior) the same after a resume as without the interruption, different on every data-parallel rank, and the same on processes that
    share a sample's sequence or matrices.
    """
    torch.manual_seed(seed_from(run_seed(), data_place(module._trainer).rank, module.global_step, batch_idx))
