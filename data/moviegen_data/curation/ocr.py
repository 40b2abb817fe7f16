"""Words in pictures, by RapidOCR: a text detector and a text recogniser (PP-OCRv4) that the package carries with it."""

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import UInt8

from moviegen_core.errors import UsageError
from moviegen_data.curation.lazy import Lazy
from moviegen_data.curation.looking import MAX_SIDE
from moviegen_data.curation.optional import optional


@dataclass(frozen=True)
class Word:
    """A word, or several on one line, found in a picture.

    Args:
        text: what it reads.
        detection: how sure the detector is that text is there, 0 to 1: the mean likelihood of text within the box.
        recognition: how sure the recogniser is of the characters, 0 to 1.
        box: left, top, right and bottom, as shares of the picture's width and height.
    """

    text: str
    detection: float
    recognition: float
    box: tuple[float, float, float, float]

    @property
    def score(self) -> float:
        """The product that B.1 compares with its threshold."""
        return self.detection * self.recognition


class WordReader(Lazy):
    """Detects and recognises words; the models are loaded at the first picture.

    The package's own call gives the recogniser's score alone, so its parts are called here one after another: the detector's network and
    its boxes with their scores, the cutting of boxes, and the recogniser. Upside-down lines are not turned.

    Args:
        enlarge: how many times small pictures are enlarged at most, to 960 px on the longer side.
        num_threads: threads of the networks.
    """

    def __init__(self, *, enlarge: float = 1.0, num_threads: int = 1) -> None:
        self.enlarge, self.num_threads = enlarge, num_threads

    def read(self, picture: UInt8[np.ndarray, "h w 3"]) -> list[Word]:
        """The words of a picture in RGB, from top to bottom; none are found that the detector is less than half sure of."""
        engine, image = self._engine, self._enlarged(np.ascontiguousarray(picture[:, :, ::-1]))
        height, width = image.shape[:2]
        image, _ = engine.maybe_add_letterbox(image, {})  # the detector knows no picture flatter than 8 : 1
        above = (image.shape[0] - height) // 2
        found = self._detect(image)
        if not found:
            return []
        read, _ = engine.text_rec(engine.get_crop_img_list(image, [box for box, _ in found]))
        words = []
        for (box, detection), (text, recognition, *_) in zip(found, read, strict=True):
            if text.strip():
                left, top, right, bottom = *box.min(0), *box.max(0)
                shares = (left / width, (top - above) / height, right / width, (bottom - above) / height)
                rounded = tuple(round(min(max(float(share), 0.0), 1.0), 4) for share in shares)
                words.append(Word(text.strip(), float(detection), float(recognition), rounded))
        return sorted(words, key=lambda word: (word.box[1], word.box[0]))

    def _enlarged(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        factor = min(self.enlarge, MAX_SIDE / max(height, width))
        if factor <= 1.0:
            return image
        cv2 = optional("cv2", what="reading words in small pictures")
        return cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_CUBIC)

    def _detect(self, image: np.ndarray) -> list[tuple[np.ndarray, float]]:
        detector, size = self._engine.text_det, image.shape[:2]
        tensor = detector.get_preprocess(max(MAX_SIDE, *size))(image)  # which would reduce what is a little smaller
        if tensor is None:  # smaller than the network's grid
            return []
        boxes, scores = detector.postprocess_op(detector.infer(tensor)[0], size)
        # One by one, for the filter leaves out small boxes and tells not which.
        kept = [(detector.filter_tag_det_res(boxes[index : index + 1], size), score) for index, score in enumerate(scores)]
        return [(box[0], score) for box, score in kept if len(box)]

    @cached_property
    def _engine(self) -> Any:
        library = optional("rapidocr_onnxruntime", what="reading words in pictures")
        cores = os.cpu_count() or 1
        if not 1 <= self.num_threads <= cores:  # the package would take all cores, and say nothing
            raise UsageError(f"num_threads={self.num_threads} was given", f"this machine has {cores} cores", f"give 1 to {cores}")
        # Pictures are read at the size they come in; the package would enlarge small ones without a limit.
        return library.RapidOCR(det_limit_type="max", intra_op_num_threads=self.num_threads, inter_op_num_threads=1)
