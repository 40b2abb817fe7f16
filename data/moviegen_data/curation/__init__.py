"""Curation: from a folder of raw media to shards of clips that are worth learning from (3.2.1, B.1)."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Clip": "clip",
    "ClipStage": "stage",
    "Drop": "clip",
    "Engine": "engine",
    "Function": "stage",
    "LocalEngine": "local_engine",
    "Measures": "measures",
    "Media": "media",
    "RayEngine": "ray_engine",
    "Resources": "stage",
    "SetStage": "stage",
    "Stage": "stage",
    "curate": "command",
    "measure": "measures",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
