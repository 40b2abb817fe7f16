"""The statistics that normalise an autoencoder's latents: followed while it trains, measured when it is validated."""

import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_core.autoencoder import Autoencoder


@torch.no_grad()
def follow_latents(autoencoder: Autoencoder, latent: Float[Tensor, "b c ..."], *, step: int) -> None:
    """Move the statistics towards this batch's: an average over the last hundred or so steps.

    Args:
        autoencoder: whose statistics.
        latent: latents before normalisation.
        step: steps of training so far.
    """
    var, mean = torch.var_mean(latent.float(), dim=(0, *range(2, latent.ndim)), correction=0)
    share = max(0.01, 1.0 / (1.0 + step))
    square = torch.lerp(autoencoder.latent_std.square() + autoencoder.latent_mean.square(), var + mean.square(), share)
    mean = torch.lerp(autoencoder.latent_mean, mean, share)
    autoencoder.set_latent_statistics(mean, (square - mean.square()).clamp_min(0.0).sqrt())


class LatentMoments:
    """Sums over latents, from which their mean and deviation follow.

    Args:
        channels: latent channels.
    """

    def __init__(self, channels: int) -> None:
        self.sums = torch.zeros(3, channels, dtype=torch.float64)

    @torch.no_grad()
    def add(self, latent: Float[Tensor, "b c ..."]) -> None:
        """Add the latents of a batch, before normalisation."""
        flat = latent.transpose(0, 1).flatten(1).double().cpu()
        self.sums += torch.stack([flat.sum(1), flat.square().sum(1), torch.full_like(flat[:, 0], flat.shape[1])])

    def store_in(self, autoencoder: Autoencoder) -> None:
        """Set the statistics from the latents of all processes; every process calls it."""
        gathered = autoencoder.all_gather(self.sums.to(autoencoder.device))
        total, squares, count = gathered.view(-1, *self.sums.shape).sum(0).unbind(0)
        mean = total / count
        autoencoder.set_latent_statistics(mean.float(), (squares / count - mean.square()).clamp_min(0.0).sqrt().float())
