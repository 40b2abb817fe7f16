"""Perceptual loss: LPIPS of frames, from a local weights file, or from torchmetrics where torchvision is installed."""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

# The convolutions of VGG-16 up to the fifth block, by block; a block begins with a pooling, its last activation is compared.
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LearnedPerceptualDistance(nn.Module):
    """LPIPS with VGG-16: weighted squared differences of unit-normalised activations.

    Args:
        weights: file (safetensors, or .pt loaded weights-only) with torchvision's VGG-16 keys `features.N.weight|bias` and LPIPS's
            `linK.model.1.weight`, K from 0 to 4.

    Raises:
        ValueError: the file lacks some of them.
    """

    def __init__(self, *, weights: str) -> None:
        super().__init__()
        blocks, width, index = [], 3, 0
        for block, sizes in enumerate(_VGG16):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if block else []
            index += bool(block)
            for size in sizes:
                layers += [_named(nn.Conv2d(width, size, 3, padding=1), index), nn.ReLU()]
                width, index = size, index + 2
            blocks.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(blocks)
        self.linear = nn.ParameterList([nn.Parameter(torch.empty(1, sizes[-1], 1, 1)) for sizes in _VGG16])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))
        self._load(weights)
        self.requires_grad_(False).eval()

    def forward(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """Mean distance of images in [-1, 1]."""
        total = x.new_zeros(())
        x, y = ((image - self.shift) / self.scale for image in (x, y))
        for block, weight in zip(self.blocks, self.linear, strict=True):
            x, y = block(x), block(y)
            difference = (_unit(x) - _unit(y)).square()
            total = total + (difference * weight).sum(1).mean(dim=(1, 2)).mean()
        return total

    @torch.no_grad()
    def _load(self, weights: str) -> None:
        given = _read(weights)
        wanted = {f"lin{block}.model.1.weight": weight for block, weight in enumerate(self.linear)}
        for layer in (layer for block in self.blocks for layer in block if isinstance(layer, nn.Conv2d)):
            wanted |= {f"features.{layer.index}.{name}": value for name, value in layer.named_parameters()}
        missing = sorted(name for name, value in wanted.items() if name not in given or given[name].shape != value.shape)
        if missing:
            raise ValueError(
                f"perceptual_weights '{weights}' lacks {len(missing)} tensors of the wanted shape, '{missing[0]}' first; it holds "
                f"{len(given)} ('{next(iter(given), 'none')}' first); join torchvision's VGG-16 and LPIPS's vgg weights into one file"
            )
        for name, value in wanted.items():
            value.copy_(given[name])


class PerceptualLoss(nn.Module):
    """Mean LPIPS of the frames of two videos, in float32.

    Args:
        weights: local weights file, see `LearnedPerceptualDistance`; None takes torchmetrics' network.

    Raises:
        ValueError: neither a file nor torchmetrics' network is at hand.
    """

    def __init__(self, *, weights: str | None = None) -> None:
        super().__init__()
        self.distance = LearnedPerceptualDistance(weights=weights) if weights is not None else _torchmetrics_distance()
        self._clamps = weights is None  # torchmetrics refuses pixels outside [-1, 1]; clamped ones have no gradient

    def forward(self, decoded: Float[Tensor, "b 3 t h w"], video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, ""]:
        """Mean distance of the frames."""
        frames = [x.float().transpose(1, 2).flatten(0, 1) for x in (decoded, video)]
        if self._clamps:
            frames = [x.clamp(-1.0, 1.0) for x in frames]
        with torch.autocast(video.device.type, enabled=False):
            return self.distance(*frames).mean()


def _torchmetrics_distance() -> nn.Module:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        return LearnedPerceptualImagePatchSimilarity(net_type="vgg").net.requires_grad_(False).eval()
    except (ImportError, OSError) as error:
        raise ValueError(
            "loss.perceptual is above 0 and no perceptual_weights were given; torchmetrics' LPIPS is not usable here "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); install torchvision and its VGG-16 weights, give "
            "model.perceptual_weights a local file, or set model.loss.perceptual to 0"
        ) from error


def _read(weights: str) -> dict[str, Tensor]:
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"perceptual_weights '{weights}' does not exist; a file with VGG-16 and LPIPS weights (.safetensors or .pt) is wanted; "
            "correct the path, or set model.loss.perceptual to 0"
        )
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)


def _named(layer: nn.Conv2d, index: int) -> nn.Conv2d:
    layer.index = index
    return layer


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True) + 1e-20).sqrt()  # inside the root, whose slope at 0 is infinite
