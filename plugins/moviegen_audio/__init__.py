"""Sound: the DAC-VAE, the audio DiT for video-to-audio and text-to-audio, and extension to any length (section 6), as a plugin."""

from collections.abc import Iterable
from typing import Any

from moviegen_core import Component, CurationStage, hookimpl

_PUBLIC = {
    "AudioCaption": "captions",
    "AudioContext": "conditioners",
    "AudioTagger": "tagging",
    "AudioTransformer": "model",
    "Category": "categories",
    "ChunkedMap": "streaming",
    "ClapScorer": "similarity",
    "ClipFrameEncoder": "clip_frames",
    "CodecNetwork": "codec",
    "Continuity": "beam",
    "DacVae": "dac_vae",
    "DecodedScorer": "beam",
    "EmbeddedFrameEncoder": "frames",
    "ExportedAudioVideoScorer": "similarity",
    "FrameEncoder": "frames",
    "MelDistance": "spectral",
    "MultiDiffusion": "multidiffusion",
    "OnsetSyncScorer": "scorer",
    "Posterior": "bottleneck",
    "Scorer": "scorer",
    "SegmentAutoregressive": "autoregressive",
    "SegmentBeamSearch": "beam",
    "SegmentConditionings": "segments",
    "SegmentScorer": "beam",
    "SimilarityScorer": "similarity",
    "Snake1d": "snake",
    "SoundDiscriminator": "discriminator",
    "SoundLossWeights": "loss",
    "SoundMetrics": "metrics",
    "SoundTags": "curation",
    "StftDistance": "spectral",
    "SyntheticSounds": "synthetic",
    "VideoFrames": "conditioners",
    "VideoToAudio": "training",
    "audio_types": "categories",
    "bits_per_second": "bottleneck",
    "categorize": "categories",
    "code_with_opus": "opus",
    "diegesis": "categories",
    "load_dac": "dac_import",
    "sound_effects": "captions",
    "sound_effects_and_music": "captions",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """The parts, by name."""
    yield Component("autoencoder", f"{__name__}.DacVae", "DAC-VAE: 48 kHz sound to 25 latent frames per second and back")
    yield Component("backbone", f"{__name__}.AudioTransformer", "transformer over the frames of a latent sound (6.1.2)")
    yield Component("conditioner", f"{__name__}.AudioContext", "known parts of the sound, beside the noisy latent (6.1.3)")
    yield Component("conditioner", f"{__name__}.VideoFrames", "the nearest video frame's embedding for every latent frame (6.1.3)")
    yield Component("data", f"{__name__}.SyntheticSounds", "chords, clicks, noise bursts and sweeps, drawn while training")
    yield Component("model", f"{__name__}.VideoToAudio", "sounds for videos, captions, both, and around known parts (6.1)")
    yield Component("sampler", f"{__name__}.MultiDiffusion", "long samples, all segments side by side (6.1.5)")
    yield Component("sampler", f"{__name__}.SegmentAutoregressive", "long samples, one segment after another (6.1.5)")
    yield Component("sampler", f"{__name__}.SegmentBeamSearch", "long samples, the best of several beginnings (6.1.5)")


@hookimpl
def moviegen_curation_stages() -> Iterable[CurationStage]:
    """What is heard in clips."""
    yield CurationStage(f"{__name__}.SoundTags", "tags of what is heard; drops clips where silence dominates (6.2.1)")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
