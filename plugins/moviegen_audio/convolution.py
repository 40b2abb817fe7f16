"""Convolutions over time, of sounds laid out as (b, c, 1, t) in channels-last memory, with or without weight norm."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moviegen_audio.streaming import Geometry

Start = Callable[[tuple[int, int, int]], Tensor]


class Conv1d(nn.Module):
    """Convolution over time, padded with zeros; with weight norm a kernel is a direction times a gain per output channel.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps.
        stride: keep every `stride`-th position.
        dilation: positions between taps.
        padding: zeros at both ends.
        weight_norm: keep the kernel's length per output channel as a parameter of its own, as DAC does.
        scale: factor of the kernel's random start.
        start: makes what is added to the random start from the kernel's shape; nothing unless given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        padding: int = 0,
        weight_norm: bool = True,
        scale: float = 1.0,
        start: Start | None = None,
    ) -> None:
        super().__init__()
        self.geometry = Geometry(kernel_size=kernel_size, stride=stride, dilation=dilation, padding=padding)
        self.scale, self.start = scale, start
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size))
        self.gain = nn.Parameter(torch.empty(out_channels, 1, 1)) if weight_norm else None
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel with a variance of one over the inputs that an output sees, and add its start."""
        _draw(self, self.scale * (self.weight.shape[1] * self.weight.shape[2]) ** -0.5, self.start)

    def forward(self, x: Float[Tensor, "b i 1 t"]) -> Float[Tensor, "b o 1 u"]:
        layer = self.geometry
        stride, padding, dilation = (1, layer.stride), (0, layer.padding), (1, layer.dilation)
        return F.conv2d(x, kernel(self).unsqueeze(2), self.bias, stride, padding, dilation)


class ConvTranspose1d(nn.Module):
    """Transposed convolution over time from n positions to exactly n times the stride, with a kernel of twice the stride.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: output positions per input position.
        weight_norm: keep the kernel's length per input channel as a parameter of its own, as DAC does.
        scale: factor of the kernel's random start.
        start: makes what is added to the random start from the kernel's shape; nothing unless given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        weight_norm: bool = True,
        scale: float = 1.0,
        start: Start | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.start = scale, start
        self.geometry = Geometry(kernel_size=2 * stride, stride=stride, padding=math.ceil(stride / 2), transposed=True)
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 2 * stride))
        self.gain = nn.Parameter(torch.empty(in_channels, 1, 1)) if weight_norm else None
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel with a variance of one over the inputs that an output sees, and add its start."""
        _draw(self, self.scale * (2 * self.weight.shape[0]) ** -0.5, self.start)

    def forward(self, x: Float[Tensor, "b i 1 t"]) -> Float[Tensor, "b o 1 u"]:
        stride, padding = self.geometry.stride, self.geometry.padding
        # An odd stride would drop a sample too many.
        return F.conv_transpose2d(x, kernel(self).unsqueeze(2), self.bias, (1, stride), (0, padding), (0, stride % 2))


def kernel(layer: Conv1d | ConvTranspose1d) -> Tensor:
    """The kernel that a layer applies."""
    if layer.gain is None:
        return layer.weight
    return layer.weight * (layer.gain / layer.weight.norm(dim=(1, 2), keepdim=True))


@torch.no_grad()
def fold_weight_norm(module: nn.Module) -> None:
    """Replace gains and directions by the kernels that they make, in the layout that convolutions read: for use, not for training.

    Every call is spared making the kernels, which costs as much as decoding a fraction of a second. Weights that have gains cannot be
    loaded any more.
    """
    for layer in module.modules():
        if isinstance(layer, (Conv1d, ConvTranspose1d)):
            layer.weight = nn.Parameter(kernel(layer).transpose(1, 2).contiguous().transpose(1, 2), requires_grad=False)
            layer.gain = None


@torch.no_grad()
def _draw(layer: Conv1d | ConvTranspose1d, deviation: float, start: Start | None) -> None:
    nn.init.normal_(layer.weight, std=deviation)
    if start is not None and not layer.weight.is_meta:
        layer.weight.add_(start(tuple(layer.weight.shape)).to(layer.weight))
    nn.init.zeros_(layer.bias)
    if layer.gain is not None:
        layer.gain.copy_(layer.weight.norm(dim=(1, 2), keepdim=True))
