"""Random draws of training as a function of where it stands, so that resuming continues them and no two ranks share them."""

import hashlib
import os

import torch
from lightning.pytorch import LightningModule


def seed_step(module: LightningModule, batch_idx: int) -> None:
    """Seed torch for one training step from the run's seed (`seed_everything`), the rank, the optimizer step and the batch.

    Called at the start of a training step, it makes everything drawn in the step (noise, times, dropped conditions, samples of a
    posterior) the same after a resume as without the interruption, and different on every data-parallel rank.
    """
    place = f"{os.environ.get('PL_GLOBAL_SEED', 0)}/{_data_rank(module)}/{module.global_step}/{batch_idx}"
    torch.manual_seed(int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "little") >> 1)


def _data_rank(module: LightningModule) -> int:
    """Which share of the samples this process sees; processes that share a sample's sequence or matrices have it in common."""
    kwargs = getattr(module.trainer.strategy, "distributed_sampler_kwargs", None)
    return int(kwargs["rank"]) if kwargs else module.global_rank
