"""Sound: the DAC-VAE, the audio DiT for video-to-audio and text-to-audio, and extension to any length (section 6), as a plugin."""

from collections.abc import Iterable
from typing import Any

from moviegen_core import Component, hookimpl

_PUBLIC = {
    "ChunkedMap": "streaming",
    "CodecNetwork": "codec",
    "DacVae": "dac_vae",
    "MelDistance": "spectral",
    "Posterior": "bottleneck",
    "Snake1d": "snake",
    "SoundDiscriminator": "discriminator",
    "SoundLossWeights": "loss",
    "SoundMetrics": "metrics",
    "StftDistance": "spectral",
    "SyntheticSounds": "synthetic",
    "bits_per_second": "bottleneck",
    "code_with_opus": "opus",
    "load_dac": "dac_import",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """The parts, by name."""
    yield Component("autoencoder", "moviegen_audio.DacVae", "DAC-VAE: 48 kHz sound to 25 latent frames per second and back")
    yield Component("data", "moviegen_audio.SyntheticSounds", "chords, clicks, noise bursts and sweeps, drawn while training")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
