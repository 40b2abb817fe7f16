"""Sound: the DAC-VAE, the audio DiT for video-to-audio and text-to-audio, and extension to any length (section 6), as a plugin."""

from collections.abc import Iterable
from typing import Any

from moviegen_core import Component, hookimpl

_PUBLIC: dict[str, str] = {
    "AudioCaption": "captions",
    "AudioContext": "conditioners",
    "AudioTagger": "tagging",
    "AudioTransformer": "model",
    "Category": "categories",
    "ClapScorer": "similarity",
    "ClipFrameEncoder": "clip_frames",
    "Continuity": "beam",
    "DecodedScorer": "beam",
    "EmbeddedFrameEncoder": "frames",
    "ExportedAudioVideoScorer": "similarity",
    "FrameEncoder": "frames",
    "MultiDiffusion": "multidiffusion",
    "OnsetSyncScorer": "scorer",
    "Scorer": "scorer",
    "SegmentAutoregressive": "autoregressive",
    "SegmentBeamSearch": "beam",
    "SegmentConditionings": "segments",
    "SegmentScorer": "beam",
    "SimilarityScorer": "similarity",
    "VideoFrames": "conditioners",
    "VideoToAudio": "training",
    "audio_types": "categories",
    "categorize": "categories",
    "diegesis": "categories",
    "sound_effects": "captions",
    "sound_effects_and_music": "captions",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """The parts, by name."""
    yield Component("conditioner", "moviegen_audio.AudioContext", "known parts of the sound, beside the noisy latent (6.1.3)")
    yield Component("backbone", "moviegen_audio.AudioTransformer", "transformer over the frames of a latent sound (6.1.2)")
    yield Component("conditioner", "moviegen_audio.VideoFrames", "the nearest video frame's embedding for every latent frame (6.1.3)")
    yield Component("model", "moviegen_audio.VideoToAudio", "sounds for videos, captions, both, and around known parts (6.1)")
    yield Component("sampler", f"{__name__}.MultiDiffusion", "long samples, all segments side by side (6.1.5)")
    yield Component("sampler", f"{__name__}.SegmentAutoregressive", "long samples, one segment after another (6.1.5)")
    yield Component("sampler", f"{__name__}.SegmentBeamSearch", "long samples, the best of several beginnings (6.1.5)")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
