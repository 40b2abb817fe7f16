"""Scorers: how well a sound goes with what it was made for; the best of several candidates is kept (6.1.6)."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError

_ENVELOPE_HZ = 100
_WINDOW = 1024


class Scorer(ABC):
    """Tells which of several sounds is best. One with weights loads them at its first use.

    Any class with a method `score` counts as one, in YAML too. It is no `Protocol`, because jsonargparse takes classes for one only where
    annotations are the very same, which those of jaxtyping never are.
    """

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        return callable(getattr(other, "score", None)) if cls is Scorer else NotImplemented

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
        onsets = per_frame(onset_strength(audio, audio_hz), batch.fps.to(audio.device), motion.shape[1])
        lags = range(-self.max_lag, self.max_lag + 1)
        return torch.stack([_correlation(onsets.roll(lag, dims=1), motion) for lag in lags]).amax(0)


def onset_strength(audio: Float[Tensor, "b a s"], audio_hz: int) -> Float[Tensor, "b k"]:
    """Rise of the logarithmic spectrum, summed over frequencies, a hundred times a second."""
    mono = audio.float().mean(1)
    hop = max(1, audio_hz // _ENVELOPE_HZ)
    window = torch.hann_window(_WINDOW, device=audio.device)
    spectrum = torch.stft(mono, _WINDOW, hop, window=window, pad_mode="constant", return_complex=True).abs()
    level = torch.log1p(100.0 * spectrum)
    return torch.nn.functional.pad(level.diff(dim=2).clamp_min(0.0).sum(1), (1, 0))


def motion_energy(video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b f"]:
    """Mean absolute change of the pixels from the frame before."""
    return torch.nn.functional.pad(video.float().diff(dim=2).abs().mean((1, 3, 4)), (1, 0))


def per_frame(envelope: Float[Tensor, "b k"], fps: Float[Tensor, " b"], num_frames: int) -> Float[Tensor, "b f"]:
    """Sum an envelope, sampled a hundred times a second, over the time for which each video frame lasts."""
    times = torch.arange(envelope.shape[1], device=envelope.device) / _ENVELOPE_HZ
    frames = (times * fps[:, None]).floor().long()
    total = envelope.new_zeros(len(envelope), num_frames + 1)  # the last one takes what is heard beyond the video
    return total.scatter_add(1, frames.clamp(max=num_frames), envelope)[:, :num_frames]


def _correlation(a: Float[Tensor, "b f"], b: Float[Tensor, "b f"]) -> Float[Tensor, " b"]:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-8)
