"""The toy world: coloured shapes that move over plain or patterned grounds, with captions, masks and ground truth.

Scenes, captions and pixels need numpy alone; the data module is imported (and torch with it) when it is first used.
"""

from moviegen_data.toyworld.captions import caption_scene
from moviegen_data.toyworld.renderer import Event, ToyClip, render
from moviegen_data.toyworld.sampling import sample_scene
from moviegen_data.toyworld.scene import (
    COLOURS,
    GROUNDS,
    MOTIONS,
    PATTERNED_GROUNDS,
    PLAIN_GROUNDS,
    SHAPES,
    SIZES,
    GroundSpec,
    ObjectSpec,
    SceneSpec,
    combinations,
    is_held_out,
)

_LAZY = {
    "ToyWorldData": "moviegen_data.toyworld.dataset",
    "ToyWorldStream": "moviegen_data.toyworld.stream",
    "render_scenes": "moviegen_data.toyworld.media",
    "write_media_folder": "moviegen_data.toyworld.media",
}

__all__ = [
    "COLOURS",
    "GROUNDS",
    "MOTIONS",
    "PATTERNED_GROUNDS",
    "PLAIN_GROUNDS",
    "SHAPES",
    "SIZES",
    "Event",
    "GroundSpec",
    "ObjectSpec",
    "SceneSpec",
    "ToyClip",
    "ToyWorldData",
    "ToyWorldStream",
    "caption_scene",
    "combinations",
    "is_held_out",
    "render",
    "render_scenes",
    "sample_scene",
    "write_media_folder",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
