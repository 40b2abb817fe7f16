"""Small files that unfold to more than they look like."""

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest


def blank_png(height, width):
    """A black png: 400 megapixels are some hundred kilobytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    count, block = height * (1 + width), 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    whole = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)  # such blocks can follow each other
    rest = packer.compress(bytes(count % block)) + packer.flush()
    rows = b"\x78\x9c" + whole * (count // block) + rest + struct.pack(">HH", count % 65521, 1)  # Adler-32 of zeros
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="session")
def large_picture():
    return blank_png(20_000, 20_000)


@pytest.fixture(scope="session")
def long_video(media_maker):
    """100,000 frames of as few pixels as the codec takes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=1000)
        stream.height, stream.width, stream.pix_fmt = 1, 1, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((2, 2, 3), np.uint8), format="rgb24").reformat(width=1, height=1, format="yuv420p")
        for number in range(2):
            frame.pts, frame.time_base = number, Fraction(1, 1000)
            packets = stream.encode(frame)
            file.mux(packets)
        template = bytes(packets[0])
        for number in range(2, 100_000):
            packet = av.Packet(template)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 1000)
            file.mux(packet)
    return buffer.getvalue()


@pytest.fixture
def bombs(tmp_path, large_picture, long_video, media_maker):
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "large.png").write_bytes(large_picture)
    (folder / "long.mp4").write_bytes(long_video)
    (folder / "good.mp4").write_bytes(media_maker.encode_clip(media_maker.grey_steps(8), fps=8))
    return folder
