"""What a stage looks at of a clip: its stretch of the medium, as pictures."""

import math

import numpy as np
from jaxtyping import UInt8

from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media


def stretch_of(clip: Clip, media: Media) -> tuple[float, float]:
    """Where a clip begins and ends in its medium, in seconds; a picture lasts no time.

    Raises:
        SampleError: the medium's end is not known, and it cannot be decoded to it.
    """
    if media.kind == "picture":
        return 0.0, 0.0
    if clip.end_s is not None:
        return clip.start_s, clip.end_s
    known = clip.facts.get("duration_s")
    known = media.info.duration_s if known is None else known
    end_s = float(known) if known is not None and math.isfinite(known) and known > 0 else media.extent[1]
    return clip.start_s, max(clip.start_s, end_s)


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
    start_s, end_s = stretch_of(clip, media)
    return media.stills(start_s, end_s, count=1 if media.kind == "picture" else count, max_side=max_side)
