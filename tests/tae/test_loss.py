"""Losses against literal formulas."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from moviegen_tae.loss import (
    LossWeights,
    adaptive_weight,
    gradient_difference,
    kl_divergence,
    outlier_penalty,
    reconstruction,
    regularisation,
)


def literal_outlier_penalty(latent: torch.Tensor, r: float) -> float:
    """Eq. 1, cell by cell."""
    b, c, t, height, width = latent.shape
    penalties = []
    for sample in range(b):
        for frame in range(t):
            x = latent[sample, :, frame].double()
            mean = [x[k].mean().item() for k in range(c)]
            std = [math.sqrt(sum((value - mean[k]) ** 2 for value in x[k].flatten().tolist()) / (height * width)) for k in range(c)]
            radius = r * math.sqrt(sum(s * s for s in std))
            total = 0.0
            for i in range(height):
                for j in range(width):
                    distance = math.sqrt(sum((x[k, i, j].item() - mean[k]) ** 2 for k in range(c)))
                    total += max(distance - radius, 0.0)
            penalties.append(total / (height * width))
    return sum(penalties) / len(penalties)


@pytest.mark.parametrize("r", [0.5, 1.0, 3.0])
def test_outlier_penalty_is_the_literal_formula(r: float) -> None:
    torch.manual_seed(0)
    latent = torch.randn(2, 4, 3, 5, 6) + torch.randn(2, 4, 3, 1, 1)
    latent[0, :, 1, 2, 3] += 40.0  # a latent dot
    assert outlier_penalty(latent, r).item() == pytest.approx(literal_outlier_penalty(latent, r), rel=1e-5)
    image = latent[:, :, 1]
    assert outlier_penalty(image, r).item() == pytest.approx(literal_outlier_penalty(image.unsqueeze(2), r), rel=1e-5)


def test_outlier_penalty_sees_only_outliers_and_has_finite_gradients() -> None:
    latent = torch.randn(1, 4, 1, 8, 8)
    assert outlier_penalty(latent) == 0.0
    latent[0, :, 0, 4, 4] = 30.0
    assert outlier_penalty(latent) > 0.0
    constant = torch.ones(1, 4, 2, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    outlier_penalty(constant, 0.5).backward()
    assert constant.grad.isfinite().all()


def test_kl_is_torchs_own() -> None:
    mean, logvar = torch.randn(2, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    wanted = torch_kl(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mean, logvar), wanted.mean())
    torch.testing.assert_close(kl_divergence(mean, logvar, reduction="sum"), wanted.sum(dim=(1, 3, 4)).mean())


def test_gradient_difference_sees_edges_and_not_levels() -> None:
    video = torch.rand(1, 3, 2, 4, 4)
    assert gradient_difference(video + 0.5, video).item() == pytest.approx(0.0, abs=1e-6)
    stripes = torch.zeros(1, 3, 1, 4, 4)
    stripes[..., 1::2] = 1.0
    assert gradient_difference(stripes, torch.zeros_like(stripes)).item() == pytest.approx(1.0)


def test_terms_follow_the_weights() -> None:
    video, decoded = torch.zeros(1, 3, 2, 4, 4), torch.full((1, 3, 2, 4, 4), 0.5)
    terms = reconstruction(decoded, video, LossWeights(l1=2.0, l2=4.0))
    assert {name: term.item() for name, term in terms.items()} == {"l1": 1.0, "l2": 1.0}
    assert reconstruction(decoded, video, LossWeights(reduction="sum"))["l1"].item() == 0.5 * 3 * 16
    latent = torch.randn(1, 2, 1, 4, 4)
    assert set(regularisation(latent, latent, latent, LossWeights(kl=0.0))) == set()
    assert set(regularisation(latent, latent, latent, LossWeights(outlier=1e5))) == {"kl", "outlier"}
    with pytest.raises(ValueError, match=r"loss\.kl is -1"):
        LossWeights(kl=-1)


def test_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    layer = torch.tensor([1.0, 2.0], requires_grad=True)
    weight = adaptive_weight((3.0 * layer).sum(), (layer * torch.tensor([0.6, 0.8])).sum(), layer)
    assert weight.item() == pytest.approx(3.0 * math.sqrt(2.0) / (1.0 + 1e-4))
