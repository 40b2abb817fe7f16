"""Segments of a long sample, and what the model knows about each: its caption, its frames, its context (6.1.5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moviegen_audio.alignment import nearest_frames
from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow.windows import Segments, Shape, Window


def paper_segments(*, window: int, hop: int, shape: Shape = "uniform") -> Segments:
    """The paper's segmentation from its two lengths.

    Args:
        window: length n_win of a segment in latent frames.
        hop: distance n_hop between the ends of neighbours in latent frames, from 1 to `window`.
        shape: weights inside a segment, for those who blend.

    Raises:
        UsageError: the lengths do not fit.
    """
    if not 1 <= hop <= window:
        raise UsageError(
            f"segments of window={window} latent frames with hop={hop} were asked for",
            "a hop is from 1 to the window; what remains of the window is the overlap",
            "give for example window=1000 and hop=750, that is 40 s and 30 s at 25 latent frames a second",
        )
    return Segments(size=window, overlap=window - hop, shape=shape)


@dataclass(frozen=True)
class SegmentConditionings:
    """Makes the conditionings of one segment when a sampler asks, from the part of the batch that belongs to it.

    A model hands it to the sampler in place of its conditionings (`FlowModel.conditionings`); the encoders then never see more than one
    segment. Call it as make(index, window).

    Args:
        batch: the whole: `latents` (b, c, t) with `extras["context_mask"]` (b, t), and `video` or `extras["visual_features"]`.
        variants: the sampler's, in its order.
        condition: (batch, names of the conditioners to drop) -> Conditioning.
        captions: for every sample one caption per segment; the batch's own caption for all segments where None.
        windows: the sampler's segments, to check the captions against.
        latent_hz: latent frames per second.

    Raises:
        UsageError: a sample has more or fewer captions than there are segments.
    """

    batch: MediaBatch
    variants: Sequence[frozenset[str]]
    condition: Callable[[MediaBatch, frozenset[str]], Conditioning]
    windows: Sequence[Window]
    captions: Sequence[Sequence[str]] | None = None
    latent_hz: float = 25.0

    def __post_init__(self) -> None:
        if self.captions is None:
            return
        for key, captions in zip(self.batch.keys, self.captions, strict=True):
            if len(captions) != len(self.windows):
                ends = ", ".join(f"{window.stop / self.latent_hz:g}" for window in self.windows)
                raise UsageError(
                    f"{len(captions)} captions were given for the segments of {key!r}",
                    f"the sampler cuts it into {len(self.windows)} segments, which end at {ends} s",
                    "give one caption for each of them, or one for all",
                )

    def __call__(self, index: int, window: Window) -> list[Conditioning]:
        """The conditionings of segment `index`, one for each variant."""
        part = cut(self.batch, window, latent_hz=self.latent_hz)
        if self.captions is not None:
            part = replace(part, captions=[captions[index] for captions in self.captions], text={})
        return [self.condition(part, variant) for variant in self.variants]


def captions_of(batch: MediaBatch, name: str, num_segments: int) -> list[Sequence[str]] | None:
    """For every sample the captions of its segments that its metadata hold by this name, or else its own for all; None where none has any.

    Raises:
        UsageError: a sample's are no list of texts.
    """
    told = [metadata.get(name) for metadata in batch.metadata]
    if all(captions is None for captions in told):
        return None
    for key, captions in zip(batch.keys, told, strict=True):
        is_list = isinstance(captions, (list, tuple)) and all(isinstance(caption, str) for caption in captions)
        if captions is not None and not is_list:
            raise UsageError(
                f"{name}={captions!r} was given for {key!r}", "it is a list of texts, one for each segment", "give such a list"
            )
    return [[own] * num_segments if captions is None else captions for captions, own in zip(told, batch.captions, strict=True)]


def cut(batch: MediaBatch, window: Window, *, latent_hz: float = 25.0) -> MediaBatch:
    """The part of a batch of sounds and films that lies in a window of latent frames, of which a second has `latent_hz`.

    Frames and visual features come out at that rate, one for each latent frame: the nearest. So a segment sees just the frames that it
    would see within the whole.
    """
    extras = dict(batch.extras)
    if "context_mask" in extras:
        extras["context_mask"] = extras["context_mask"][:, window.start : window.stop]
    if "visual_features" in extras:
        features, fps = extras["visual_features"], extras["visual_fps"]
        extras["visual_features"] = _nearest(features, fps, window, latent_hz, dim=1)
        extras["visual_fps"] = torch.full_like(fps, latent_hz)
    part = replace(batch, extras=extras, audio=None, audio_hz=None)
    if batch.latents is not None:
        part = replace(part, latents=batch.latents[:, :, window.start : window.stop])
    if batch.video is not None and batch.fps is not None:
        video = _nearest(batch.video, batch.fps, window, latent_hz, dim=2)
        part = replace(part, video=video, fps=torch.full_like(batch.fps, latent_hz))
    return part


def _nearest(frames: Tensor, fps: Tensor, window: Window, latent_hz: float, *, dim: int) -> Tensor:
    """For every latent frame of the window the nearest of each sample's frames."""
    nearest = nearest_frames(window.stop, latent_hz, fps, frames.shape[dim])[:, window.start :].to(frames.device)
    return torch.stack([sample.index_select(dim - 1, index) for sample, index in zip(frames, nearest, strict=True)])
