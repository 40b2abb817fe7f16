"""Pictures are shown upright, and damaged words about them are no reason to lose them."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from moviegen_data.faults import SampleError
from moviegen_data.image import open_picture

TAGS = {"JPEG": b"Exif\0\0", "PNG": b"eXIf", "WEBP": b"EXIF"}


def _encoded(form: str, orientation: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x829A] = orientation, "words", (1, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, exif=exif)
    return buffer.getvalue()


def _png_with(data: bytes, exif: bytes) -> bytes:
    at = data.index(b"eXIf")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    chunk = b"eXIf" + exif
    return data[: at - 4] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[at + 8 + size :]


@pytest.mark.parametrize("form", TAGS)
@pytest.mark.parametrize("orientation", range(10))
def test_every_way_to_hold_a_camera(form, orientation):
    data = _encoded(form, orientation)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(open_picture(data)), np.asarray(wanted.convert("RGB")))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it cannot read
def test_damaged_words_about_a_picture_lose_nothing():
    data = _encoded("PNG", 6)
    assert open_picture(_png_with(data, b"no words at all")).size == (72, 48), "as it lies"
    for form, tag in TAGS.items():
        whole = _encoded(form, 6)
        begin = whole.index(tag) + len(tag)
        for seed in range(150):
            choose, broken = random.Random(seed), bytearray(whole)
            for _ in range(3):
                broken[begin + choose.randrange(40)] = choose.randrange(256)
            try:
                open_picture(bytes(broken))
            except SampleError:  # WebP's own frame was hit, or PNG's checksum
                assert form != "JPEG"
