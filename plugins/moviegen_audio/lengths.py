"""How long a sound shall be, by what is known of it."""

from collections.abc import Mapping
from typing import Any

from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError

LONGEST_S = 86400.0  # so that a slip of the pen asks for no memory that no machine has


def lengths_of(batch: MediaBatch, audio_hz: int, duration_s: float) -> list[int]:
    """Samples of every sound to generate: as long as what is filled in, the video, the visual features, the sound itself, or as the
    metadata say.

    Args:
        batch: what the sounds are for.
        audio_hz: samples per second of what is generated.
        duration_s: seconds where the batch does not say.
    """
    features, visual_fps = batch.extras.get("visual_features"), batch.extras.get("visual_fps")
    has_context = "context_mask" in batch.extras
    if batch.video is not None and batch.fps is not None and not has_context:
        durations = [_seconds(batch.video.shape[2], fps) for fps in batch.fps.tolist()]
    elif features is not None and visual_fps is not None and not has_context:
        durations = [_seconds(features.shape[1], fps) for fps in visual_fps.tolist()]
    elif batch.audio is not None and batch.audio_hz is not None:
        durations = [batch.audio.shape[2] / batch.audio_hz] * len(batch)
    else:
        told = batch.metadata or [{}] * len(batch)
        # Beside cached latents `duration_s` is that of the file which they are a chunk of.
        own = [_encoded_s(metadata) if batch.latents is not None else metadata.get("duration_s") for metadata in told]
        durations = [_told(seconds, duration_s) for seconds in own]
    return [num_samples_of(seconds, audio_hz) for seconds in durations]


def num_samples_of(duration_s: float, audio_hz: int) -> int:
    """Samples of a sound, at least one.

    Raises:
        UsageError: the duration is not above 0, more than a day, or no number.
    """
    if not 0.0 < duration_s <= LONGEST_S:
        exists = "a sound lasts some time, and no longer than a day"
        raise UsageError(f"a duration of {duration_s:g} s was given", exists, "give seconds above 0")
    return max(1, round(duration_s * audio_hz))


def _encoded_s(metadata: Mapping[str, Any]) -> float | None:
    """Seconds of the sound that a cached latent was made of, as `LatentShardWriter` notes them."""
    encoded = metadata.get("encoded") or {}
    return encoded["samples"] / encoded["audio_hz"] if encoded.get("audio_hz") else None


def _told(wanted: Any, default_s: float) -> float:
    """Seconds by a sample's metadata, which may be those of a file of prompts; the default where they say nothing."""
    if wanted is None:
        return default_s
    try:
        if not isinstance(wanted, bool):
            return float(wanted)
    except (TypeError, ValueError):
        pass
    raise UsageError(f"duration_s={wanted!r} was given", "it is a number of seconds", "give e.g. 5, or leave it out for the model's own")


def _seconds(num_frames: int, fps: float) -> float:
    if not 0.0 < fps < float("inf"):
        raise UsageError(f"a video of {fps:g} frames per second was given", "its sound lasts as long as it does", "give its frame rate")
    return num_frames / fps


def durations_of(data: Any) -> list[float]:
    """Seconds of the sounds that a data module trains on: its `durations`, or the frames of its clips over their rate; none where it does
    not say, as with cached latents of any length.
    """
    if getattr(data, "latents", False):
        return []
    if durations := getattr(data, "durations", None):
        return [float(seconds) for seconds in durations]
    clips = getattr(data, "buckets", None) or [data]
    sizes = [[getattr(clip, name, None) or getattr(data, name, None) for name in ("num_frames", "fps")] for clip in clips]
    return [num_frames / float(fps) for num_frames, fps in sizes if num_frames and fps]
