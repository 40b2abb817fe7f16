"""How far samples beyond the training length are from the truth, where the truth is known: a Gaussian process over time. Trains nothing.

python benchmarks/extension.py [--output benchmarks/results/extension.json]

Latents are a stationary Gaussian process of unit variance: a Matérn 3/2 process over `SHORT` frames, as of events, mixed with one over
`LONG` frames, as of music. For a window of any length the velocity of the optimal transport path is known in closed form, with and without
context; it stands for a network that learned perfectly what windows look like, and knows nothing beyond a window. Velocities and samplers
are linear, so feeding a sampler the unit vectors as noise gives the law of its samples exactly: N(0, A·Aᵀ).

Told for each method:
    jump         mean squared step between neighbouring frames at the worst seam, over the median of the steps elsewhere; 1 is seamless
    variance     smallest and largest variance of a frame; the truth is 1
    distance     squared 2-Wasserstein distance of the samples' law to the true one, a frame
    correlation  of frames half a window apart on either side of a seam
A seam is where a window begins or ends inside the whole. The one-shot sample has none; it is measured where the stitched one has.
"""

import argparse
import json
import platform
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from moviegen_audio import MultiDiffusion, SegmentAutoregressive
from moviegen_core.conditioner import Conditioning
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.flow.solvers import MidpointSolver
from moviegen_core.sampler import FlowSampler, Sampler

SHORT, LONG, SHARE = 6.0, 60.0, 0.5


def covariance(length: int) -> Tensor:
    """The true covariance of `length` frames (t, t)."""
    lag = (torch.arange(length)[:, None] - torch.arange(length)).abs().double()
    short, long = ((1 + 3**0.5 * lag / scale) * torch.exp(-(3**0.5) * lag / scale) for scale in (SHORT, LONG))
    return (1 - SHARE) * short + SHARE * long


@lru_cache(maxsize=64)
def posterior(length: int, known: int) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a window's covariance given its first frames, and the matrix from those frames to the mean."""
    prior = covariance(length)
    if not known:
        return (*torch.linalg.eigh(prior), torch.zeros(length, 0, dtype=torch.float64))
    gain = torch.linalg.solve(prior[:known, :known], prior[:known]).T
    rest = (prior - gain @ prior[:known]).clone()
    rest[:known], rest[:, :known] = 0.0, 0.0
    return (*torch.linalg.eigh(rest), gain)


def velocity(x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
    """The marginal velocity E[x_1 − x_0 | x_t, context] of a window (b, c, t); frames of the channels door that are not 0 are context."""
    length, time = x.shape[2], float(t[0])
    context = conditioning.channels
    known = 0 if context is None else int((context != 0).any(0).any(0).sum())
    values, vectors, gain = posterior(length, known)
    mean = 0.0 if not known else context[:, :, :known].double() @ gain.T
    rates = (time * values - (1 - time)) / (time**2 * values + (1 - time) ** 2)
    return (mean + ((x.double() - time * mean) @ vectors * rates) @ vectors.T).to(x.dtype)


def law(sampler: Sampler, length: int) -> Tensor:
    """The exact covariance of a sampler's samples (t, t)."""
    noise = torch.eye(length, dtype=torch.float64)[:, None]
    sample = sampler.sample(velocity, noise, [Conditioning(channels=torch.zeros_like(noise))])
    return sample[:, 0].T @ sample[:, 0]


def steps(found: Tensor) -> Tensor:
    """Mean squared steps from every frame to the next."""
    return found.diagonal()[1:] + found.diagonal()[:-1] - 2 * found.diagonal(1)


def wasserstein(one: Tensor, other: Tensor) -> float:
    """Squared 2-Wasserstein distance of two centred Gaussians, a frame."""
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum()
    return float((one.trace() + other.trace() - 2 * cross) / len(one))


def samplers(window: int, overlap: int, steps: int) -> dict[str, Sampler]:
    """The methods of 6.1.5 at one window and overlap."""
    options = {"steps": steps, "guidance_scale": 1.0, "schedule": LinearSchedule(), "solver": MidpointSolver()}
    cut = {"window": window, "hop": window - overlap, **options}
    return {
        "stitch": SegmentAutoregressive(context=False, trajectory=False, **cut),
        "AR, context": SegmentAutoregressive(context=True, **cut),
        "AR, trajectory": SegmentAutoregressive(context=False, trajectory=True, **cut),
        "AR, both": SegmentAutoregressive(context=True, trajectory=True, **cut),
        "MD, uniform": MultiDiffusion(shape="uniform", **cut),
        "MD, triangular": MultiDiffusion(shape="triangular", **cut),
        "one shot": FlowSampler(**options),
    }


def seams(sampler: Sampler, length: int) -> list[int]:
    """Steps (frame to next frame) at which a window begins or ends inside the whole."""
    windows = sampler.segments(length)
    return sorted({w.start - 1 for w in windows if w.start} | {w.stop - 1 for w in windows if w.stop < length})


def measure(found: Tensor, boundaries: list[int], lag: int) -> dict[str, float]:
    """The figures of one law."""
    jumps, spread = steps(found), found.diagonal().sqrt()
    inside = torch.ones_like(jumps, dtype=torch.bool)
    inside[boundaries] = False
    correlation = found / (spread[:, None] * spread)
    across = [float(correlation[seam - lag // 2, seam - lag // 2 + lag]) for seam in boundaries]
    return {
        "jump": round(float(jumps[boundaries].max() / jumps[inside].median()), 3),
        "variance_min": round(float(found.diagonal().min()), 3),
        "variance_max": round(float(found.diagonal().max()), 3),
        "distance": round(wasserstein(found, covariance(len(found))), 4),
        "correlation": round(sum(across) / len(across), 3),
    }


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=160)
    parser.add_argument("--window", type=int, default=40)
    parser.add_argument("--overlaps", type=int, nargs="+", default=[4, 10, 20])
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "extension.json")
    given = parser.parse_args(args)
    lag = given.window // 2
    record: dict[str, object] = {
        "process": {"short": SHORT, "long": LONG, "share_of_long": SHARE},
        "sampling": {"length": given.length, "window": given.window, "steps": given.steps, "solver": "midpoint"},
        "true_correlation": round(float(covariance(lag + 1)[0, lag]), 3),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}",
    }
    for overlap in given.overlaps:
        methods = samplers(given.window, overlap, given.steps)
        seamed = seams(methods["stitch"], given.length)  # where the one-shot sample, which has no seams, is measured
        found = {
            name: measure(law(sampler, given.length), seams(sampler, given.length) or seamed, lag) for name, sampler in methods.items()
        }
        record[f"overlap {overlap}"] = found
        print(f"window {given.window}, overlap {overlap}; true correlation over {lag} frames {record['true_correlation']}")
        for name, figures in found.items():
            print(f"  {name:<16}" + "".join(f"  {what} {value:7.3f}" for what, value in figures.items()))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
