"""Videos of a usable length (3.2.1; Table 39, duration)."""

import math

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage


class Duration(ClipStage):
    """Drops clips that are too short or too long. Pictures pass.

    Args:
        min_s: least seconds.
        max_s: most seconds; None for no limit.

    Raises:
        UsageError: the limits cross.
    """

    def __init__(self, *, min_s: float = 4.0, max_s: float | None = 120.0) -> None:
        require_at_least(0.0, min_s=min_s)
        if max_s is not None and max_s < min_s:
            raise UsageError(f"max_s={max_s} was given", f"min_s is {min_s}", "give a larger one")
        self.min_s, self.max_s = min_s, max_s

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Compare the clip's length with the limits; what no stage has measured yet is counted."""
        if media.kind == "picture":
            return clip
        duration_s = clip.duration_s
        if not math.isfinite(duration_s):
            duration_s = (media.sound_s if media.kind == "sound" else media.extent[1]) - clip.start_s
        wanted = f"{self.min_s:g} s to {self.max_s:g} s" if self.max_s is not None else f"{self.min_s:g} s or more"
        if duration_s < self.min_s:
            return clip.dropped("too short", measured=f"{duration_s:.2f} s", wanted=wanted)
        if self.max_s is not None and duration_s > self.max_s:
            return clip.dropped("too long", measured=f"{duration_s:.2f} s", wanted=wanted)
        return clip
