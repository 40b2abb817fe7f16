"""Frequent, jittery camera movement (B.1; Table 39, no jittery motion)."""

from moviegen_core.errors import require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media
from moviegen_data.curation.shots import cuts
from moviegen_data.curation.stage import ClipStage

_STEADY_FPS = 25.0
_PYSCENEDETECT = 27.0  # ContentDetector's own threshold


class Jitter(ClipStage):
    """Drops clips that shot detection breaks into many shots, true or false.

    PySceneDetect's content score is compared with a fixed threshold, neither adaptive nor merged: those settings were made to
    overlook what is looked for here. The paper gives the limit, not the detector's settings. Between frames that lie farther apart more
    changes without any jolt: of films below 25 frames a second the threshold is higher in proportion, up to PySceneDetect's own. One cut
    is not frequent, however short the clip; it matters below 2.4 s only. Pictures and sounds pass.

    Args:
        max_shots_per_s: limit, exclusive; a clip without any cut has none.
        threshold: content score (0 to 255) that counts as a new shot, at 25 frames a second or more. PySceneDetect's own is 27, which only
            violent shaking reaches; its adaptive detector overlooks what is below 15.
        min_shot_s: shortest shot; PySceneDetect's own are 0.6 s.
    """

    def __init__(self, *, max_shots_per_s: float = 0.85, threshold: float = 15.0, min_shot_s: float = 0.6) -> None:
        require_at_least(0.0, max_shots_per_s=max_shots_per_s, threshold=threshold, min_shot_s=min_shot_s)
        self.max_shots_per_s, self.threshold, self.min_shot_s = max_shots_per_s, threshold, min_shot_s

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Score the clip as `shots_per_s`."""
        if media.kind != "video":
            return clip
        measures = media.measures.between(clip.start_s, clip.end_s)
        rate = len(measures) / measures.duration_s
        threshold = max(self.threshold, min(_PYSCENEDETECT, self.threshold * _STEADY_FPS / rate))
        num_cuts = len(cuts(measures.content, measures.times_s, threshold, self.min_shot_s))
        shots_per_s = (num_cuts + 1) / measures.duration_s if num_cuts else 0.0
        clip = clip.scored(shots_per_s=shots_per_s)
        if num_cuts > 1 and shots_per_s > self.max_shots_per_s:
            return clip.dropped("jittery", measured=f"{shots_per_s:.2f} shots per second", wanted=f"{self.max_shots_per_s:g} at most")
        return clip
