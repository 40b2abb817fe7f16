"""Frame encoders: from video to one embedding per frame. Shape legend: `moviegen_core.batch`; f counts video frames, e their features."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_core.errors import UsageError
from moviegen_core.nn.modulation import RMSNorm


class FrameEncoder(nn.Module):
    """Embeds every frame of a video.

    Args:
        feature_width: width of an embedding.
    """

    def __init__(self, *, feature_width: int) -> None:
        super().__init__()
        self.feature_width = feature_width

    def forward(self, video: Float[Tensor, "b 3 f h w"]) -> Float[Tensor, "b f e"]:
        """Embed the frames of videos in [-1, 1] of any size."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(video)")


class EmbeddedFrameEncoder(FrameEncoder):
    """A small convolutional network that is trained along; needs no download.

    It sees every frame between its two neighbours on either side, so that an embedding tells what moves and where, and when it turns.
    Frames are averaged down to `size_px` first.

    Args:
        feature_width: width of an embedding.
        size_px: rows and columns that it looks at; a multiple of 8.
        channels: channels behind each of the three convolutions, which halve rows and columns.
    """

    def __init__(self, *, feature_width: int = 128, size_px: int = 32, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__(feature_width=feature_width)
        if size_px % 8 or size_px < 8 or len(channels) != 3:
            raise UsageError(
                f"size_px={size_px} and channels={list(channels)} were given",
                "three convolutions halve rows and columns, so the size is a multiple of 8",
                "give e.g. size_px 32 and channels [16, 32, 64]",
            )
        self.size_px = size_px
        # Two of the three look at neighbouring frames, so two frames on either side are seen.
        self.convolutions = nn.ModuleList(
            nn.Conv3d(width_in, width, (num_frames, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
            for width_in, width, num_frames in zip((3, *channels[:2]), channels, (3, 3, 1), strict=True)
        )
        self.linear = nn.Linear(channels[-1] * (size_px // 8) ** 2, feature_width)
        self.norm = RMSNorm(width=feature_width)

    def forward(self, video: Float[Tensor, "b 3 f h w"]) -> Float[Tensor, "b f e"]:
        """Embed the frames; before the first and behind the last frame the video stands still."""
        b, _, f, _, _ = video.shape
        frames = video.transpose(1, 2).flatten(0, 1)
        small = F.interpolate(frames, size=(self.size_px, self.size_px), mode="area").to(self.linear.weight.dtype)
        x = small.unflatten(0, (b, f)).transpose(1, 2)
        for convolution in self.convolutions:
            reach = convolution.kernel_size[0] // 2
            x = F.silu(convolution(F.pad(x, (0, 0, 0, 0, reach, reach), mode="replicate")))
        return self.norm(self.linear(x.transpose(1, 2).flatten(2)))
