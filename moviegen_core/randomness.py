"""Random draws as a function of where training stands, so that resuming continues them and no two ranks share them; or of a key."""

import hashlib
import os
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

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


def keyed_share(key: str) -> float:
    """A number in (0, 1) that is spread evenly over keys."""
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "little") + 0.5) / 2**48


def keyed_noise(shape: Sequence[int], seed: int, key: str) -> Tensor:
    """Normal noise by a seed and a sample's key: the same on one process and on many, on a CPU and on a GPU, so drawn on the CPU."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed_from(seed, key)))
