"""Sound: the DAC-VAE, the audio DiT for video-to-audio and text-to-audio, and extension to any length (section 6), as a plugin."""

from collections.abc import Iterable
from typing import Any

from moviegen_core import Component, hookimpl

_PUBLIC = {
    "AudioTagger": "tagging",
    "Category": "categories",
    "ClapScorer": "similarity",
    "Continuity": "beam",
    "DecodedScorer": "beam",
    "ExportedAudioVideoScorer": "similarity",
    "MultiDiffusion": "multidiffusion",
    "SegmentAutoregressive": "autoregressive",
    "SegmentBeamSearch": "beam",
    "SegmentConditionings": "segments",
    "SegmentScorer": "beam",
    "SimilarityScorer": "similarity",
    "audio_types": "categories",
    "categorize": "categories",
    "diegesis": "categories",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """The parts, by name."""
    yield Component("sampler", f"{__name__}.MultiDiffusion", "long samples, all segments side by side (6.1.5)")
    yield Component("sampler", f"{__name__}.SegmentAutoregressive", "long samples, one segment after another (6.1.5)")
    yield Component("sampler", f"{__name__}.SegmentBeamSearch", "long samples, the best of several beginnings (6.1.5)")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
