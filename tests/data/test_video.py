"""Decoding shows what a player shows: the right frames, at the right time, the right way up."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from moviegen_data.faults import SampleError
from moviegen_data.image import decode_picture, open_picture
from moviegen_data.transforms import cover
from moviegen_data.video import VideoDecoder


@pytest.fixture(scope="module")
def decoder():
    return VideoDecoder()


def _decode(decoder, data, num_frames, *, height=32, width=32, **settings):
    out = torch.full((3, num_frames, height, width), torch.nan)
    span = decoder.decode(data, out, **settings)
    assert out.isfinite().all()
    return out, span


def test_native_rate_gives_every_frame(decoder, media_maker):
    out, span = _decode(decoder, media_maker.encode_clip(media_maker.grey_steps(20), fps=8), 20)
    assert media_maker.numbers_of(out) == list(range(20)) and span.fps == 8.0


@pytest.mark.parametrize(("fps", "expected"), [(4, [0, 2, 4, 6, 8, 10]), (16, [0, 0, 1, 1, 2, 2]), (6, [0, 1, 2, 4, 5, 6])])
def test_wanted_rate_picks_the_frame_on_the_screen(decoder, media_maker, fps, expected):
    out, _ = _decode(decoder, media_maker.encode_clip(media_maker.grey_steps(20), fps=8), 6, fps=fps)
    assert media_maker.numbers_of(out) == expected


@pytest.mark.parametrize("position", [0.0, 0.3, 0.5, 1.0])
def test_position_seeks_exactly(decoder, media_maker, position):
    data = media_maker.encode_clip(media_maker.grey_steps(24), fps=8, keyframe_every=10)
    out, span = _decode(decoder, data, 8, fps=8, position=position)
    first = int(span.start_s * 8 + 0.1)
    assert media_maker.numbers_of(out) == list(range(first, first + 8))
    assert span.start_s == pytest.approx(position * 2.0, abs=1e-6)


def test_variable_rate_follows_the_timestamps(decoder, media_maker):
    times = [0.0, 0.1, 0.2, 0.3, 1.0, 1.1, 1.2, 1.3]
    out, _ = _decode(decoder, media_maker.encode_clip(media_maker.grey_steps(8), times=times, fps=10), 14, fps=10)
    assert media_maker.numbers_of(out) == [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5, 6, 7]


def test_too_short_is_told(decoder, media_maker):
    with pytest.raises(SampleError, match="too short: 1 of 4 frames at 8 fps"):
        _decode(decoder, media_maker.encode_clip(media_maker.grey_steps(1), fps=8), 4)
    out, _ = _decode(decoder, media_maker.encode_clip(media_maker.grey_steps(1), fps=8), 1)
    assert media_maker.numbers_of(out) == [0]


def test_rotation_follows_the_display_matrix(decoder, media_maker):
    corner = np.full((1, 32, 64, 3), 30, np.uint8)
    corner[:, :16, :16] = 230
    for rotation in (90, 180, 270):
        data = media_maker.encode_clip(corner, rotation=rotation)
        info = decoder.probe(data)
        turned = rotation in (90, 270)
        assert (info.height, info.width) == ((64, 32) if turned else (32, 64))
        out, _ = _decode(decoder, data, 1, height=info.height, width=info.width)
        bright = (out[0, 0] > 0.5).nonzero().float().mean(0)
        assert _where_the_matrix_sends(data, (7.5, 7.5), info) == pytest.approx(bright.tolist(), abs=1.5)


def _where_the_matrix_sends(data, point, info):
    """Apply the file's own 3 x 3 matrix to a (column, row), then move the picture back into view; returns (row, column)."""
    import io

    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
        matrix = struct.unpack("<9i", bytes(frame.side_data.get("DISPLAYMATRIX")))
    a, b, _, c, d, _, _, _, _ = (value / 65536 for value in matrix)
    corners = [(a * x + c * y, b * x + d * y) for x in (0, frame.width) for y in (0, frame.height)]
    x, y = a * point[0] + c * point[1], b * point[0] + d * point[1]
    return [y - min(corner[1] for corner in corners), x - min(corner[0] for corner in corners)]


def test_ten_bits_do_not_wrap(decoder, media_maker):
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, None, :, None], (2, 32, 1, 3))
    data = media_maker.encode_clip(ramp, pixel_format="yuv420p10le")
    assert decoder.probe(data).pixel_format == "yuv420p10le"
    out, _ = _decode(decoder, data, 2, height=32, width=64)
    assert (out[:, 0].mean((0, 1)) - torch.linspace(-1, 1, 64)).abs().max() < 0.05


def test_odd_sizes_and_other_shapes_are_covered(decoder, media_maker):
    frames = media_maker.grey_steps(3, height=35, width=53)
    out, _ = _decode(decoder, media_maker.encode_clip(frames, pixel_format="yuv444p"), 3, height=24, width=40)
    assert media_maker.numbers_of(out) == [0, 1, 2]


def test_pixel_aspect_is_honoured(decoder, media_maker):
    info = decoder.probe(media_maker.encode_clip(media_maker.grey_steps(2), aspect=Fraction(2, 1)))
    assert (info.height, info.width) == (32, 64)


def test_colours_against_pyav(decoder, media_maker):
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    data = media_maker.encode_clip(frames, pixel_format="yuv444p")
    out, _ = _decode(decoder, data, 4, height=64, width=64)
    expected = torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1
    assert (out - expected).abs().mean() < 0.02


def test_full_range_is_not_stretched(decoder, media_maker):
    frames = np.full((2, 32, 32, 3), 200, np.uint8)
    out, _ = _decode(decoder, media_maker.encode_clip(frames, pixel_format="yuvj420p", codec="mjpeg", container="avi"), 2)
    assert (out.mean() + 1) * 127.5 == pytest.approx(200, abs=2)


@pytest.mark.parametrize("broken", ["zero bytes", "text", "truncated"])
def test_broken_files_have_a_cause(decoder, media_maker, broken):
    whole = media_maker.encode_clip(media_maker.grey_steps(8))
    data = {"zero bytes": b"", "text": b"just words\n" * 40, "truncated": whole[: len(whole) // 2]}[broken]
    for action in (decoder.probe, decoder.count, lambda data: _decode(decoder, data, 1)):
        with pytest.raises(SampleError) as caught:
            action(data)
        assert caught.value.cause == "cannot be opened"


def test_count_measures(decoder, media_maker):
    frames, duration_s = decoder.count(media_maker.encode_clip(media_maker.grey_steps(12), fps=8))
    assert frames == 12 and duration_s == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize(
    ("size", "wanted", "scaled", "corner"),
    [((100, 200), (50, 50), (50, 100), (0, 25)), ((200, 100), (50, 50), (100, 50), (25, 0)), ((30, 30), (60, 90), (90, 90), (15, 0))],
)
def test_cover(size, wanted, scaled, corner):
    placement = cover(*size, *wanted)
    assert (placement.scaled_height, placement.scaled_width) == scaled
    assert (placement.top, placement.left) == corner


def test_pictures_of_all_modes(media_maker):
    import io

    from PIL import Image

    def encoded(picture, **settings):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", **settings)
        return buffer.getvalue()

    assert open_picture(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(encoded(Image.new("P", (4, 4)))).mode == "RGB"
    deep = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    assert open_picture(encoded(deep)).getpixel((0, 0))[0] > 100
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_picture(encoded(Image.new("RGB", (8, 4)), exif=exif)).size == (4, 8)
    out = torch.full((3, 1, 16, 16), torch.nan)
    decode_picture(media_maker.picture_bytes(), out)
    assert out[2].mean() == pytest.approx(200 / 127.5 - 1, abs=1e-3)
    with pytest.raises(SampleError, match="cannot be opened"):
        open_picture(b"no picture")


def test_damaged_files_are_bad_samples_or_clips(media_maker):
    """Damage in headers and indices: an unknown codec, a place that cannot be sought, an end that is gone."""
    decoder = VideoDecoder()
    for container in ("matroska", "mp4"):
        clean = media_maker.encode_clip(media_maker.grey_steps(16), container=container)
        for seed in range(150):
            rng = np.random.default_rng(seed)
            data = bytearray(clean[: int(rng.integers(1, len(clean)))] if seed % 5 == 0 else clean)
            for place in rng.integers(0, min(len(data), (200, 1000, len(data))[seed % 3]), size=rng.integers(1, 20)):
                data[place] = rng.integers(256)
            out = torch.full((3, 4, 16, 16), 2.0)
            try:
                decoder.decode(bytes(data), out, fps=8.0, position=0.5)
            except SampleError:
                continue
            assert out.isfinite().all() and out.abs().max() <= 1.0
