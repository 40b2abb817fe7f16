"""What a stage looks at of a clip: its stretch of the medium, as pictures. Who asks alike shares what was decoded."""

import math

import numpy as np
from jaxtyping import UInt8

from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media
from moviegen_data.faults import SampleError

LOOKS_PER_S = 2.0
MOST_LOOKS = 48
MAX_SIDE = 960  # bounds the memory of a clip's looks to 75 MB


def stretch(clip: Clip, media: Media) -> tuple[float, float]:
    """Where a clip begins and ends in its medium, in seconds; a picture has no length.

    Raises:
        SampleError: the end is not known and cannot be found, or does not lie behind the beginning, or the medium ends before the clip
            begins.
    """
    if media.kind == "picture":
        return 0.0, 0.0
    length_s = clip.facts.get("duration_s")
    end_s = length_s if clip.end_s is None else clip.end_s
    if end_s is None:
        end_s = media.sound_s if media.kind == "sound" else media.info.duration_s or media.extent[1]
    last_s = end_s if length_s is None else min(end_s, length_s)
    if not math.isfinite(end_s) or last_s <= clip.start_s:
        raise SampleError("no such stretch", f"{clip.start_s:g} s to {end_s:g} s")
    return clip.start_s, float(end_s)


def look(clip: Clip, media: Media, *, count: int, max_side: int | None = None) -> UInt8[np.ndarray, "n h w 3"]:
    """Pictures of a clip, evenly spread over it; a picture gives itself, once.

    Args:
        clip: the clip.
        media: its medium.
        count: pictures wanted.
        max_side: pixels of the longer side at most; the file's own size unless given.

    Raises:
        SampleError: they cannot be decoded.
    """
    return media.stills(*stretch(clip, media), count=count, max_side=max_side)


def looks(clip: Clip, media: Media) -> tuple[UInt8[np.ndarray, "n h w 3"], list[float]]:
    """Pictures of a clip, evenly spaced, at most half a second apart while it is shorter than 24 s; and their times in the medium.

    Raises:
        SampleError: they cannot be decoded.
    """
    start_s, end_s = stretch(clip, media)
    count = min(MOST_LOOKS, max(1, math.ceil((end_s - start_s) * LOOKS_PER_S)))
    pictures = media.stills(start_s, end_s, count=count, max_side=MAX_SIDE)
    times = [start_s + (end_s - start_s) * (number + 0.5) / count for number in range(len(pictures))]
    return pictures, times
