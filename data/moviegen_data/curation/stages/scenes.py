"""Clips from within single scenes (3.2.1; B.1, clip sampling; Table 39, no scene change)."""

import hashlib
from collections.abc import Iterable
from typing import Literal

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.jumps import dark_cuts, is_flash, thrown
from moviegen_data.curation.measures import Measures
from moviegen_data.curation.media import Media
from moviegen_data.curation.shots import Scene, cuts, scenes
from moviegen_data.curation.stage import ClipStage


class Scenes(ClipStage):
    """Finds the scenes of a video and takes clips at random from some of them; pictures and sounds pass as they are.

    What is drawn depends on the seed, the clip's key and the number of the scene alone. Scenes end at cuts, at fades from and to black, and
    at dissolves of some 0.2 to 2 s; the frames of fades and dissolves are part of no scene. A flash of at most three frames, after which
    the picture is the one before it, is no cut, nor is a jump after which the picture is there at another place while all around is in
    motion too: a whip, or a camera that is thrown about.

    Args:
        method: `ffmpeg` is the paper's (scdet), `pyscenedetect` the content score of ContentDetector, `both` cuts where either does.
        ffmpeg_threshold: scdet score of a cut, 0 to 100; FFmpeg recommends 8 to 14.
        pyscenedetect_threshold: content score of a cut, 0 to 255; PySceneDetect's own is 27.
        find_dark_cuts: also cut where scores are low, since pictures are dark or of like shades, but most of the picture changes at once.
        find_dissolves: end scenes at dissolves too.
        black_luma: mean brightness (0 to 255) up to which a frame is black and no part of a scene; null keeps black frames.
        head_s: seconds that are left out at a video's beginning, where cameras are unsteady and titles come (Panda-70M).
        margin_s: clips keep so far from a scene's ends.
        min_scene_s: scenes are longer than this; null takes every scene that holds a clip.
        min_s: shortest clip; 12 in the paper's high-resolution set.
        max_s: longest clip.
        long_share: share of the clips, 0 to 1, that are within a second of the longest the scene allows; the others have any length. With
            0.5, half of the clips and more are of 15 to 16 s, as in the paper.
        max_scenes: scenes taken of one video, at random; 1 in the paper's high-resolution set.
        clips_per_scene: clips taken of one scene, without overlap, as far as they fit.
        seed: of everything random.

    Raises:
        UsageError: a limit is out of range, or two cross.
    """

    def __init__(
        self,
        *,
        method: Literal["ffmpeg", "pyscenedetect", "both"] = "ffmpeg",
        ffmpeg_threshold: float = 10.0,
        pyscenedetect_threshold: float = 27.0,
        find_dark_cuts: bool = True,
        find_dissolves: bool = True,
        black_luma: float | None = 12.0,
        head_s: float = 2.0,
        margin_s: float = 0.1,
        min_scene_s: float | None = 16.0,
        min_s: float = 4.0,
        max_s: float = 16.0,
        long_share: float = 0.5,
        max_scenes: int = 2,
        clips_per_scene: int = 1,
        seed: int = 0,
    ) -> None:
        if method not in ("ffmpeg", "pyscenedetect", "both"):
            raise UsageError(f"method={method!r} was given", "methods are ffmpeg, pyscenedetect and both", "give one of them")
        require_at_least(0.0, ffmpeg_threshold=ffmpeg_threshold, pyscenedetect_threshold=pyscenedetect_threshold, long_share=long_share)
        require_at_least(0.0, head_s=head_s, margin_s=margin_s, min_scene_s=min_scene_s or 0.0)
        require_at_least(1, max_scenes=max_scenes, clips_per_scene=clips_per_scene)
        if not 0.0 < min_s <= max_s:
            raise UsageError(f"min_s={min_s} and max_s={max_s} were given", "clips are longer than nothing", "give 0 < min_s <= max_s")
        self.method, self.black_luma = method, black_luma
        self.find_dark_cuts, self.find_dissolves = find_dark_cuts, find_dissolves
        self.ffmpeg_threshold, self.pyscenedetect_threshold = ffmpeg_threshold, pyscenedetect_threshold
        self.head_s, self.margin_s, self.min_scene_s = head_s, margin_s, min_scene_s
        self.min_s, self.max_s, self.long_share = min_s, max_s, long_share
        self.max_scenes, self.clips_per_scene, self.seed = max_scenes, clips_per_scene, seed

    def apply(self, clip: Clip, media: Media) -> Clip | Iterable[Clip]:
        """Make clips `KEY-000`, `KEY-001`, ..., in order of time, each scored with the number of scenes (`num_scenes`)."""
        if media.kind != "video":
            return clip
        measures = media.measures.between(clip.start_s, clip.end_s)
        found = self.scenes_of(measures)
        clip = clip.scored(num_scenes=len(found))
        usable = {number: stretch for number, scene in enumerate(found) if (stretch := self._usable(scene, measures)) is not None}
        if not usable:
            longest = max((scene.duration_s for scene in found), default=0.0)
            wanted = f"more than {max(self.min_scene_s or 0.0, self.min_s):g} s without a cut"
            return clip.dropped("no long scene", measured=f"the longest of {len(found)} is {longest:.2f} s", wanted=wanted)
        taken = sorted(sorted(usable, key=lambda number: self._random(clip, number, "scene"))[: self.max_scenes])
        spans = [span for number in taken for span in self._spans(clip, number, usable[number])]
        return [clip.part(number, span.start_s, span.end_s).scored(num_scenes=len(found)) for number, span in enumerate(spans)]

    def scenes_of(self, measures: Measures) -> list[Scene]:
        """All scenes, however short."""
        return scenes(measures, self.cut_rows(measures), self.black_luma, dissolves=self.find_dissolves)

    def cut_rows(self, measures: Measures) -> list[int]:
        """Rows that begin a new shot; those at which a flash begins or ends, or the camera is thrown, do not."""
        rows: set[int] = set()
        if self.method != "pyscenedetect":
            rows |= set(cuts(measures.scene_score, measures.times_s, self.ffmpeg_threshold))
        if self.method != "ffmpeg":
            rows |= set(cuts(measures.content, measures.times_s, self.pyscenedetect_threshold))
        if self.find_dark_cuts:
            rows |= set(dark_cuts(measures))
        lasting = [row for row in sorted(rows) if not is_flash(measures.cells, row)]
        return sorted({*lasting} - {*thrown(measures, lasting)})

    def _usable(self, scene: Scene, measures: Measures) -> Scene | None:
        """What clips may be taken from; None where the scene or the rest of it is too short."""
        if self.min_scene_s is not None and scene.duration_s <= self.min_scene_s:
            return None
        rest = Scene(max(scene.start_s + self.margin_s, self.head_s), scene.end_s - self.margin_s)
        return rest if rest.duration_s >= self.min_s else None

    def _spans(self, clip: Clip, number: int, usable: Scene) -> list[Scene]:
        count = min(self.clips_per_scene, int(usable.duration_s / self.min_s))
        share_s = usable.duration_s / count
        spans = []
        for place in range(count):
            longest = min(self.max_s, share_s)
            is_long = self._random(clip, number, f"{place} is long") < self.long_share
            shortest = max(self.min_s, longest - 1.0) if is_long else self.min_s
            length = shortest + self._random(clip, number, f"{place} length") * (longest - shortest)
            start_s = usable.start_s + place * share_s + self._random(clip, number, f"{place} start") * (share_s - length)
            spans.append(Scene(start_s, start_s + length))
        return spans

    def _random(self, clip: Clip, scene: int, what: str) -> float:
        digest = hashlib.sha256(f"{self.seed} {clip.key} {scene} {what}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64
