"""Decoding pictures: orientation honoured, any mode brought to RGB, resized and cropped to a bucket."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Shaped
from PIL import ExifTags, Image
from torch import Tensor

from moviegen_data.faults import SampleError
from moviegen_data.limits import MediaLimits
from moviegen_data.media_files import fault
from moviegen_data.transforms import cover, write_pixels

EXTENSIONS = ("png", "jpg", "jpeg", "webp")
# By content; others Pillow would read through programs it starts. MPO is read as JPEG, and has no reader under its own name.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOWS_LIMIT = threading.Lock()


def open_picture(data: bytes, limits: MediaLimits | None = None) -> Image.Image:
    """Decode a picture to RGB as a viewer shows it; transparency is laid on white.

    Raises:
        SampleError: the bytes are no picture, or one too large to be meant seriously.
    """
    try:
        return _shown(data, limits or MediaLimits())
    except SampleError:
        raise
    except Exception as error:  # Pillow's codecs raise whatever their formats make them raise
        raise fault(data, "cannot be opened", error) from error


def _shown(data: bytes, limits: MediaLimits) -> Image.Image:
    with _only_our_limits():
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
        limits.check_size(picture.height, picture.width)
    picture.load()
    picture = _upright(picture)
    if picture.mode.startswith(("I", "F")):
        # 16-bit greys: PIL would clip, not scale
        values = np.asarray(picture, dtype=np.float32)
        picture = Image.fromarray((values / max(float(values.max()), 255.0) * 255.0).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def _upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its camera says; as it lies where that cannot be read, which is what viewers do."""
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # noqa: BLE001 - damaged EXIF makes Pillow raise whatever its bytes lead to
        return picture
    return picture if turn is None else picture.transpose(turn)


@contextmanager
def _only_our_limits() -> Iterator[None]:
    """Pillow has one limit for the whole process, told by the same header; ours holds alone while a header is read."""
    with _PILLOWS_LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def decode_picture(data: bytes, out: Shaped[Tensor, "3 1 h w"], limits: MediaLimits | None = None) -> None:
    """Fill `out` with the picture, scaled to cover it and cropped to its middle."""
    picture = open_picture(data, limits)
    placement = cover(picture.height, picture.width, *out.shape[2:])
    (limits or MediaLimits()).check_scaled(placement.scaled_height, placement.scaled_width)
    picture = picture.resize((placement.scaled_width, placement.scaled_height), Image.Resampling.BICUBIC)
    picture = picture.crop((placement.left, placement.top, placement.left + placement.width, placement.top + placement.height))
    write_pixels(list(np.asarray(picture).transpose(2, 0, 1)), out[:, 0])
