"""The toy world: coloured shapes that move over plain or patterned grounds, with captions, masks, sounds and ground truth.

Scenes, captions, pixels and sounds need numpy alone; the data module is imported (and torch with it) when it is first used.
"""

from moviegen_data.toyworld.captions import caption_scene
from moviegen_data.toyworld.events import Event, find_events, is_heard
from moviegen_data.toyworld.renderer import ToyClip, render
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
from moviegen_data.toyworld.sound import AMBIENCES, TIMBRES, knock, render_sound
from moviegen_data.toyworld.sound_captions import SoundFacts, hears, sound_caption
from moviegen_data.toyworld.world import World

_LAZY = {
    "ToyWorldData": "moviegen_data.toyworld.dataset",
    "ToyWorldStream": "moviegen_data.toyworld.stream",
    "render_scenes": "moviegen_data.toyworld.media",
    "write_media_folder": "moviegen_data.toyworld.media",
}

__all__ = [
    "AMBIENCES",
    "COLOURS",
    "GROUNDS",
    "MOTIONS",
    "PATTERNED_GROUNDS",
    "PLAIN_GROUNDS",
    "SHAPES",
    "SIZES",
    "TIMBRES",
    "Event",
    "GroundSpec",
    "ObjectSpec",
    "SceneSpec",
    "SoundFacts",
    "ToyClip",
    "ToyWorldData",
    "ToyWorldStream",
    "World",
    "caption_scene",
    "combinations",
    "find_events",
    "hears",
    "is_heard",
    "is_held_out",
    "knock",
    "render",
    "render_scenes",
    "render_sound",
    "sample_scene",
    "sound_caption",
    "write_media_folder",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
