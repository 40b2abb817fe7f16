"""Patch discriminator: scores overlapping patches of frames, or of stretches of video, as real or decoded."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Strided convolutions that end in a map of scores, one per patch.

    Args:
        base_channels: channels of the first layer; each further one doubles them, up to eight times.
        num_layers: strided layers; each doubles the patch's side.
        dimensionality: `2d` scores frames one by one, `3d` scores short stretches (needs a few frames; images pass as one frame).
        norm_groups: groups of the normalisation.
    """

    def __init__(
        self, *, base_channels: int = 64, num_layers: int = 3, dimensionality: Literal["2d", "3d"] = "2d", norm_groups: int = 8
    ) -> None:
        super().__init__()
        self.frames_apart = dimensionality == "2d"
        conv = nn.Conv2d if self.frames_apart else nn.Conv3d
        kernel = 4 if self.frames_apart else (3, 4, 4)
        strided, dense = (2, 1) if self.frames_apart else ((1, 2, 2), (1, 1, 1))
        width = base_channels
        layers: list[nn.Module] = [conv(3, width, kernel, stride=strided, padding=1), nn.LeakyReLU(0.2)]
        for layer in range(1, num_layers + 1):
            next_width = base_channels * min(2**layer, 8)
            stride = strided if layer < num_layers else dense
            layers += [conv(width, next_width, kernel, stride=stride, padding=1, bias=False), nn.GroupNorm(norm_groups, next_width)]
            layers.append(nn.LeakyReLU(0.2))
            width = next_width
        self.layers = nn.Sequential(*layers, conv(width, 1, kernel, stride=dense, padding=1))

    def forward(self, video: Float[Tensor, "b 3 t h w"]) -> Tensor:
        """Scores of the patches, above 0 for what looks real."""
        return self.layers(video.transpose(1, 2).flatten(0, 1) if self.frames_apart else video)
