"""Clips of one person, for personalisation (4.2.1): a single face, the same one in the whole clip."""

import math

import numpy as np

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.face_models import Face, FaceModel
from moviegen_data.curation.looking import MAX_SIDE, stretch
from moviegen_data.curation.media import Media
from moviegen_data.curation.sources import digest_of_sources
from moviegen_data.curation.stage import ClipStage

_MOST_LOOKS = 120  # the longest video of Table 39


class Faces(ClipStage):
    """Keeps clips in which one frame of every second shows exactly one face, and neighbouring ones the same person.

    Of clips of more than two minutes 120 frames are looked at, evenly spread.

    Scores: `faces`, the most faces in a frame; `one_face`, the share of frames with exactly one; `face_size`, the median height of these
    faces as a share of the picture's; and `same_person`, the lowest cosine of neighbouring frames' faces, which a single frame and a model
    that recognises nobody lack. Annotation `reference_faces`: `time_s` in the medium and `box` (left, top, width and height as shares) of
    the clearest faces, to be cut out as references. Whose head is turned away is no face to a detector, so some frames may be without.

    Args:
        faces: what finds faces and recognises people, `YuNetFaces` or another FaceModel. `CascadeFaces` recognises nobody.
        min_same: a clip is dropped unless the cosine of neighbouring faces is above this (4.2.1: 0.5, of ArcFace; OpenCV gives 0.363 for
            SFace). None does not ask who it is.
        min_one_face: share of frames that must show a face, above 0 and at most 1.
        min_face_size: least median height of the face as a share of the picture's.
        num_references: reference frames that are annotated (4.2.1: 5), evenly distributed; fewer of a clip with fewer faces.

    Raises:
        UsageError: a number is out of range, or the same person is asked for of a model that recognises nobody.
    """

    def __init__(
        self,
        *,
        faces: FaceModel,
        min_same: float | None = 0.5,
        min_one_face: float = 1.0,
        min_face_size: float = 0.1,
        num_references: int = 5,
    ) -> None:
        require_at_least(0, num_references=num_references, min_face_size=min_face_size)
        self.faces = faces
        if min_same is not None and not self.faces.recognizes:
            raise UsageError(
                f"min_same={min_same} was given with {type(self.faces).__name__}",
                "it finds faces, and does not tell whose they are",
                "give `faces` as YuNetFaces with a `recognizer_path`, or `min_same: null` to keep any single face",
            )
        if not 0.0 < min_one_face <= 1.0 or (min_same is not None and not -1.0 <= min_same < 1.0):
            given = f"min_one_face={min_one_face} and min_same={min_same} were given"
            raise UsageError(given, "the one is a share above 0, the other a cosine", "give e.g. 1.0 and 0.5")
        self.min_same, self.min_one_face, self.min_face_size = min_same, min_one_face, min_face_size
        self.num_references = num_references

    def fingerprint(self) -> str:
        return self.faces.fingerprint() + digest_of_sources(type(self.faces).__module__)

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Look at one frame of every second."""
        start_s, end_s = stretch(clip, media)
        count = min(_MOST_LOOKS, max(1, math.ceil(end_s - start_s)))
        pictures = media.stills(start_s, end_s, count=count, max_side=MAX_SIDE)
        found = [self.faces.find(picture) for picture in pictures]
        single = {index: some[0] for index, some in enumerate(found) if len(some) == 1}
        clip = clip.scored(faces=max(map(len, found)), one_face=len(single) / len(found))
        if not single or len(single) < self.min_one_face * len(found):
            reason = "no face" if not any(found) else "several faces" if max(map(len, found)) > 1 else "face comes and goes"
            return clip.dropped(reason, measured=f"one face in {len(single)} of {len(found)} frames", wanted=f"in {self.min_one_face:.0%}")
        size = float(np.median([face.box[3] for face in single.values()]))
        clip = clip.scored(face_size=size)
        if size < self.min_face_size:
            return clip.dropped("small face", measured=f"{size:.1%} of the height", wanted=f"at least {self.min_face_size:.0%}")
        if self.faces.recognizes and len(single) > 1:
            same = _least_likeness([self.faces.embed(pictures[index], face) for index, face in single.items()])
            clip = clip.scored(same_person=same)
            if self.min_same is not None and not same > self.min_same:
                return clip.dropped("another person", measured=f"cosine {same:.2f}", wanted=f"above {self.min_same:g}")
        step_s = (end_s - start_s) / count
        return clip.annotated(reference_faces=_references(single, self.num_references, start_s + step_s / 2, step_s))


def _least_likeness(vectors: list[np.ndarray]) -> float:
    units = [vector / max(float(np.linalg.norm(vector)), 1e-9) for vector in vectors]
    return min(float(before @ after) for before, after in zip(units[:-1], units[1:]))


def _references(single: dict[int, Face], count: int, first_s: float, step_s: float) -> list[dict[str, object]]:
    """Of equal parts of the frames with a face, the one that the detector is surest of."""
    indices = list(single)
    parts = np.array_split(np.array(indices), min(count, len(indices))) if count else []
    best = [max(part.tolist(), key=lambda index: (single[index].score, -index)) for part in parts]
    return [{"time_s": round(first_s + index * step_s, 3), "box": list(single[index].box)} for index in best]
