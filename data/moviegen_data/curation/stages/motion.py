"""Reasonable motion: neither slow nor wild (3.2.1, motion filtering; Table 39, no slow motion)."""

import numpy as np

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage


class Motion(ClipStage):
    """Drops clips with too little or too much motion, by means over their frames. Limits are exclusive, as the
    paper's. Pictures and sounds pass.

    Motion vectors come from the codec, or are estimated where it exports none; those of a codec often point over several frames.
    Both scores are means over the whole picture, of one frame after another. The paper does not say at which size or frame rate it
    measured. The references bring all films to one: what is filmed at 10 fps moves thrice as far from frame to frame as at 30, and a
    limit would mean another motion. Mean change hardly asks for a size, since larger pictures are smoother as much as they move further:
    of three films brought from 720 px to 240 it fell by 11 to 20 %.

    Args:
        min_score: FFmpeg's `vmafmotion`, mean change of blurred luma per frame (0 to 255); None for no limit.
        min_vector_px: mean length of motion vectors in pixels; None for no limit.
        max_vector_px: likewise, the most.
        reference_px: vectors are told as if the video's shorter side had so many pixels, in order that sizes compare; None takes the file's
            own pixels.
        reference_fps: both scores are told as if the film had so many frames a second; None takes the film's own.

    Raises:
        UsageError: the limits of the vectors cross, or a reference is not above 0.
    """

    def __init__(
        self,
        *,
        min_score: float | None = 2.0,
        min_vector_px: float | None = 0.5,
        max_vector_px: float | None = 7.0,
        reference_px: int | None = None,
        reference_fps: float | None = None,
    ) -> None:
        if min_vector_px is not None and max_vector_px is not None and max_vector_px <= min_vector_px:
            raise UsageError(f"max_vector_px={max_vector_px} was given", f"min_vector_px is {min_vector_px}", "give a larger one")
        if reference_px is not None and reference_px < 1:
            raise UsageError(f"reference_px={reference_px} was given", "a side has 1 pixel or more", "give a number such as 720, or null")
        if reference_fps is not None and not 0.0 < reference_fps < float("inf"):
            raise UsageError(f"reference_fps={reference_fps} was given", "a rate is above 0", "give a number such as 30, or null")
        self.min_score, self.min_vector_px, self.max_vector_px = min_score, min_vector_px, max_vector_px
        self.reference_px, self.reference_fps = reference_px, reference_fps

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Score the clip as `motion_score` and `motion_vector_px`."""
        if media.kind != "video":
            return clip
        measures = media.measures.between(clip.start_s, clip.end_s)
        vectors = measures.vector_px[np.isfinite(measures.vector_px)]
        if len(measures) < 2:
            return clip.dropped("no motion", measured="1 frame", wanted="2 or more")
        size = self.reference_px / min(measures.width, measures.height) if self.reference_px else 1.0
        rate = len(measures) / measures.duration_s / self.reference_fps if self.reference_fps else 1.0
        score = float(np.nanmean(measures.motion)) * rate
        # Only a stretch of nothing but key frames has no vectors; it is as still as its score says.
        vector_px = float(vectors.mean()) * size * rate if len(vectors) else 0.0
        clip = clip.scored(motion_score=score, motion_vector_px=vector_px)
        if self.min_score is not None and score <= self.min_score:
            return clip.dropped("too little motion", measured=f"score {score:.2f}", wanted=f"above {self.min_score:g}")
        if self.min_vector_px is not None and vector_px <= self.min_vector_px:
            return clip.dropped("too little motion", measured=f"vectors of {vector_px:.2f} px", wanted=f"above {self.min_vector_px:g} px")
        if self.max_vector_px is not None and vector_px >= self.max_vector_px:
            return clip.dropped("too much motion", measured=f"vectors of {vector_px:.2f} px", wanted=f"below {self.max_vector_px:g} px")
        return clip
