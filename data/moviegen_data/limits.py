"""What a medium may ask of this machine: small files can be packed so that they unfold to more than any memory holds."""

from dataclasses import dataclass, fields

from moviegen_core.errors import UsageError
from moviegen_data.faults import SampleError


@dataclass(frozen=True)
class MediaLimits:
    """The largest media that are decoded; larger ones are bad samples, told by their header wherever that is honest.

    Args:
        max_pixels: pixels of a picture or of a video's frame, as stored and as scaled to cover a batch's window.
        max_side_px: rows or columns of a picture or of a frame.
        max_frames: frames of a video; an hour at 25 frames a second unless given.
        max_sound_s: seconds of a sound track.
        max_bytes: bytes of a file, or of any part of a sample in a shard.

    Raises:
        UsageError: one is below 1.
    """

    max_pixels: int = 100_000_000
    max_side_px: int = 16_384
    max_frames: int = 90_000
    max_sound_s: float = 3600.0
    max_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) >= 1:
                given = f"limits.{field.name}={getattr(self, field.name)} was given"
                raise UsageError(given, "with it nothing could be read", "give a number from 1 on, or leave it out")

    def check_size(self, height: int, width: int, *, what: str = "") -> None:
        """Refuse a picture or frame of too many pixels.

        Raises:
            SampleError: it is.
        """
        if max(height, width) > self.max_side_px:
            raise SampleError("too large", f"{width}x{height} px{what}, at most {self.max_side_px} a side (limits.max_side_px)")
        self.check_scaled(height, width, what=what)

    def check_scaled(self, height: int, width: int, *, what: str = " once it covers the window") -> None:
        """Refuse what scaling would make of a long and thin picture.

        Raises:
            SampleError: it is too large.
        """
        if height * width > self.max_pixels:
            raise SampleError("too large", f"{width}x{height} px{what}, at most {self.max_pixels} in all (limits.max_pixels)")

    def check_frames(self, num_frames: float) -> None:
        """Refuse a video of too many frames.

        Raises:
            SampleError: it is.
        """
        if num_frames > self.max_frames:
            raise SampleError("too many frames", f"{num_frames:.0f} or more, at most {self.max_frames} (limits.max_frames)")

    def check_sound(self, duration_s: float) -> None:
        """Refuse a sound that is too long.

        Raises:
            SampleError: it is.
        """
        if duration_s > self.max_sound_s + 1e-6:
            raise SampleError("too long", f"{duration_s:.0f} s of sound or more, at most {self.max_sound_s:g} (limits.max_sound_s)")

    def check_bytes(self, num_bytes: int, *, what: str) -> None:
        """Refuse a file, or a part of a sample, of too many bytes.

        Raises:
            SampleError: it is.
        """
        if num_bytes > self.max_bytes:
            raise SampleError("too large", f"{what} of {num_bytes} bytes, at most {self.max_bytes} (limits.max_bytes)")
