"""The temporal autoencoder (TAE) of Movie Gen Video, 3.1.1, as a plugin."""

from collections.abc import Iterable
from typing import Any

from moviegen_core import Component, hookimpl

_PUBLIC = {
    "AutoencoderNetwork": "model",
    "LossWeights": "loss",
    "PatchDiscriminator": "discriminator",
    "PerceptualLoss": "perceptual",
    "ReconstructionMetrics": "metrics",
    "TemporalAutoencoder": "training",
    "TemporalTiling": "tiling",
    "load_image_autoencoder": "inflation",
    "outlier_penalty": "loss",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """The autoencoder, by name."""
    yield Component("autoencoder", "moviegen_tae.TemporalAutoencoder", "temporal autoencoder (2.5D, 3D) and frame-wise image autoencoder")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
