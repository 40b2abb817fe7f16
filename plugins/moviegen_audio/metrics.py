"""Measures of reconstructed sounds: mel and STFT distance, SI-SDR, and how many bits the latents carry."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from moviegen_audio.spectral import MelDistance, StftDistance

# Below this root mean square a sound is silence, for which a ratio of signal to distortion says nothing.
SILENCE_RMS = 1e-4


class SoundMetrics(nn.Module):
    """Averages over the sounds of all processes; the mel distance is DAC's, whatever windows the training used.

    Args:
        sample_rate: samples per second.
    """

    def __init__(self, *, sample_rate: int = 48000) -> None:
        super().__init__()
        self.mel_distance, self.stft_distance = MelDistance(sample_rate=sample_rate), StftDistance()
        self.means = nn.ModuleDict({name: MeanMetric(nan_strategy="error") for name in ("mel_distance", "stft_distance", "si_sdr")})

    @torch.no_grad()
    def update(self, decoded: Float[Tensor, "b a s"], audio: Float[Tensor, "b a s"]) -> None:
        """Add a batch."""
        decoded, audio = decoded.float(), audio.float()
        for name in ("mel_distance", "stft_distance"):
            self.means[name].update(getattr(self, name)(decoded, audio), weight=audio.shape[0])
        ours, target = decoded.flatten(0, 1), audio.flatten(0, 1)
        sounding = target.square().mean(-1).sqrt() > SILENCE_RMS
        if sounding.any():
            self.means["si_sdr"].update(scale_invariant_signal_distortion_ratio(ours[sounding], target[sounding]))

    def compute(self) -> dict[str, Tensor]:
        """`mel_distance`, `stft_distance`, and `si_sdr` in dB over all channels that are not silent, where there are any."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            values = {name: metric.compute() for name, metric in self.means.items()}
        return {name: value for name, value in values.items() if not value.isnan()}

    def reset(self) -> None:
        """Forget everything."""
        for metric in self.means.values():
            metric.reset()
