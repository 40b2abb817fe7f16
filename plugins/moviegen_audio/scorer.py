"""Scorers: how well a sound goes with what it was made for; the best of several candidates is kept (6.1.6)."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError

_ENVELOPE_HZ = 100  # about: hops are whole samples
_WINDOW_S = 0.02


class Scorer(ABC):
    """Tells which of several sounds is best; the base class of your own. One with weights loads them at its first use."""

    @abstractmethod
    def score(self, audio: Float[Tensor, "b a s"], audio_hz: int, batch: MediaBatch) -> Float[Tensor, " b"]:
        """A finite number for each sound, higher for a better one.

        Args:
            audio: sounds in [-1, 1].
            audio_hz: their samples per second.
            batch: what they were made for: captions, video with its fps, extras.
        """


class OnsetSyncScorer(Scorer):
    """Agreement of what is heard with what moves: the correlation over video frames of onset strength with motion energy.

    It needs no weights. It is a stand-in for the ImageBind score of the paper: it knows when something should be heard, not what.

    Args:
        max_lag: video frames by which the sound may come late or early; the best of these lags counts.
    """

    def __init__(self, *, max_lag: int = 1) -> None:
        if max_lag < 0:
            raise UsageError(f"max_lag={max_lag} was given", "it counts video frames", "give 0 or more")
        self.max_lag = max_lag

    def score(self, audio: Float[Tensor, "b a s"], audio_hz: int, batch: MediaBatch) -> Float[Tensor, " b"]:
        """Correlations in [-1, 1]; 0 where nothing moves or nothing is heard."""
        if batch.video is None or batch.fps is None:
            raise UsageError(
                "sounds without a video were given to OnsetSyncScorer",
                "it compares them with what moves in the video",
                "give a video and its fps, or num_candidates 1, or another scorer",
            )
        motion = motion_energy(batch.video.to(audio.device))
        strength, envelope_hz = onset_strength(audio, audio_hz)
        onsets = per_frame(strength, envelope_hz, batch.fps.to(audio.device), motion.shape[1])
        lags = range(-self.max_lag, self.max_lag + 1)
        return torch.stack([_correlation(_shifted(onsets, lag), motion) for lag in lags]).amax(0)


def onset_strength(audio: Float[Tensor, "b a s"], audio_hz: int) -> tuple[Float[Tensor, "b k"], float]:
    """Rise of the logarithmic spectrum, summed over frequencies, about a hundred times a second; and how often exactly."""
    mono, hop, size = audio.float().mean(1), max(1, audio_hz // _ENVELOPE_HZ), max(2, round(_WINDOW_S * audio_hz))
    window = torch.hann_window(size, device=audio.device)
    spectrum = torch.stft(mono, size, hop, window=window, pad_mode="constant", return_complex=True).abs()
    level = torch.log1p(100.0 * spectrum)
    return torch.nn.functional.pad(level.diff(dim=2).clamp_min(0.0).sum(1), (1, 0)), audio_hz / hop


def motion_energy(video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b f"]:
    """Mean absolute change of the pixels from the frame before."""
    return torch.nn.functional.pad(video.float().diff(dim=2).abs().mean((1, 3, 4)), (1, 0))


def per_frame(envelope: Float[Tensor, "b k"], envelope_hz: float, fps: Float[Tensor, " b"], num_frames: int) -> Float[Tensor, "b f"]:
    """Sum an envelope of some rate over the time for which each video frame lasts."""
    times = torch.arange(envelope.shape[1], device=envelope.device) / envelope_hz
    frames = (times * fps[:, None]).floor().long()
    total = envelope.new_zeros(len(envelope), num_frames + 1)  # the last one takes what is heard beyond the video
    return total.scatter_add(1, frames.clamp(max=num_frames), envelope)[:, :num_frames]


def _shifted(envelope: Float[Tensor, "b f"], lag: int) -> Float[Tensor, "b f"]:
    """The envelope `lag` frames later; nothing comes in from the other end."""
    length = envelope.shape[1]
    return torch.nn.functional.pad(envelope, (max(lag, 0), max(-lag, 0)))[:, max(-lag, 0) :][:, :length]


def _correlation(a: Float[Tensor, "b f"], b: Float[Tensor, "b f"]) -> Float[Tensor, " b"]:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-8)
