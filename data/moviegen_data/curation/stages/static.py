"""Static videos and slideshows (3.2.1, motion filtering: the static video detection and the special motion effects)."""

import numpy as np

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.measures import Measures
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage


class Static(ClipStage):
    """Drops clips in which next to nothing moves, and those that stand still but for jumps. The paper's model is internal; this is ours.

    A place moves where its brightness, averaged over a cell of 1/16 of the longer side, ranges over more than `change` levels in nine
    tenths of the clip's frames; so flicker, rain and noise do not count, and what wanders through the picture does. A clip stands still
    where its frames hardly change for `still_s` or longer: a slide, a frozen picture. Slides under a moving camera effect are not told
    from camera motion. Pictures and sounds pass.

    Args:
        min_moving_area: least share of the picture that moves, 0 to 1.
        change: levels of brightness (of 255) that count as motion.
        max_still_share: most share of the time that stands still, 0 to 1; 1 for no limit.
        still_s: seconds without change that count as standing still; below, it is a low frame rate shown at a high one.
        still_score: motion score (see `Motion`) up to which a frame is the same as the one before.

    Raises:
        UsageError: a share is not within 0 to 1.
    """

    def __init__(
        self,
        *,
        min_moving_area: float = 0.08,
        change: float = 16.0,
        max_still_share: float = 0.65,
        still_s: float = 0.5,
        still_score: float = 0.15,
    ) -> None:
        for name, share in (("min_moving_area", min_moving_area), ("max_still_share", max_still_share)):
            if not 0.0 <= share <= 1.0:
                raise UsageError(f"{name}={share} was given", "it is a share from 0 to 1", "give one such as 0.5")
        self.min_moving_area, self.change, self.max_still_share = min_moving_area, change, max_still_share
        self.still_s, self.still_score = still_s, still_score

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Score the clip as `moving_area` and `still_share`."""
        if media.kind != "video":
            return clip
        measures = media.measures.between(clip.start_s, clip.end_s)
        area, still = moving_area(measures, self.change), still_share(measures, self.still_score, self.still_s)
        clip = clip.scored(moving_area=area, still_share=still)
        if area < self.min_moving_area:
            return clip.dropped("static", measured=f"{area:.0%} of the picture moves", wanted=f"{self.min_moving_area:.0%} or more")
        if still > self.max_still_share:
            return clip.dropped("slideshow", measured=f"still for {still:.0%} of the time", wanted=f"{self.max_still_share:.0%} at most")
        return clip


def moving_area(measures: Measures, change: float) -> float:
    """Share of the picture's cells whose brightness ranges over more than `change` levels, rare extremes left out."""
    darkest, brightest = np.percentile(measures.cells, (5, 95), axis=0)
    return float(np.mean(brightest - darkest > change))


def still_share(measures: Measures, still_score: float, still_s: float) -> float:
    """Share of the time in which at least `still_s` passes without a change."""
    changed = np.flatnonzero(~(measures.motion <= still_score))  # the first row is NaN, which begins a run
    starts = np.maximum(measures.times_s[changed], measures.start_s)
    runs = np.diff(starts, append=measures.end_s)
    return float(runs[runs >= still_s].sum() / measures.duration_s)
