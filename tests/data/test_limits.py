"""Files that unfold to more than they look like, and limits that can be set."""

import io
import struct

import numpy as np
import pytest
import torch
from bombs import blank_png
from PIL import Image

from moviegen_data.audio import AudioDecoder
from moviegen_data.audio_data import AudioData
from moviegen_data.datamodule import ShardData
from moviegen_data.faults import SampleError, SourceError
from moviegen_data.image import decode_picture, open_picture
from moviegen_data.inspect import inspect
from moviegen_data.limits import MediaLimits
from moviegen_data.pack import pack
from moviegen_data.reader import ShardReader
from moviegen_data.shards import ShardWriter
from moviegen_data.video import VideoDecoder


def test_bombs_are_refused_by_every_door(bombs, tmp_path, capsys):
    report = pack(str(bombs), str(tmp_path / "packed"))
    assert {skip.key: skip.cause for skip in report.skipped.skips.values()} == {"large.png": "too large", "long.mp4": "too many frames"}
    told = capsys.readouterr().out
    assert "too large" in told and "too many frames" in told
    with ShardWriter(tmp_path / "shards") as writer:  # as another program may have packed them
        for path in sorted(bombs.iterdir()):
            writer.write(path.stem, {"json": {"caption": "x"}, path.suffix[1:]: path.read_bytes()})
    expected = {"large": "too large", "long": "too many frames"}
    answer = inspect(str(tmp_path / "shards"))
    assert {bad["key"]: bad["cause"] for bad in answer["bad"]} == expected
    for settings in ({"num_frames": 1, "height": 8, "width": 8}, {"buckets": paper_like()}):
        data = ShardData(urls=str(tmp_path / "shards"), batch_size=1, **settings)
        assert {key for batch in data.train_dataloader() for key in batch.keys} == {"good"}
        assert {skip.key: skip.cause for skip in data.skipped.skips.values()} == expected
    with pytest.raises(ValueError, match="none of 1 training sample brings it"):
        AudioData(urls=str(tmp_path / "shards"), video=True, missing_audio="silence", durations=[20.0]).train_dataloader()


def paper_like():
    from moviegen_data.buckets import Bucket

    return [Bucket(num_frames=1, height=8, width=8), Bucket(num_frames=1, height=8, width=16)]


def test_limits_can_be_raised_and_lowered(large_picture, long_video, media_maker):
    small = media_maker.picture_bytes(height=24, width=32)
    assert open_picture(small, MediaLimits(max_pixels=24 * 32)).size == (32, 24)
    assert open_picture(blank_png(3000, 1000)).size == (1000, 3000)  # what makes the large one is a whole png
    with pytest.raises(SampleError, match=r"too large: 32x24 px, at most 767 in all \(limits.max_pixels\)"):
        open_picture(small, MediaLimits(max_pixels=24 * 32 - 1))
    with pytest.raises(SampleError, match="at most 31 a side"):
        open_picture(small, MediaLimits(max_side_px=31))
    with pytest.raises(SampleError, match=r"20000x20000 px, at most 16384 a side \(limits.max_side_px\)"):
        open_picture(large_picture)
    with pytest.raises(SampleError, match="20000x20000 px, at most 100000000 in all"):
        open_picture(large_picture, MediaLimits(max_side_px=20_000))
    assert VideoDecoder(limits=MediaLimits(max_frames=200_000)).probe(long_video).num_frames == 100_000
    clip = media_maker.encode_clip(media_maker.grey_steps(8), fps=8)
    assert VideoDecoder(limits=MediaLimits(max_frames=8)).count(clip)[0] == 8
    for decoder in (VideoDecoder(limits=MediaLimits(max_frames=7)), VideoDecoder(limits=MediaLimits(max_side_px=16))):
        for name, further in (("probe", ()), ("count", ()), ("decode", (torch.empty(3, 2, 8, 8),))):
            with pytest.raises(SampleError, match="too (many frames|large)"):
                getattr(decoder, name)(clip, *further)


def test_frames_that_no_header_counts_are_counted(media_maker):
    clip = media_maker.encode_clip(media_maker.grey_steps(20), fps=8, container="matroska")
    assert VideoDecoder().probe(clip).num_frames is None
    with pytest.raises(SampleError, match="too many frames: 15 or more, at most 14"):
        VideoDecoder(limits=MediaLimits(max_frames=14)).count(clip)


def test_scaling_a_thin_picture_takes_no_more_than_a_large_one():
    thin = blank_png(16_000, 1)
    with pytest.raises(SampleError, match="too large: 256x4096000 px once it covers the window"):
        decode_picture(thin, torch.empty(3, 1, 256, 256))


def test_pillows_own_limit_is_left_as_it_was(large_picture):
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(SampleError):
        open_picture(large_picture)
    assert before == Image.MAX_IMAGE_PIXELS > 0


@pytest.mark.parametrize(("form", "place", "layout"), [("gif", 6, "<HH"), ("bmp", 18, "<ii")])
def test_headers_of_small_pictures_that_claim_much(form, place, layout):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    content = bytearray(buffer.getvalue())
    struct.pack_into(layout, content, place, 16_000, 16_000)
    with pytest.raises(SampleError, match="too large: 16000x16000 px, at most 100000000 in all"):
        open_picture(bytes(content))


@pytest.mark.parametrize("kind", ["json", "txt"])
def test_texts_of_too_many_bytes_are_not_read(tmp_path, monkeypatch, kind):
    with ShardWriter(tmp_path) as writer:
        writer.write("large", {kind: b"[" + b"[]," * (1 << 23) + b"0]"})
    sample = ShardReader(str(tmp_path))[0]
    monkeypatch.setattr("os.pread", lambda *arguments: pytest.fail("it was read"))
    with pytest.raises(SampleError, match=rf"too large: {kind} of 25\d+ bytes, at most 16777216"):
        _ = sample.metadata


def test_long_sounds(media_maker):
    sound = media_maker.encode_sound(np.zeros((1, 24000), np.float32), 8000)
    assert AudioDecoder(limits=MediaLimits(max_sound_s=3)).decode(sound).valid_s == 3.0
    decoder = AudioDecoder(limits=MediaLimits(max_sound_s=2))
    for action in (decoder.probe, decoder.decode):
        with pytest.raises(SampleError, match=r"too long: \d s of sound or more, at most 2"):
            action(sound)


def test_parts_of_too_many_bytes_are_not_read(tmp_path, make_shards, monkeypatch):
    folder = make_shards(num_samples=2, num_frames=1, kind="png")
    sample = ShardReader(str(folder), limits=MediaLimits(max_bytes=50))[0]
    monkeypatch.setattr("os.pread", lambda *arguments: pytest.fail("it was read"))
    for part in ("png", "json"):
        with pytest.raises(SampleError, match=rf"too large: {part} of \d+ bytes, at most 50 \(limits.max_bytes\)"):
            _ = sample[part]
    monkeypatch.undo()
    with pytest.raises(SourceError, match="x too large"):
        list(ShardData(urls=str(folder), num_frames=1, height=8, width=8, limits=MediaLimits(max_bytes=50)).train_dataloader())
    (tmp_path / "media").mkdir()
    (tmp_path / "media/a.png").write_bytes(b"0" * 51)
    with pytest.raises(ValueError, match="too large: a.png"):
        pack(str(tmp_path / "media"), str(tmp_path / "out"), limits=MediaLimits(max_bytes=50))


@pytest.mark.parametrize("name", ["max_pixels", "max_side_px", "max_frames", "max_sound_s", "max_bytes"])
def test_limits_that_let_nothing_through(name):
    with pytest.raises(ValueError, match=rf"limits.{name}=0 was given; with it nothing could be read"):
        MediaLimits(**{name: 0})
