"""The medium of clips, opened for all stages of a worker: what one of them decoded, the next need not decode again."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from moviegen_data.audio import EXTENSIONS as SOUNDS
from moviegen_data.audio import AudioDecoder, AudioInfo
from moviegen_data.faults import SampleError
from moviegen_data.image import EXTENSIONS as IMAGES
from moviegen_data.image import open_picture
from moviegen_data.media_files import read_file
from moviegen_data.stills import read_stills
from moviegen_data.video import VideoDecoder, VideoInfo

if TYPE_CHECKING:
    from moviegen_data.curation.measures import Measures

_HELD_BYTES = 256 << 20


class Media:
    """A file that clips are stretches of: a video, a picture or a sound. What is asked for twice is decoded once.

    Pictures are shared by all who ask alike, and so cannot be written to; of them 256 MB are held at most.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._stills: dict[tuple[tuple[float, ...], int | None], np.ndarray] = {}

    @property
    def kind(self) -> str:
        """`video`, `picture` or `sound`, by the name's ending."""
        extension = self.path.suffix.lower()[1:]
        return "picture" if extension in IMAGES else "sound" if extension in SOUNDS else "video"

    @cached_property
    def info(self) -> VideoInfo:
        """What the header and the first frame say.

        Raises:
            SampleError: it cannot be opened, or has no video.
        """
        return VideoDecoder().probe(self.path)

    @cached_property
    def extent(self) -> tuple[int, float]:
        """Frames and seconds, counted by decoding to the end.

        Raises:
            SampleError: it cannot be decoded to its end.
        """
        return VideoDecoder().count(self.path)

    @cached_property
    def measures(self) -> "Measures":
        """What is measured frame by frame: change, motion, motion vectors; one pass for all stages.

        Raises:
            SampleError: it cannot be decoded to its end.
        """
        from moviegen_data.curation.measures import measure

        return measure(self.path)

    @cached_property
    def audio_info(self) -> AudioInfo:
        """What the header says about the sound.

        Raises:
            SampleError: there is none.
        """
        return AudioDecoder().probe(self.path)

    @cached_property
    def sound_s(self) -> float:
        """Seconds of the sound, by its header or else by decoding it.

        Raises:
            SampleError: there is none, or it cannot be decoded.
        """
        if self.audio_info.duration_s is not None:
            return self.audio_info.duration_s
        sound, hz = self.sound()
        return sound.shape[1] / hz

    def stills(self, start_s: float, end_s: float, *, count: int = 1, max_side: int | None = None) -> UInt8[np.ndarray, "n h w 3"]:
        """Pictures in RGB, upright, from the middles of `count` equal parts of a stretch; a picture gives itself.

        Args:
            start_s: where the stretch begins, in seconds.
            end_s: where it ends.
            count: pictures wanted.
            max_side: pixels of the longer side at most; the file's own size unless given.

        Raises:
            SampleError: they cannot be decoded.
        """
        times = tuple(start_s + (end_s - start_s) * (number + 0.5) / count for number in range(count))
        name = (times if self.kind == "video" else (), max_side)
        pictures = self._stills.pop(name, None)
        if pictures is None:
            pictures = self._read(times, max_side)
            pictures.flags.writeable = False  # whoever asks next is given the same ones
        self._stills[name] = pictures
        while len(self._stills) > 1 and sum(held.nbytes for held in self._stills.values()) > _HELD_BYTES:
            del self._stills[next(iter(self._stills))]  # what was asked for longest ago
        return pictures

    def sound(
        self, start_s: float = 0.0, end_s: float | None = None, *, audio_hz: int | None = None, channels: int | None = None
    ) -> tuple[Float[Tensor, "a s"], int]:
        """A stretch of the sound in [-1, 1], and its samples per second.

        Args:
            start_s: where the stretch begins, in seconds.
            end_s: where it ends; the sound's end unless given.
            audio_hz: samples per second wanted; the file's own unless given.
            channels: 1 for mono, 2 for stereo; the file's own unless given.

        Raises:
            SampleError: there is no sound, or none that can be decoded.
        """
        span = None if end_s is None else end_s - start_s
        sound = AudioDecoder(audio_hz=audio_hz, channels=channels).decode(self.path, start_s=start_s, duration_s=span)
        return sound.audio[:, : round(sound.valid_s * sound.audio_hz)], sound.audio_hz

    def _read(self, times: tuple[float, ...], max_side: int | None) -> np.ndarray:
        if self.kind == "picture":
            picture = open_picture(read_file(self.path))
            if max_side is not None:
                picture.thumbnail((max_side, max_side))
            return np.asarray(picture)[None]
        if self.kind == "sound":
            raise SampleError("no video stream", "it is a sound")
        return read_stills(self.path, times, max_side=max_side)
