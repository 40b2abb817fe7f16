"""Batch records, and the shape legend every file of the project refers to.

Shape legend
    b  samples in the batch
    c  channels (3 for RGB pixels, the autoencoder's width for latents)
    t  frames, or latent frames
    h, w  rows and columns, in pixels or in latent cells
    n  tokens of the backbone (t·h·w after patchifying)
    l  tokens of the context (text, faces, tasks)
    d  width of the backbone
    a  channels of a sound (1 mono, 2 stereo)
    s  samples of a sound

Pixels and sounds are float in [-1, 1]. Time of the flow runs from noise (t = 0) to data (t = 1).
"""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass
class TextEmbedding:
    """Precomputed output of one text encoder, before the trainable projection.

    Args:
        tokens: hidden states (b, l, d_text).
        mask: true where a token is real (b, l).
    """

    tokens: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"]


@dataclass
class MediaBatch:
    """What a data module hands to a model: one shape, any number of samples.

    Media are there as far as they are known: pixels, sound, or latents that stand in for what is generated; a batch of prompts has none.
    An image is a video of one frame.

    Args:
        captions: one text per sample, FPS and camera prefixes included.
        keys: the samples' unique names (shard keys), for reports and for exact resume.
        video: pixels in [-1, 1] (b, 3, t, h, w), or None where latents stand in.
        latents: normalised latents of what is generated, (b, c, t, h, w) of a video or (b, c, t) of a sound, or None.
        fps: frames per second of each sample (b,), or None.
        audio: waveforms in [-1, 1] (b, a, s), or None.
        audio_hz: their samples per second, one rate for the batch, or None.
        text: precomputed text embeddings by the conditioner's name.
        extras: tensors of other capabilities by name (reference faces, source videos, visual features); first dimension b.
        metadata: the sample's own json, one mapping each.
    """

    captions: list[str]
    keys: list[str]
    video: Float[Tensor, "b c t h w"] | None = None
    latents: Float[Tensor, "b c ..."] | None = None
    fps: Float[Tensor, " b"] | None = None
    audio: Float[Tensor, "b a s"] | None = None
    audio_hz: int | None = None
    text: dict[str, TextEmbedding] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    metadata: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def is_image(self) -> bool:
        """True where every sample is a single frame."""
        media = self.latents if self.video is None else self.video
        return media is not None and media.shape[2] == 1


def size_wanted(batch: MediaBatch, *, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns to generate for a batch: those of its own clips, else of its prompts, else those given."""
    if batch.video is not None:
        frames, rows, columns = batch.video.shape[2:]
        return frames, rows, columns
    wanted = batch.metadata[0] if batch.metadata else {}
    if batch.latents is not None:  # the metadata's own sizes are those of the source file
        clip = wanted.get("encoded") or {}
        wanted = {"num_frames": clip.get("frames"), "height": clip.get("height"), "width": clip.get("width")}
    return int(wanted.get("num_frames") or num_frames), int(wanted.get("height") or height), int(wanted.get("width") or width)
