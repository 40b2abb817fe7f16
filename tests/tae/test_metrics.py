"""Reconstruction measures over two processes that saw different kinds; see test_perceptual.py for their values."""

import torch
import torch.distributed
import torch.multiprocessing

from moviegen_tae.metrics import ReconstructionMetrics


def pair(seed, frames):
    generator = torch.Generator().manual_seed(seed)
    video = torch.rand(3, 3, frames, 16, 16, generator=generator) * 2 - 1
    return (video + 0.1 * (seed + 1) * torch.randn(video.shape, generator=generator)).clamp(-1, 1), video


def _measure(rank, address, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    metrics = ReconstructionMetrics()
    # One process sees pictures only, the other films only.
    metrics.update(*pair(rank, 5 if rank else 1), is_image=rank == 0)
    torch.save(metrics.compute(), f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_that_saw_different_kinds_agree(tmp_path):
    torch.multiprocessing.spawn(_measure, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    together = ReconstructionMetrics()
    for rank in (0, 1):
        together.update(*pair(rank, 5 if rank else 1), is_image=rank == 0)
    expected = together.compute()
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)
