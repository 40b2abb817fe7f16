"""LPIPS from a local weights file against a literal computation, and the reconstruction measures against formulas."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from moviegen_tae.metrics import ReconstructionMetrics
from moviegen_tae.perceptual import PerceptualLoss

# torchvision's VGG-16: indices of convolutions in `features`, with what they are wide; poolings lie at 4, 9, 16, 23.
CONVOLUTIONS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512}
POOLINGS, TAPS = (4, 9, 16, 23), (3, 8, 15, 22, 29)


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state, width = {}, 3
    for index, size in CONVOLUTIONS.items():
        state[f"features.{index}.weight"] = torch.randn(size, width, 3, 3, generator=generator) * (2 / (9 * width)) ** 0.5
        state[f"features.{index}.bias"] = torch.randn(size, generator=generator) * 0.1
        width = size
    for tap, size in enumerate((64, 128, 256, 512, 512)):
        state[f"lin{tap}.model.1.weight"] = torch.rand(1, size, 1, 1, generator=generator)
    return state


def literal_distance(state: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((z - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1) for z in (x, y))
    total = 0.0
    for index in range(30):
        if index in POOLINGS:
            x, y = F.max_pool2d(x, 2), F.max_pool2d(y, 2)
        elif index in CONVOLUTIONS:
            x, y = (F.conv2d(z, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1) for z in (x, y))
        else:
            x, y = F.relu(x), F.relu(y)
        if index in TAPS:
            unit = [z / z.norm(dim=1, keepdim=True) for z in (x, y)]
            weight = state[f"lin{TAPS.index(index)}.model.1.weight"]
            total = total + ((unit[0] - unit[1]).square() * weight).sum(1).mean(dim=(1, 2))
    return total.mean()


def test_local_weights_give_lpips(tmp_path) -> None:
    torch.save(weights(), tmp_path / "lpips.pt")
    loss = PerceptualLoss(weights=str(tmp_path / "lpips.pt"))
    video, decoded = torch.rand(1, 3, 2, 16, 16) * 2 - 1, torch.rand(1, 3, 2, 16, 16) * 2 - 1
    decoded.requires_grad_()
    distance = loss(decoded, video)
    frames = [z.transpose(1, 2).flatten(0, 1) for z in (decoded.detach(), video)]
    torch.testing.assert_close(distance.detach(), literal_distance(weights(), *frames), rtol=1e-4, atol=1e-5)
    distance.backward()
    assert decoded.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    incomplete = weights()
    del incomplete["features.28.bias"]
    torch.save(incomplete, tmp_path / "incomplete.pt")
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*features\.28\.bias.* join torchvision"):
        PerceptualLoss(weights=str(tmp_path / "incomplete.pt"))


class Features(nn.Module):
    """Four numbers per frame."""

    num_features = 4

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.float().unfold(2, 12, 12).mean(dim=(1, 3, 4)).repeat(1, 4)[:, :4] + frames.float()[:, 0, 0, :4]


def test_measures_are_averages_over_frames() -> None:
    torch.manual_seed(0)
    metrics = ReconstructionMetrics(features=Features())
    video, image = torch.rand(2, 3, 5, 16, 16) * 2 - 1, torch.rand(4, 3, 1, 16, 16) * 2 - 1
    noisy = [(z + 0.1 * (index + 1) * torch.randn_like(z)).clamp(-1, 1) for index, z in enumerate((video, image))]
    metrics.update(noisy[0], video, is_image=False)
    metrics.update(noisy[1], image, is_image=True)
    values = metrics.compute()

    def psnr(decoded: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        error = ((decoded - real) / 2).square().mean(dim=(1, 3, 4))  # of pixels in [0, 1], per frame
        return (10 * torch.log10(1 / error)).flatten()

    by_kind = [psnr(noisy[0], video), psnr(noisy[1], image)]
    torch.testing.assert_close(values["video_psnr"], by_kind[0].mean())
    torch.testing.assert_close(values["image_psnr"], by_kind[1].mean())
    torch.testing.assert_close(values["psnr"], torch.cat(by_kind).mean())
    frames = [((z + 1) / 2).transpose(1, 2).flatten(0, 1) for z in (noisy[0], video)]
    torch.testing.assert_close(values["video_ssim"], structural_similarity_index_measure(*frames, data_range=1.0))
    assert values["image_fid"] > 0 and values["video_fid"] > 0 and "fid" not in values
    metrics.reset()
    metrics.update(video, video, is_image=False)
    again = metrics.compute()
    assert "video_psnr" not in again and again["ssim"] == 1.0
    torch.testing.assert_close(again["fid"], torch.tensor(0.0), atol=1e-2, rtol=0)
