"""Text-to-image and text-to-video: the Movie Gen Video backbone and its training (3.1.3, 3.2)."""

from collections.abc import Iterable

from moviegen_core import Component, hookimpl

_PUBLIC = {
    "VideoTransformer": "moviegen_t2v.model",
    "TextToVideo": "moviegen_t2v.training",
    "grow": "moviegen_t2v.growth",
}
__all__ = ["TextToVideo", "VideoTransformer", "grow"]


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """Offer the backbone and the model."""
    yield Component("backbone", "moviegen_t2v.model.VideoTransformer", "LLaMa3-like transformer over latent video patches (3.1.3)")
    yield Component("model", "moviegen_t2v.training.TextToVideo", "text-to-image and text-to-video by flow matching (3.1, 3.2)")


def __getattr__(name: str) -> object:
    """Import public classes when they are first used, so that finding the plugin imports no torch."""
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
