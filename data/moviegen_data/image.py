"""Decoding pictures: orientation honoured, any mode brought to RGB, resized and cropped to a bucket."""

import io
import warnings

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from moviegen_data.faults import SampleError
from moviegen_data.transforms import cover, write_pixels

EXTENSIONS = ("png", "jpg", "jpeg", "webp")


def open_picture(data: bytes) -> Image.Image:
    """Decode a picture to RGB as a viewer shows it; transparency is laid on white.

    Raises:
        SampleError: the bytes are no picture, or one too large to be meant seriously.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SampleError("too large", str(error)) from error
    except Exception as error:  # Pillow's codecs raise whatever their formats make them raise
        raise SampleError("cannot be opened", f"{type(error).__name__}: {error}") from error
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        # 16-bit greys: PIL would clip, not scale
        values = np.asarray(picture, dtype=np.float32)
        picture = Image.fromarray((values / max(float(values.max()), 255.0) * 255.0).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def decode_picture(data: bytes, out: Float[Tensor, "3 1 h w"]) -> None:
    """Fill `out` with the picture, scaled to cover it and cropped to its middle."""
    picture = open_picture(data)
    placement = cover(picture.height, picture.width, *out.shape[2:])
    picture = picture.resize((placement.scaled_width, placement.scaled_height), Image.Resampling.BICUBIC)
    picture = picture.crop((placement.left, placement.top, placement.left + placement.width, placement.top + placement.height))
    pixels = torch.from_numpy(np.array(picture))
    write_pixels(list(pixels.permute(2, 0, 1)), out[:, 0])
