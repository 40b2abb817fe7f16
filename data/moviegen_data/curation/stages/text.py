"""Clips with text in them (3.2.1, B.1): titles, subtitles, signs, watermarks."""

from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import looks
from moviegen_data.curation.media import Media
from moviegen_data.curation.ocr import Word, WordReader
from moviegen_data.curation.stage import ClipStage

_THUMBNAIL, _BLOCKS = 128, 8  # pixels, and blocks, of both sides by which changes are seen
_STILL = 2.0  # levels of 256 by which a clip changes in every step at least, so that still ones are sampled evenly
_NEW = 16.0  # levels of change from which on a picture is a new one; more of them make no more words
_EDGE = 24  # levels between neighbours from which on these are an edge, as letters have
_MOST_WORDS = 32


class NoText(ClipStage):
    """Drops clips in which a word can be read.

    Frames are sampled adaptively. The paper does not tell how; here a clip is looked at twice a second (at most 48 times), and divided
    into parts in which the picture changes equally often. Of each part the frame with the most edges is read, which titles have and black
    or blurred frames have not. A still clip is so sampled evenly, and a clip with a title that comes and goes, or with cuts, is sampled
    more densely there; the first of several equal frames only is read.

    A word's score is the detector's score times the recogniser's. Score `text`: the highest of all words in all frames, 0 without any.
    Words that are too short do not count: wheels and windows are often taken for a single letter.
    Annotation `words`: for the best 32 their `text`, `detection`, `recognition`, `box` (left, top, right, bottom as shares) and `time_s`.

    Args:
        max_score: a clip is dropped where a word has this score or more (Table 39: 0.6).
        frames_per_s: frames that are read for each second of the clip, above 0.
        max_frames: frames that are read at most.
        enlarge: how many times small pictures are enlarged at most, to 960 px on the longer side, to which large ones are reduced. The
            detector overlooks small words and is less sure of those it finds; a picture costs as many times more as it has more pixels. 1
            reads small ones as they are.
        min_characters: letters and digits of the shortest word that counts.
        num_threads: threads of the networks.

    Raises:
        UsageError: a number is out of range.
    """

    def __init__(
        self,
        *,
        max_score: float = 0.6,
        frames_per_s: float = 0.5,
        max_frames: int = 16,
        enlarge: float = 3.0,
        min_characters: int = 2,
        num_threads: int = 1,
    ) -> None:
        require_at_least(1, max_frames=max_frames, min_characters=min_characters, num_threads=num_threads)
        if not 0.0 < max_score <= 1.0 or not 0.0 < frames_per_s < float("inf"):
            given = f"max_score={max_score} and frames_per_s={frames_per_s} were given"
            raise UsageError(given, "a score is above 0 and at most 1, a rate above 0", "give e.g. 0.6 and 0.5")
        require_at_least(1.0, enlarge=enlarge)
        self.max_score, self.frames_per_s, self.max_frames = max_score, frames_per_s, max_frames
        self.enlarge, self.min_characters, self.num_threads = enlarge, min_characters, num_threads

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Read the frames of a clip."""
        pictures, times = looks(clip, media)
        length_s = len(times) * (times[1] - times[0]) if len(times) > 1 else 0.0
        wanted = min(self.max_frames, max(2, round(self.frames_per_s * length_s)))
        words = [(word, times[index]) for index in adaptive(pictures, wanted) for word in self._reader.read(pictures[index])]
        words = [found for found in words if sum(map(str.isalnum, found[0].text)) >= self.min_characters]
        words = sorted(words, key=lambda found: (-found[0].score, found[1]))
        score = words[0][0].score if words else 0.0
        clip = clip.scored(text=score).annotated(words=[_record(word, time_s) for word, time_s in words[:_MOST_WORDS]])
        if score < self.max_score:
            return clip
        return clip.dropped("text", measured=f"{words[0][0].text[:40]!r} with {score:.2f}", wanted=f"scores below {self.max_score:g}")

    @cached_property
    def _reader(self) -> WordReader:
        return WordReader(enlarge=self.enlarge, num_threads=self.num_threads)


def adaptive(pictures: UInt8[np.ndarray, "n h w 3"], count: int) -> list[int]:
    """Which of evenly spaced pictures to read: of each of `count` parts that change equally often, the one with the most edges.

    Args:
        pictures: looks at a clip.
        count: pictures wanted; fewer are given where the same one would be read twice.
    """
    changes = _changes(pictures)
    if count >= len(pictures):
        chosen = list(range(len(pictures)))
    else:
        way = np.cumsum(np.minimum(changes, _NEW) + _STILL)
        places = way / way[-1] * count
        parts, distances, edges = np.ceil(places), np.abs(places % 1.0 - 0.5), _edges(pictures)
        order = np.lexsort((distances, -edges, parts))  # where pictures have equal edges, the one in the middle
        chosen = [int(index) for index in order[np.unique(parts[order], return_index=True)[1]]]
    return [index for place, index in enumerate(chosen) if not place or changes[chosen[place - 1] + 1 : index + 1].any()]


def _edges(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, " n"]:
    """Share of each picture's pixels that differ much from their left neighbour."""
    differences = [np.abs(np.diff(picture[:, :, 1].astype(np.int16), axis=1)) for picture in pictures]
    return np.array([(difference > _EDGE).mean() if difference.size else 0.0 for difference in differences])


def _changes(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, " n"]:
    """How much each picture differs from the one before, in the block that differs most, in levels of 256; 0 of equal ones only."""
    rows, columns = (np.linspace(0, size - 1, min(size, _THUMBNAIL)).astype(int) for size in pictures.shape[1:3])
    small = pictures[:, rows][:, :, columns].astype(np.float32).mean(3)
    differences = np.abs(np.diff(small, axis=0))
    blocks = [
        part.mean((1, 2)) for band in np.array_split(differences, _BLOCKS, 1) for part in np.array_split(band, _BLOCKS, 2) if part.size
    ]
    changes = np.max(blocks, axis=0) if blocks else np.zeros(0)
    same = [np.array_equal(before, after) for before, after in zip(pictures[:-1], pictures[1:])]
    return np.concatenate([[0.0], np.where(same, 0.0, np.maximum(changes, 1e-6))])


def _record(word: Word, time_s: float) -> dict[str, object]:
    scores = {"detection": round(word.detection, 4), "recognition": round(word.recognition, 4)}
    return {"text": word.text, **scores, "box": list(word.box), "time_s": round(time_s, 3)}
