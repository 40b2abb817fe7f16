"""Figures of a sound: against a reference (log-mel distance, SI-SDR), and alone (boundary smoothness, range of levels, clipping).

Waveforms are float in [-1, 1], (s,) or (channels, s); every function gives one number.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from moviegen_core.errors import UsageError
from moviegen_eval.onsets import HOP, spectral_flux
from moviegen_eval.waveforms import HEARING_HZ, as_waveform

_FLOOR = 1e-5  # of full scale; quieter bands count as this
_SILENT_DB = -70.0


def log_mel_distance(
    estimate: Float[Tensor, "..."],
    reference: Float[Tensor, "..."],
    *,
    audio_hz: int,
    num_bands: int = 80,
    window: int = 2048,
    hop: int = 512,
) -> float:
    """Mean absolute difference of two sounds' logarithmic mel spectrograms, in dB; 0 for equal ones.

    Args:
        estimate: the sound that is judged.
        reference: the sound it should be; of the same shape.
        audio_hz: samples per second of both.
        num_bands: mel bands from 0 Hz to half the rate.
        window: samples of an analysis window (Hann).
        hop: samples between windows.
    """
    _require_alike(estimate, reference)
    bands = mel_bands(audio_hz, num_bands, window).to(reference.device)
    levels = []
    for sound in (estimate, reference):
        rows = torch.atleast_2d(sound.detach().float())
        rows = torch.nn.functional.pad(rows, (0, max(window - rows.shape[-1], 0)))
        spectrum = torch.stft(rows, window, hop, window=torch.hann_window(window, device=rows.device), center=False, return_complex=True)
        amplitude = 2.0 / window * spectrum.abs()
        levels.append(20.0 * torch.log10((bands @ amplitude).clamp_min(_FLOOR)))
    return float((levels[0] - levels[1]).abs().mean())


def si_sdr(estimate: Float[Tensor, "..."], reference: Float[Tensor, "..."]) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, averaged over channels; more is better."""
    _require_alike(estimate, reference)
    return float(scale_invariant_signal_distortion_ratio(estimate.detach().float(), reference.detach().float()).mean())


def boundary_flux(audio: Float[Tensor, "..."], audio_hz: int, boundaries_s: Sequence[float], *, within_s: float = 0.05) -> float:
    """How rough a sound is at given boundaries: the mean of the greatest spectral flux near each, over the median flux elsewhere.

    About 1 to 3 is what any place of a steady sound has (the greatest of a few values is above the median); a cut that is heard has more.

    Args:
        audio: a sound.
        audio_hz: its samples per second.
        boundaries_s: where segments were joined, in seconds.
        within_s: how far from a boundary its flux is looked for, in seconds.
    """
    flux = spectral_flux(as_waveform(audio, audio_hz))
    times = np.arange(len(flux)) * HOP / HEARING_HZ
    near = [abs(times - boundary) <= within_s for boundary in boundaries_s]
    elsewhere = ~np.any(near, axis=0) if near else np.ones(len(flux), dtype=bool)
    if not near or not all(mask.any() for mask in near) or not elsewhere.any():
        given = f"boundaries at {list(boundaries_s)} s of a sound of {len(flux) * HOP / HEARING_HZ:.2f} s were given"
        raise UsageError(given, "boundaries lie inside the sound and leave some of it over", "give the places where segments were joined")
    return float(np.mean([flux[mask].max() for mask in near]) / max(np.median(flux[elsewhere]), 1e-3))


def level_range(audio: Float[Tensor, "..."], audio_hz: int, *, window_s: float = 3.0, step_s: float = 0.1) -> float:
    """The range of levels in dB: the 95th less the 10th percentile over windows, as EBU Tech 3342 has it but without K-weighting.

    Windows below -70 dB of full scale, or 20 dB below the mean power of the rest, do not count; a sound shorter than a window has none.

    Args:
        audio: a sound.
        audio_hz: its samples per second.
        window_s: seconds of a window.
        step_s: seconds between windows.
    """
    rows = torch.atleast_2d(audio.detach().double())
    window, step = round(window_s * audio_hz), max(round(step_s * audio_hz), 1)
    if rows.shape[-1] < window:
        return 0.0
    total = torch.nn.functional.pad((rows**2).sum(0).cumsum(0), (1, 0))
    power = ((total[window:] - total[:-window]) / window)[::step]
    power = power[power > 10 ** (_SILENT_DB / 10)]
    if not len(power):
        return 0.0
    levels = 10.0 * torch.log10(power[power >= 0.01 * power.mean()])
    return float(torch.quantile(levels, 0.95) - torch.quantile(levels, 0.10))


def clipping_share(audio: Float[Tensor, "..."], *, ceiling: float = 0.999) -> float:
    """Share of samples that lie, with at least one neighbour, at the ceiling: a lone peak that touches it is no clipping.

    Args:
        audio: a sound.
        ceiling: of full scale, from where on a sample may be a clipped one.
    """
    rows = torch.atleast_2d(audio.detach())
    at = rows.abs() >= ceiling
    same = at[..., 1:] & at[..., :-1] & (rows[..., 1:].sign() == rows[..., :-1].sign())
    clipped = torch.nn.functional.pad(same, (1, 0)) | torch.nn.functional.pad(same, (0, 1))
    return float(clipped.float().mean()) if rows.numel() else 0.0


@cache
def mel_bands(audio_hz: int, num_bands: int, window: int) -> Float[Tensor, "bands bins"]:
    """Triangles of equal width on the mel scale 2595 · log10(1 + f / 700), from 0 Hz to half the rate, each 1 at its centre."""
    edges = 700.0 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + audio_hz / 1400), num_bands + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, audio_hz / 2, window // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp_min(0.0).float()


def _require_alike(estimate: Tensor, reference: Tensor) -> None:
    if estimate.shape != reference.shape or not estimate.numel():
        given = f"sounds of shapes {tuple(estimate.shape)} and {tuple(reference.shape)} were given"
        raise UsageError(given, "a comparison is of two sounds of one length", "cut both to the shorter one")
