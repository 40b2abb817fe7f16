"""Convolutions of video, laid out for speed.

Layout: a video travels as folded frames `(b t) c h w` in channels-last memory, that is b, t, h, w, c. A spatial convolution is then a
channels-last Conv2d over the frames; a temporal one is a channels-last Conv2d with a (k, 1) kernel over the map (t, h·w), which is a view
of the same memory. No layer copies activations only to change their layout.

Shape legend: b videos, t frames, c channels, h rows, w columns, o output channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

# Gains of the random difference x[t + 1] - x[t - 1] at the start, where the identity has 1; larger with a stride, where the average takes
# motion away. Gains of 0.5 and 1 did as well.
_DIFFERENCE, _STRIDED_DIFFERENCE = 0.2, 0.7


def fold_frames(video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "bt c h w"]:
    """Fold frames into the batch, in channels-last memory."""
    b, c, t, h, w = video.shape
    return video.permute(0, 2, 3, 4, 1).contiguous().view(b * t, h, w, c).permute(0, 3, 1, 2)


def unfold_frames(frames: Float[Tensor, "bt c h w"], batch_size: int) -> Float[Tensor, "b c t h w"]:
    """Undo `fold_frames`; a view."""
    return _as_video(frames, batch_size).permute(0, 4, 1, 2, 3)


class Conv2d(nn.Conv2d):
    """Convolution whose kernel starts normal with He's variance and whose bias starts at zero.

    torch's own start has a sixth of that variance. Behind normalised activations that costs an autoencoder about 2 dB over its first
    hundreds of steps.
    """

    def reset_parameters(self) -> None:
        """Draw the kernel."""
        nn.init.kaiming_normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class TemporalConv(nn.Module):
    """1-D convolution along time, of three taps, with symmetric replicate padding (3.1.1), on folded frames.

    It starts as the identity (with a stride, as the binomial average 1-2-1) plus a random difference of the later and the earlier frame.
    Added to an image model it leaves one frame and a static video as they are. Moving video it changes from the first step, on purpose:
    averages alone lose motion before anything is learnt.

    Args:
        channels: channels in and out.
        stride: keep every `stride`-th frame; t frames become ceil(t / stride).
    """

    def __init__(self, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, channels, 3))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make it the identity, or an average where it has a stride, and add differences of frames."""
        taps, gain = ((0.25, 0.5, 0.25), _STRIDED_DIFFERENCE) if self.stride > 1 else ((0.0, 1.0, 0.0), _DIFFERENCE)
        nn.init.zeros_(self.bias)
        nn.init.normal_(self.weight, std=gain * (2.0 * self.weight.shape[1]) ** -0.5)
        with torch.no_grad():
            self.weight.sub_(self.weight.flip(-1))
            for tap, value in enumerate(taps):
                self.weight[:, :, tap].diagonal().add_(value)

    def forward(self, x: Float[Tensor, "bt c h w"], batch_size: int) -> Float[Tensor, "bs o h w"]:
        t = x.shape[0] // batch_size
        if t == 1:  # every tap sees the same frame
            return F.conv2d(x, self.weight.sum(-1)[:, :, None, None], self.bias)
        padded = _replicate_time(_as_map(x, batch_size), 1)
        y = F.conv2d(padded, self.weight.unsqueeze(-1), self.bias, stride=(self.stride, 1))
        return _as_frames(y, x.shape[2:])


class TemporalUpsampleConv(TemporalConv):
    """Nearest-neighbour doubling of the frames, then a `TemporalConv` of three taps.

    Doubled frames make two of the three taps see the same frame, so each output is two taps of summed weights: two thirds of the work.

    Args:
        channels: channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Float[Tensor, "bt c h w"], batch_size: int) -> Float[Tensor, "bs o h w"]:
        t, (o, c, _), (h, w) = x.shape[0] // batch_size, self.weight.shape, x.shape[2:]
        if t == 1:
            y = F.conv2d(x, self.weight.sum(-1)[:, :, None, None], self.bias)
            return y.repeat_interleave(2, dim=0).contiguous(memory_format=torch.channels_last)
        taps = _phases(self.weight, dim=2).view(2 * o, c, 2, 1)
        y = F.conv2d(_replicate_time(_as_map(x, batch_size), 1), taps, self.bias.repeat(2)).permute(0, 2, 3, 1)
        return _InterleaveTime.apply(y).view(batch_size * 2 * t, h, w, o).permute(0, 3, 1, 2)


class DownsampleConv2d(nn.Conv2d):
    """3×3 convolution with stride 2 that pads one row below and one column to the right, as latent diffusion does, on folded frames.

    It starts close to averaging each 2×2 block, so that a deep autoencoder passes pixels on from its first step.

    Args:
        in_channels: channels in.
        out_channels: channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=2)

    def reset_parameters(self) -> None:
        """A weak random kernel around the average."""
        super().reset_parameters()
        _start_close_to(self.weight, rows=slice(0, 2), columns=slice(0, 2), value=0.25)

    def forward(self, x: Float[Tensor, "bt c h w"]) -> Float[Tensor, "bt o hh ww"]:
        return super().forward(pad_for_downsampling(x))


class UpsampleConv2d(nn.Conv2d):
    """Nearest-neighbour doubling of rows and columns, then a zero-padded 3×3 convolution, on folded frames.

    The four outputs around an input cell are four 2×2 convolutions of the small map with summed weights (4 products in place of 9). It
    starts close to the doubling alone.

    Args:
        in_channels: channels in.
        out_channels: channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def reset_parameters(self) -> None:
        """A weak random kernel around the identity."""
        super().reset_parameters()
        _start_close_to(self.weight, rows=slice(1, 2), columns=slice(1, 2), value=1.0)

    def forward(self, x: Float[Tensor, "bt c h w"]) -> Float[Tensor, "bt o hh ww"]:
        (n, c, h, w), o = x.shape, self.out_channels
        taps = _phases(_phases(self.weight, dim=2), dim=4).transpose(0, 1)  # p, q, o, c, 2, 2
        y = F.conv2d(x, taps.reshape(4 * o, c, 2, 2), self.bias.repeat(4), padding=1).permute(0, 2, 3, 1)
        return _InterleaveSpace.apply(y).view(n, 2 * h, 2 * w, o).permute(0, 3, 1, 2)


class FullConv3d(nn.Conv3d):
    """3×3×3 convolution on folded frames: replicate padding in time, zero padding in space (the "3D" of the ablation, 3.6.4).

    Args:
        in_channels: channels in.
        out_channels: channels out.
        stride: spatial stride; with 2 the padding is (0, 1) on each axis, as in latent diffusion.
        temporal_stride: stride along time.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, temporal_stride: int = 1) -> None:
        padding = (0, 0, 0) if stride == 2 else (0, 1, 1)
        super().__init__(in_channels, out_channels, kernel_size=3, stride=(temporal_stride, stride, stride), padding=padding)

    def forward(self, x: Float[Tensor, "bt c h w"], batch_size: int) -> Float[Tensor, "bs o hh ww"]:
        if self.stride[1] == 2:
            x = pad_for_downsampling(x)
        if x.shape[0] == batch_size:
            return F.conv2d(x, self.weight.sum(2), self.bias, stride=self.stride[1:], padding=self.padding[1:])
        video = _as_video(x, batch_size)
        padded = torch.cat([video[:, :1], video, video[:, -1:]], dim=1).permute(0, 4, 1, 2, 3)
        y = super().forward(padded)
        return fold_frames(y)


def pad_for_downsampling(x: Float[Tensor, "bt c h w"]) -> Float[Tensor, "bt c h1 w1"]:
    """One row of zeros below and one column to the right, as latent diffusion pads its stride-2 convolutions."""
    return F.pad(x, (0, 1, 0, 1))


@torch.no_grad()
def _start_close_to(weight: Tensor, *, rows: slice, columns: slice, value: float) -> None:
    weight.mul_(0.3)
    channels = range(min(weight.shape[:2]))
    weight[channels, channels, rows, columns] += value


def _as_video(x: Tensor, batch_size: int) -> Tensor:
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch_size, n // batch_size, h, w, c)


def _as_map(x: Tensor, batch_size: int) -> Tensor:
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch_size, n // batch_size, h * w, c)


def _as_frames(y: Tensor, size: torch.Size) -> Tensor:
    b, o, t, _ = y.shape
    return y.permute(0, 2, 3, 1).reshape(b * t, *size, o).permute(0, 3, 1, 2)


def _replicate_time(rows: Tensor, pad: int) -> Tensor:
    """Repeat the first and last frame of (b, t, h·w, c); returns (b, c, t + 2·pad, h·w) in channels-last memory."""
    return _ReplicateTime.apply(rows, pad).permute(0, 3, 1, 2)


def _phases(weight: Tensor, dim: int) -> Tensor:
    """Three taps after a doubling are two taps for even outputs, and two for odd ones: a new first dimension of 2, and 2 taps at `dim`."""
    first, centre, last = weight.unbind(dim)
    even = torch.stack([first, centre + last], dim=dim)
    odd = torch.stack([first + centre, last], dim=dim)
    return torch.stack([even, odd])


# Three moves of memory with a backward pass of one copy each; autograd's own would fill and add a whole map per slice.


class _ReplicateTime(torch.autograd.Function):
    """(b, t, m, c) to (b, t + 2·pad, m, c)."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, pad: int) -> Tensor:
        ctx.pad = pad
        return torch.cat([*[rows[:, :1]] * pad, rows, *[rows[:, -1:]] * pad], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        pad = ctx.pad
        inner = grad[:, pad:-pad].clone(memory_format=torch.contiguous_format)
        inner[:, 0] += grad[:, :pad].sum(1)
        inner[:, -1] += grad[:, -pad:].sum(1)
        return inner, None


class _InterleaveTime(torch.autograd.Function):
    """(b, t + 1, m, 2·o), even then odd outputs, to (b, t, 2, m, o)."""

    @staticmethod
    def forward(ctx: FunctionCtx, y: Tensor) -> Tensor:
        b, positions, m, twice = y.shape
        out = y.new_empty(b, positions - 1, 2, m, twice // 2)
        for phase, part in enumerate(_time_phases(y)):
            out[:, :, phase] = part
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        b, t, _, m, o = grad.shape
        y = grad.new_empty(b, t + 1, m, 2 * o)
        y[:, -1, :, :o] = 0
        y[:, 0, :, o:] = 0
        for phase, part in enumerate(_time_phases(y)):
            part.copy_(grad[:, :, phase])
        return y


class _InterleaveSpace(torch.autograd.Function):
    """(n, h + 1, w + 1, 4·o), phases in the order (row, column), to (n, h, 2, w, 2, o)."""

    @staticmethod
    def forward(ctx: FunctionCtx, y: Tensor) -> Tensor:
        n, rows, columns, four = y.shape
        out = y.new_empty(n, rows - 1, 2, columns - 1, 2, four // 4)
        for phase, part in enumerate(_space_phases(y)):
            out[:, :, phase // 2, :, phase % 2] = part
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        n, h, _, w, _, o = grad.shape
        y = grad.new_empty(n, h + 1, w + 1, 4 * o)
        for edge in (y[:, 0], y[:, -1], y[:, :, 0], y[:, :, -1]):
            edge.zero_()
        for phase, part in enumerate(_space_phases(y)):
            part.copy_(grad[:, :, phase // 2, :, phase % 2])
        return y


def _time_phases(y: Tensor) -> tuple[Tensor, Tensor]:
    o = y.shape[-1] // 2
    return y[:, :-1, :, :o], y[:, 1:, :, o:]


def _space_phases(y: Tensor) -> list[Tensor]:
    h, w, o = y.shape[1] - 1, y.shape[2] - 1, y.shape[3] // 4
    return [y[:, p : p + h, q : q + w, (2 * p + q) * o : (2 * p + q + 1) * o] for p in (0, 1) for q in (0, 1)]
