"""Temporal tiling of long videos (3.1.1, figure 6): memory constant in the length.

Tiles are encoded without overlap; decoded tiles overlap, and the later tile's share of frame j of N overlapping frames is w_j = j/N.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_core.flow.windows import Windows


class TemporalTiling:
    """Encodes and decodes a video tile by tile.

    Args:
        tile_frames: length of a tile in raw frames, a multiple of `temporal_factor` (32 in the paper).
        overlap_frames: raw frames shared by neighbouring tiles in decoding, a multiple of `temporal_factor`, at most half a tile (16).
        temporal_factor: raw frames per latent frame.

    Raises:
        ValueError: the lengths do not fit.
    """

    def __init__(self, *, tile_frames: int = 32, overlap_frames: int = 16, temporal_factor: int = 8) -> None:
        for name, frames in (("tile_frames", tile_frames), ("tile_overlap_frames", overlap_frames)):
            if frames % temporal_factor or frames < 0:
                raise ValueError(
                    f"{name} is {frames}, which is no whole number of latent frames; one latent frame is {temporal_factor} raw ones; "
                    f"take {max(1, round(frames / temporal_factor)) * temporal_factor}"
                )
        if tile_frames == 0 or 2 * overlap_frames > tile_frames:
            raise ValueError(
                f"tiles of {tile_frames} frames with an overlap of {overlap_frames} were asked for; the overlap is at most half a tile; "
                f"take an overlap of {tile_frames // temporal_factor // 2 * temporal_factor} or less"
            )
        self.temporal_factor = temporal_factor
        self.encoder_windows = Windows(size=tile_frames)
        self.decoder_windows = Windows(size=tile_frames // temporal_factor, overlap=overlap_frames // temporal_factor)
        self.output_windows = Windows(size=tile_frames, overlap=overlap_frames)

    def encode(self, encode: Callable[[Tensor], Tensor], video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b z s y x"]:
        """Encode tile by tile."""
        return torch.cat(list(self.stream_encode(encode, video)), dim=2)

    def decode(self, decode: Callable[[Tensor], Tensor], latent: Float[Tensor, "b z s y x"]) -> Float[Tensor, "b c t h w"]:
        """Decode tile by tile and blend."""
        return torch.cat(list(self.stream_decode(decode, latent)), dim=2)

    def stream_encode(self, encode: Callable[[Tensor], Tensor], video: Float[Tensor, "b c t h w"]) -> Iterator[Tensor]:
        """Yield the latents of one tile after another."""
        for window in self.encoder_windows(video.shape[2]):
            yield encode(video[:, :, window.start : window.stop])

    def stream_decode(self, decode: Callable[[Tensor], Tensor], latent: Float[Tensor, "b z s y x"]) -> Iterator[Tensor]:
        """Yield finished frames; of what is decoded, only one overlap is held."""
        tiles = (decode(latent[:, :, window.start : window.stop]) for window in self.decoder_windows(latent.shape[2]))
        return self.output_windows.stream(tiles, latent.shape[2] * self.temporal_factor, dim=2)
