"""Refuses sounds and prompts that nothing can be made of."""

from collections.abc import Sequence

from jaxtyping import Float
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


def require_finite(audio: Float[Tensor, "b a s"], keys: Sequence[str]) -> None:
    """Refuse sounds with NaN or infinity, by the first one's key."""
    finite = audio.isfinite().flatten(1).all(1)
    if not finite.all():
        bad = [key for key, is_finite in zip(keys, finite.tolist(), strict=True) if not is_finite]
        raise UsageError(f"the sound {bad[0]!r} holds NaN or infinity", "samples are numbers from -1 to 1", "mend or leave out that sound")


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
