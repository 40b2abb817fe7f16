"""The bottleneck of the VAE, in the place of DAC's residual vector quantiser: a Gaussian per latent frame and channel."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Where log-variances start: the quiet bands of a sound are latents of a few hundredths, which noise of unit size would drown.
_START_LOGVAR = -8.0


@dataclass(frozen=True)
class Posterior:
    """A Gaussian for every channel of every latent frame.

    Args:
        mean: its mean (b, c, t).
        logvar: the logarithm of its variance (b, c, t).
    """

    mean: Float[Tensor, "b c t"]
    logvar: Float[Tensor, "b c t"]

    @classmethod
    def from_moments(cls, moments: Float[Tensor, "b two_c t"]) -> "Posterior":
        """Split a network's output; of log-variances it gives the difference to -8, and they are kept within [-20, 10] against overflow."""
        mean, logvar = moments.to(torch.promote_types(moments.dtype, torch.float32)).chunk(2, dim=1)
        return cls(mean, (logvar + _START_LOGVAR).clamp(-20.0, 10.0))

    def sample(self) -> Float[Tensor, "b c t"]:
        """Draw a latent."""
        # Not randn_like, whose values depend on the layout in memory.
        noise = torch.randn(self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + (0.5 * self.logvar).exp() * noise

    def kl(self) -> Float[Tensor, ""]:
        """Divergence from the standard normal in nats, summed over channels and averaged over latent frames."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar).sum(1).mean()


def bits_per_second(kl: float, latent_rate: float) -> float:
    """Bits per second that latents carry beyond the standard normal: latent frames per second times nats per frame over ln 2.

    That many bits suffice on average to send a sample of the posterior to someone who knows the prior (relative entropy coding). Storing
    the mean in fp16 instead takes `latent_rate * channels * 16`.

    Args:
        kl: divergence in nats per latent frame, summed over channels.
        latent_rate: latent frames per second.
    """
    return latent_rate * kl / math.log(2.0)
