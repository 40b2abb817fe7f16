"""Group normalisation and SiLU in one, per frame, for channels-last maps."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

# Elements of a block of frames worked on at once: its float32 copies stay in the second-level cache.
_BLOCK = 1 << 18
# Channels are repeated to about this width, so that inner loops are long for few channels too.
_WIDTH = 512


class GroupNormSiLU(nn.GroupNorm):
    """SiLU(GroupNorm(x)), statistics per frame.

    torch's own backward pass on a CPU costs several times the convolutions around it for narrow channels-last maps; on a CPU this class
    has its own, which also keeps only the input.

    Args:
        num_groups: groups of channels.
        num_channels: channels, a multiple of `num_groups`.
    """

    def __init__(self, num_groups: int, num_channels: int) -> None:
        super().__init__(num_groups, num_channels, eps=1e-6)

    def forward(self, x: Float[Tensor, "bt c h w"]) -> Float[Tensor, "bt c h w"]:
        if x.device.type == "cpu" and torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            return _GroupNormSiLU.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return F.silu(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps), inplace=not torch.is_grad_enabled())


class _GroupNormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        n, c, h, w = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight, bias, n, c, h * w, groups, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.groups = groups
        return F.silu(y, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        n, c, h, w = x.shape
        groups, width, cells = ctx.groups, c // ctx.groups, h * w
        repeat = 1
        while repeat * c * 2 <= _WIDTH and cells % (2 * repeat) == 0:
            repeat *= 2
        rows, grad_rows = (z.permute(0, 2, 3, 1).reshape(n, cells // repeat, repeat * c) for z in (x, grad))
        precise = torch.promote_types(x.dtype, torch.float32)
        mean, rstd = (z.to(precise).view(n, groups, 1) for z in (mean, rstd))
        gain, offset = (z.to(precise).view(1, groups, width) for z in (weight, bias))
        scale = gain * rstd
        shift = offset - mean * scale

        def spread(per_channel: Tensor) -> Tensor:
            return per_channel.reshape(-1, 1, 1, c).expand(-1, 1, repeat, c).reshape(-1, 1, repeat * c)

        def collect(z: Tensor) -> Tensor:
            return z.sum(1).view(-1, repeat, c).sum(1).view(-1, groups, width)

        scale_rows, shift_rows = spread(scale), spread(shift)
        grad_x = torch.empty_like(rows)
        grad_gain, grad_offset = torch.zeros_like(gain), torch.zeros_like(offset)
        step = max(1, _BLOCK // (cells * c))
        for start in range(0, n, step):
            block = slice(start, start + step)
            r, m = rstd[block], mean[block]
            values = rows[block].to(precise)
            normalised = torch.addcmul(shift_rows[block], values, scale_rows[block])
            inner = torch.ops.aten.silu_backward(grad_rows[block].to(precise), normalised)
            total = collect(inner)
            along = r * (collect(inner * values) - m * total)  # sum of the gradient times the normalised input
            count = cells * width
            slope = -r * r * (gain * along).sum(-1, keepdim=True) / count
            constant = -r * (gain * total).sum(-1, keepdim=True) / count - m * slope
            constant, slope = (spread(z.expand(-1, groups, width)) for z in (constant, slope))
            grad_x[block] = torch.addcmul(constant, values, slope).addcmul_(inner, scale_rows[block])
            grad_gain += along.sum(0, keepdim=True)
            grad_offset += total.sum(0, keepdim=True)
        grad_x = grad_x.view(n, h, w, c).permute(0, 3, 1, 2)
        return grad_x, grad_gain.view(-1).to(weight.dtype), grad_offset.view(-1).to(bias.dtype), None, None
