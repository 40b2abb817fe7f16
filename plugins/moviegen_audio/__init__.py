"""Sound: the DAC-VAE, the audio DiT for video-to-audio and text-to-audio, and extension to any length (section 6), as a plugin."""

from collections.abc import Iterable
from typing import Any

from moviegen_core import Component, hookimpl

_PUBLIC = {
    "AudioTagger": "tagging",
    "Category": "categories",
    "ChunkedMap": "streaming",
    "ClapScorer": "similarity",
    "CodecNetwork": "codec",
    "Continuity": "beam",
    "DacVae": "dac_vae",
    "DecodedScorer": "beam",
    "ExportedAudioVideoScorer": "similarity",
    "MelDistance": "spectral",
    "MultiDiffusion": "multidiffusion",
    "Posterior": "bottleneck",
    "SegmentAutoregressive": "autoregressive",
    "SegmentBeamSearch": "beam",
    "SegmentConditionings": "segments",
    "SegmentScorer": "beam",
    "SimilarityScorer": "similarity",
    "Snake1d": "snake",
    "SoundDiscriminator": "discriminator",
    "SoundLossWeights": "loss",
    "SoundMetrics": "metrics",
    "StftDistance": "spectral",
    "SyntheticSounds": "synthetic",
    "audio_types": "categories",
    "bits_per_second": "bottleneck",
    "categorize": "categories",
    "code_with_opus": "opus",
    "diegesis": "categories",
    "load_dac": "dac_import",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """The parts, by name."""
    yield Component("autoencoder", f"{__name__}.DacVae", "DAC-VAE: 48 kHz sound to 25 latent frames per second and back")
    yield Component("data", f"{__name__}.SyntheticSounds", "chords, clicks, noise bursts and sweeps, drawn while training")
    yield Component("sampler", f"{__name__}.MultiDiffusion", "long samples, all segments side by side (6.1.5)")
    yield Component("sampler", f"{__name__}.SegmentAutoregressive", "long samples, one segment after another (6.1.5)")
    yield Component("sampler", f"{__name__}.SegmentBeamSearch", "long samples, the best of several beginnings (6.1.5)")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
