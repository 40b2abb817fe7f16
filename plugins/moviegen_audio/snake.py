"""Snake, the periodic activation x + sin²(αx)/α with a learnt α per channel (BigVGAN, DAC)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

_EPS = 1e-9
# Elements worked on at once on a CPU: few enough for the caches, and enough for two threads not to wait for one another all the time.
_BLOCK = 1 << 18
# Channels are repeated to about this width, so that inner loops are long for few channels too.
_WIDTH = 512


class Snake1d(nn.Module):
    """Snake with a frequency per channel; for the backward pass it keeps its input alone. Fastest in channels-last memory.

    Args:
        channels: channels of the input.
        start: first value of α (1 in DAC); the smaller, the straighter.
    """

    def __init__(self, channels: int, *, start: float = 1.0) -> None:
        super().__init__()
        self.start = start
        self.alpha = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set α to its start."""
        nn.init.constant_(self.alpha, self.start)

    def forward(self, x: Float[Tensor, "b c *t"]) -> Float[Tensor, "b c *t"]:
        return _Snake.apply(x.movedim(1, -1), self.alpha).movedim(-1, 1)


class _Snake(torch.autograd.Function):
    """Snake of (..., c)."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, alpha: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, alpha)
        y = torch.empty_like(x)
        frequency, (rows, out) = _spread(alpha, x, y)
        inverse = 1.0 / (frequency + _EPS)
        for block in _blocks(rows):
            values = rows[block].to(frequency.dtype)
            out[block] = torch.addcmul(values, (values * frequency).sin_().square_(), inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, alpha = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        frequency, (rows, grad_rows, out) = _spread(alpha, x, grad.contiguous(), grad_x)
        inverse = 1.0 / (frequency + _EPS)
        grad_frequency = torch.zeros_like(frequency)
        for block in _blocks(rows):
            values, given = rows[block].to(frequency.dtype), grad_rows[block].to(frequency.dtype)
            phase = values * frequency
            sine, cosine = phase.sin(), phase.cos_()
            double = sine * cosine.mul_(2.0)
            out[block] = torch.addcmul(given, given, double)
            # d/dα sin²(αx)/α = (x sin 2αx - sin²(αx)/α)/α
            slope = double.mul_(values).sub_(sine.square_().mul_(inverse))
            grad_frequency += (given * slope).sum(0)
        per_channel = (grad_frequency * inverse).view(-1, alpha.numel()).sum(0)
        return grad_x, per_channel.to(alpha.dtype)


def _spread(alpha: Tensor, *tensors: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The frequencies, repeated, and the tensors as rows of as many values."""
    channels, positions, repeat = alpha.numel(), tensors[0].numel() // alpha.numel(), 1
    while repeat * channels * 2 <= _WIDTH and positions % (2 * repeat) == 0:
        repeat *= 2
    precise = torch.promote_types(tensors[0].dtype, torch.float32)
    return alpha.detach().to(precise).repeat(repeat), [tensor.view(-1, repeat * channels) for tensor in tensors]


def _blocks(rows: Tensor) -> list[slice]:
    count, width = rows.shape
    step = max(1, _BLOCK // width) if rows.device.type == "cpu" else max(1, count)
    return [slice(start, start + step) for start in range(0, count, step)]
