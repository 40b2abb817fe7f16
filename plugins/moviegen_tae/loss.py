"""Losses of the autoencoder: reconstruction, KL, perceptual, adversarial, and the outlier penalty of eq. 1 (3.1.1).

All are computed in float32, whatever the network's precision.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; 0 switches one off.

    Args:
        l1: mean absolute error of pixels.
        l2: mean squared error of pixels.
        gradient: mean absolute error of the differences between neighbouring pixels along rows, columns and time.
        kl: divergence of the posterior from the standard normal (1e-6 in latent diffusion).
        perceptual: LPIPS of frames; needs weights (`perceptual_weights`).
        adversarial: hinge loss of a patch discriminator, on top of the adaptive weight.
        outlier: outlier penalty of eq. 1 (1e5 in 3.1.1).
        outlier_radius: r of eq. 1, in standard deviations.
        adversarial_start_step: first step at which the discriminator counts.
        reduction: `mean` averages over pixels and latent cells; `sum` adds them up within a frame and averages over frames, latent
            diffusion's convention, to which the paper's weights belong.

    Raises:
        ValueError: a weight is negative.
    """

    l1: float = 1.0
    l2: float = 0.0
    gradient: float = 0.0
    kl: float = 1e-6
    perceptual: float = 0.0
    adversarial: float = 0.0
    outlier: float = 0.0
    outlier_radius: float = 3.0
    adversarial_start_step: int = 0
    reduction: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "gradient", "kl", "perceptual", "adversarial", "outlier", "outlier_radius", "adversarial_start_step"):
            if getattr(self, name) < 0:
                raise ValueError(f"loss.{name} is {getattr(self, name)}; weights are 0 (off) or more; set it to 0 or above")


def outlier_penalty(latent: Float[Tensor, "b c *t h w"], r: float = 3.0) -> Float[Tensor, ""]:
    """Outlier penalty of eq. 1: how far latent vectors lie beyond r standard deviations from their frame's mean.

    Mean and (population) standard deviation are per channel over rows and columns, norms over channels; frames are rolled into the batch,
    over which the penalty is averaged.
    """
    frames = latent.float().movedim(1, -3).flatten(0, -4)
    std, mean = torch.std_mean(frames, dim=(-2, -1), keepdim=True, correction=0)
    # A constant channel has no gradient of its square root; the clamp keeps it finite.
    distance = _norm(frames - mean)
    return F.relu(distance - r * _norm(std)).mean()


def kl_divergence(
    mean: Float[Tensor, "b c *t h w"], logvar: Float[Tensor, "b c *t h w"], *, reduction: Literal["mean", "sum"] = "mean"
) -> Float[Tensor, ""]:
    """Divergence of N(mean, exp(logvar)) from the standard normal: per latent value, or summed over each latent frame."""
    mean, logvar = mean.float(), logvar.float()
    cells = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
    scale = mean.shape[1] * mean.shape[-2] * mean.shape[-1] if reduction == "sum" else 1
    return cells.mean() * scale


def gradient_difference(decoded: Float[Tensor, "b c t h w"], video: Float[Tensor, "b c t h w"]) -> Float[Tensor, ""]:
    """Mean absolute error of differences between neighbours, summed over the axes that have neighbours."""
    error = decoded.float() - video.float()
    axes = [axis for axis in (-3, -2, -1) if error.shape[axis] > 1]
    return sum((torch.diff(error, dim=axis).abs().mean() for axis in axes), start=error.new_zeros(()))


def reconstruction(
    decoded: Float[Tensor, "b c t h w"], video: Float[Tensor, "b c t h w"], weights: LossWeights
) -> dict[str, Float[Tensor, ""]]:
    """The weighted pixel losses that are switched on, by name."""
    error = decoded.float() - video.float()
    scale = pixel_scale(video, weights)
    terms = {}
    if weights.l1:
        terms["l1"] = weights.l1 * scale * error.abs().mean()
    if weights.l2:
        terms["l2"] = weights.l2 * scale * error.square().mean()
    if weights.gradient:
        terms["gradient"] = weights.gradient * scale * gradient_difference(decoded, video)
    return terms


def regularisation(
    mean: Float[Tensor, "b z s y x"], logvar: Float[Tensor, "b z s y x"], latent: Float[Tensor, "b z s y x"], weights: LossWeights
) -> dict[str, Float[Tensor, ""]]:
    """The weighted losses of the latent that are switched on, by name."""
    terms = {}
    if weights.kl:
        terms["kl"] = weights.kl * kl_divergence(mean, logvar, reduction=weights.reduction)
    if weights.outlier:
        terms["outlier"] = weights.outlier * outlier_penalty(latent, weights.outlier_radius)
    return terms


def pixel_scale(video: Float[Tensor, "b c t h w"], weights: LossWeights) -> float:
    """Factor from a mean over pixels to the chosen reduction."""
    return float(video.shape[1] * video.shape[3] * video.shape[4]) if weights.reduction == "sum" else 1.0


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Float[Tensor, ""]:
    """Hinge loss of the discriminator's scores."""
    return 0.5 * (F.relu(1.0 - real.float()).mean() + F.relu(1.0 + fake.float()).mean())


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor) -> Float[Tensor, ""]:
    """Ratio of the two losses' gradient norms at the decoder's last layer, at most 1e4, as in latent diffusion."""
    (given,) = torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)
    (wanted,) = torch.autograd.grad(adversarial_loss, last_layer, retain_graph=True)
    return (given.norm() / (wanted.norm() + 1e-4)).clamp(0.0, 1e4).detach()


def _norm(x: Tensor) -> Tensor:
    return x.square().sum(dim=-3).clamp_min(1e-12).sqrt()
