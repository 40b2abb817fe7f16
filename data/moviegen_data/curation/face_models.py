"""Finding faces and telling people apart: one small interface, and what is behind it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from moviegen_core.errors import UsageError
from moviegen_data.curation.fingerprints import fingerprint_of
from moviegen_data.curation.lazy import Lazy
from moviegen_data.curation.optional import optional

_SIDE_PX = 640  # what a detector is made with; each picture then sets its own
_SURE = 0.7  # from where on YuNet's faces count; 0.6 to 0.9 are usual
# A tree of the cascade that finds fewest faces where there are none, of those that OpenCV 4 carries.
_CASCADE = "haarcascade_frontalface_alt2.xml"
_LEAST_FACE = 1 / 12  # of the shorter side


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Args:
        box: left, top, width and height, as shares of the picture's width and height.
        score: how sure the detector is, in its own measure.
        raw: what the detector gave, in pixels, for the recogniser.
    """

    box: tuple[float, float, float, float]
    score: float
    raw: np.ndarray


class FaceModel(Lazy, ABC):
    """Finds faces, and where it has a recogniser says how alike two of them are; the base class of your own."""

    recognizes = False

    @abstractmethod
    def find(self, picture: UInt8[np.ndarray, "h w 3"]) -> list[Face]:
        """The faces of a picture in RGB, the largest first."""

    def embed(self, picture: UInt8[np.ndarray, "h w 3"], face: Face) -> Float[np.ndarray, " e"]:
        """Who it is, as a vector; cosines of vectors tell whether it is the same person."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """What the answers depend on besides the arguments, see `Stage.fingerprint`."""
        return ""


class YuNetFaces(FaceModel):
    """OpenCV's YuNet detector, and its SFace recogniser, from ONNX files.

    Args:
        detector_path: `face_detection_yunet_2023mar.onnx` of OpenCV's model zoo, or another version of it.
        recognizer_path: `face_recognition_sface_2021dec.onnx`, or another version of it; nobody is recognised unless given.
        min_score: how sure the detector must be, above 0 and at most 1.

    Raises:
        UsageError: `min_score` is out of its range; on first use: a file is absent or damaged.
    """

    def __init__(self, *, detector_path: str, recognizer_path: str | None = None, min_score: float = _SURE) -> None:
        if not 0.0 < min_score <= 1.0:
            raise UsageError(f"min_score={min_score} was given to YuNetFaces", "it is above 0 and at most 1", "give e.g. 0.7")
        self.detector_path, self.recognizer_path, self.min_score = detector_path, recognizer_path, min_score
        self.recognizes = recognizer_path is not None

    def find(self, picture: UInt8[np.ndarray, "h w 3"]) -> list[Face]:
        """The faces of a picture in RGB, the largest first."""
        height, width = picture.shape[:2]
        detector = self._detector
        detector.setInputSize((width, height))
        _, rows = detector.detect(np.ascontiguousarray(picture[:, :, ::-1]))
        return _largest_first(picture, [(row[:4], float(row[-1]), row) for row in (rows if rows is not None else [])])

    def embed(self, picture: UInt8[np.ndarray, "h w 3"], face: Face) -> Float[np.ndarray, " e"]:
        """Who it is, as a vector."""
        image = np.ascontiguousarray(picture[:, :, ::-1])
        return np.asarray(self._recognizer.feature(self._recognizer.alignCrop(image, face.raw)), np.float32).reshape(-1)

    @cached_property
    def _detector(self) -> Any:
        cv2 = optional("cv2", what="finding faces")
        return _loaded(cv2.FaceDetectorYN.create, self.detector_path, "face detector (YuNet)", "", (_SIDE_PX, _SIDE_PX), self.min_score)

    @cached_property
    def _recognizer(self) -> Any:
        return _loaded(optional("cv2", what="finding faces").FaceRecognizerSF.create, self.recognizer_path, "face recogniser (SFace)", "")

    def fingerprint(self) -> str:
        return fingerprint_of(self.detector_path, self.recognizer_path)


class CascadeFaces(FaceModel):
    """The cascade of frontal faces that OpenCV 4 carries (OpenCV 5 carries none). Needs no file, recognises nobody, and errs more often."""

    def find(self, picture: UInt8[np.ndarray, "h w 3"]) -> list[Face]:
        """The faces of a picture in RGB, the largest first."""
        cv2 = optional("cv2", what="finding faces")
        grey = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
        least = max(20, int(min(grey.shape) * _LEAST_FACE))
        boxes, _, weights = self._cascade.detectMultiScale3(grey, 1.1, 3, 0, (least, least), (0, 0), True)
        return _largest_first(picture, [(box, float(weight), np.asarray(box)) for box, weight in zip(boxes, weights)])

    @cached_property
    def _cascade(self) -> Any:
        cv2 = optional("cv2", what="finding faces")
        path = Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / _CASCADE
        if not hasattr(cv2, "CascadeClassifier") or not path.is_file():
            raise UsageError(
                "faces are to be found without a model's path",
                f"OpenCV {cv2.__version__} carries no cascade of faces",
                "give `faces` as YuNetFaces with the path of face_detection_yunet_2023mar.onnx from OpenCV's model zoo, "
                "or run `pip install 'opencv-python<5'`",
            )
        return cv2.CascadeClassifier(str(path))


def _largest_first(picture: np.ndarray, found: list[tuple[Any, float, np.ndarray]]) -> list[Face]:
    height, width = picture.shape[:2]
    faces = []
    for (left, top, wide, high), score, raw in found:
        shares = (left / width, top / height, wide / width, high / height)
        faces.append(Face(tuple(round(float(share), 4) for share in shares), score, raw))
    return sorted(faces, key=lambda face: (-face.box[2] * face.box[3], face.box))  # threads may find equal ones in any order


def _loaded(create: Any, path: str, what: str, *arguments: Any) -> Any:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"the {what} {path} was given", "there is no such file", "download it from OpenCV's model zoo and give its path")
    try:
        return create(str(file), *arguments)
    except Exception as error:  # OpenCV's own, which is not an ordinary name before it is imported
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"the {what} {path} was given", f"OpenCV cannot read it ({first})", "copy or download it again") from error
