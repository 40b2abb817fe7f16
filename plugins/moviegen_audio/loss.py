"""Losses of the DAC-VAE: distances of spectra and waveforms, KL, and least-squares adversarial terms with feature matching."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moviegen_audio.bottleneck import Posterior
from moviegen_audio.spectral import LOG_FLOOR, MelDistance, StftDistance, require_windows
from moviegen_core.errors import UsageError, require_at_least

# Sounds fainter than this (-60 dB of full scale) are not made up for: what they hold is mostly the noise of the recording.
_FAINTEST = 1e-3


@dataclass(frozen=True)
class SoundLossWeights:
    """Weights of the losses; 0 switches one off. Defaults are DAC's, but for the KL, which DAC does not have.

    Args:
        mel: distance of log mel spectra (15).
        stft: distance of linear and log spectra (0).
        waveform: mean absolute error of samples (0).
        relative_waveform: the same over the mean absolute value of the sound itself, so that faint recordings count as much as loud
            ones (0).
        kl: divergence of the posterior from the standard normal, in nats per latent frame summed over channels.
        adversarial: least-squares loss of the discriminator's scores (1), where there is a discriminator.
        feature_matching: mean absolute error of the discriminator's feature maps (2), where there is a discriminator.
        adversarial_start_step: first step at which the discriminator counts.

    Raises:
        UsageError: a weight is negative or infinite.
    """

    mel: float = 15.0
    stft: float = 0.0
    waveform: float = 0.0
    relative_waveform: float = 0.0
    kl: float = 1e-4
    adversarial: float = 1.0
    feature_matching: float = 2.0
    adversarial_start_step: int = 0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"loss.{name} is {getattr(self, name)}", "weights are 0 (off) or more", "set it to 0 or above")


class ReconstructionLoss(nn.Module):
    """The weighted distances between a sound and its reconstruction, and the weighted KL, by name.

    Args:
        weights: weights of the losses.
        sample_rate: samples per second.
        mel_windows: window lengths of the mel distance in samples (DAC: 32 to 2048).
        mel_bands: mel bands for each of them (DAC: 5 to 320).
        stft_windows: window lengths of the STFT distance in samples (DAC: 2048 and 512).
        log_floor: smallest magnitude that the logarithms tell apart (DAC: 1e-5).

    Raises:
        UsageError: windows and bands are not equally many, a distance that counts has none, or no distance is switched on.
    """

    def __init__(
        self,
        *,
        weights: SoundLossWeights = SoundLossWeights(),
        sample_rate: int = 48000,
        mel_windows: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048),
        mel_bands: Sequence[int] = (5, 10, 20, 40, 80, 160, 320),
        stft_windows: Sequence[int] = (2048, 512),
        log_floor: float = LOG_FLOOR,
    ) -> None:
        super().__init__()
        if len(mel_windows) != len(mel_bands):
            raise UsageError(
                f"{len(mel_windows)} mel_windows and {len(mel_bands)} mel_bands were given",
                "every window has its number of bands",
                "give as many of the one as of the other",
            )
        if weights.mel:
            require_windows("mel_windows", mel_windows)
            require_at_least(1, mel_bands=min(mel_bands))
        if weights.stft:
            require_windows("stft_windows", stft_windows)
        if not 0 < log_floor < math.inf:
            raise UsageError(f"log_floor={log_floor} was given", "logarithms are of what is above 0", "give e.g. 1e-5")
        if not (weights.mel or weights.stft or weights.waveform or weights.relative_waveform):
            raise UsageError(
                "loss.mel, loss.stft, loss.waveform and loss.relative_waveform are all 0",
                "then nothing asks the decoded sound to be the one that was encoded",
                "set one of them above 0",
            )
        self.weights = weights
        self.mel = MelDistance(sample_rate=sample_rate, windows=mel_windows, num_bands=mel_bands, log_floor=log_floor)
        self.stft = StftDistance(windows=stft_windows, log_floor=log_floor)

    def forward(self, decoded: Float[Tensor, "b a s"], audio: Float[Tensor, "b a s"], posterior: Posterior) -> dict[str, Float[Tensor, ""]]:
        """The terms that are switched on."""
        weights, terms = self.weights, {}
        if weights.mel:
            terms["mel"] = weights.mel * self.mel(decoded, audio)
        if weights.stft:
            terms["stft"] = weights.stft * self.stft(decoded, audio)
        if weights.waveform:
            terms["waveform"] = weights.waveform * F.l1_loss(decoded.float(), audio.float())
        if weights.relative_waveform:
            terms["relative_waveform"] = weights.relative_waveform * _relative_error(decoded.float(), audio.float())
        if weights.kl:
            terms["kl"] = weights.kl * posterior.kl()
        return terms


def _relative_error(decoded: Float[Tensor, "b a s"], audio: Float[Tensor, "b a s"]) -> Float[Tensor, ""]:
    """Mean over the sounds of the error over the level, both as mean absolute values."""
    errors, levels = (decoded - audio).abs().mean((1, 2)), audio.abs().mean((1, 2))
    return (errors / levels.clamp_min(_FAINTEST)).mean()


Features = Sequence[Sequence[Tensor]]


def discriminator_loss(real: Features, fake: Features) -> Float[Tensor, ""]:
    """Least squares: scores of real sounds towards 1, of decoded ones towards 0; summed over the discriminators."""
    return sum((1.0 - one[-1].float()).square().mean() + other[-1].float().square().mean() for one, other in zip(real, fake, strict=True))


def adversarial_loss(fake: Features) -> Float[Tensor, ""]:
    """Least squares: scores of decoded sounds towards 1; summed over the discriminators."""
    return sum((1.0 - maps[-1].float()).square().mean() for maps in fake)


def feature_matching_loss(real: Features, fake: Features) -> Float[Tensor, ""]:
    """Mean absolute error of the feature maps, scores left out; summed over layers and discriminators."""
    return sum(
        F.l1_loss(one.float(), other.detach().float())
        for ours, theirs in zip(fake, real, strict=True)
        for one, other in zip(ours[:-1], theirs[:-1], strict=True)
    )
