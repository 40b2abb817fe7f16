"""Refuses sounds and prompts that nothing can be made of."""

import torch
from torch import Tensor

from moviegen_core.autoencoder import AudioAutoencoder, Autoencoder
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError


def require_sound(autoencoder: Autoencoder) -> AudioAutoencoder:
    """The autoencoder, which is one of sounds."""
    if not isinstance(autoencoder, AudioAutoencoder):
        raise UsageError(
            f"the autoencoder {type(autoencoder).__name__} was given", "sounds need an AudioAutoencoder", "give one such as DacVae"
        )
    return autoencoder


def require_sounds(audio: Tensor) -> None:
    """Refuse what is no batch of sounds."""
    if audio.ndim != 3 or not audio.is_floating_point():
        raise UsageError(
            f"a sound of shape {tuple(audio.shape)} and type {audio.dtype} was given",
            "sounds are (sounds, channels, samples), of floats in [-1, 1]",
            "move the axes (`audio[None]` makes a batch of one), or divide integers by their largest",
        )


def require_whole(batch: MediaBatch) -> None:
    """Refuse a batch whose parts are not one for each sample, or of another form than `MediaBatch` tells."""
    size, extras = len(batch), batch.extras
    if not size or isinstance(batch.captions, str) or not all(isinstance(caption, str) for caption in batch.captions):
        raise UsageError(
            f"captions={batch.captions!r} was given", "there is a list of one text for each sound", "give texts; an empty one says nothing"
        )
    if len(batch.keys) != size:
        raise UsageError(f"{len(batch.keys)} keys were given for {size} captions", "each sound has its own", "give as many")
    wanted = (("video", batch.video, "b3thw"), ("fps", batch.fps, "b"), ("audio", batch.audio, "bas"), ("latents", batch.latents, "bct"),
              ("visual_features", extras.get("visual_features"), "bfe"), ("visual_fps", extras.get("visual_fps"), "b"))  # fmt: skip
    for name, given, axes in wanted:
        if given is not None and not _has_form(given, axes, size):
            raise UsageError(
                f"{name} of shape {tuple(given.shape)} and type {given.dtype} was given",
                f"for {size} captions it is ({', '.join(axes.replace('b', str(size)))}), of floats that are numbers",
                f"correct {name}, or give one caption for each sound",
            )
    mask = extras.get("context_mask")
    if mask is not None and (mask.ndim != 2 or mask.dtype != torch.bool):
        raise UsageError(
            f"a context_mask of shape {tuple(mask.shape)} and type {mask.dtype} was given", "it is (b, t), true or false", "correct it"
        )


def _has_form(given: Tensor, axes: str, size: int) -> bool:
    """Whether a tensor is of floats and has these axes, a digit being a size. What is replaced of a sound may be anything."""
    sizes = {index: int(axis) for index, axis in enumerate(axes) if axis.isdigit()} | {0: size}
    fits = given.ndim == len(axes) and all(given.shape[index] == wanted for index, wanted in sizes.items())
    return fits and given.is_floating_point() and (axes in ("b", "bas") or bool(given.isfinite().all()))


def require_condition(batch: MediaBatch) -> None:
    """Refuse prompts that ask for nothing."""
    if batch.video is not None or {"visual_features", "context_mask"} & set(batch.extras) or batch.text:
        return
    silent = [key for key, caption in zip(batch.keys, batch.captions, strict=True) if not caption.strip()]
    if silent:
        raise UsageError(
            f"{silent[0]!r} was given with neither a video nor a caption",
            "a sound is made for a video, a caption, both, or around a known part",
            "give one of them; `generate([''])` makes a sound of nothing",
        )
