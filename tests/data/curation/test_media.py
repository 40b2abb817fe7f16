"""A medium that stages share: decoded once for who asks alike, and where a clip lies in it."""

import numpy as np
import pytest
import torch
from PIL import Image

from moviegen_core.media.sound import wav_bytes
from moviegen_data.curation import Clip, Media, media
from moviegen_data.curation.looking import look, looks, stretch
from moviegen_data.faults import SampleError


@pytest.fixture
def decodings(monkeypatch):
    """Times of each decoding."""
    times = []
    original = media.read_stills
    monkeypatch.setattr(media, "read_stills", lambda path, some, **settings: times.append(some) or original(path, some, **settings))
    return times


def test_what_several_clips_of_a_medium_share_is_decoded_once(make_film, tmp_path, decodings):
    film = Media(make_film(tmp_path / "a.mp4", num_frames=16))
    spans = [(0.0, 1.0), (1.0, 2.0)]
    first = [film.stills(*span, count=2, max_side=32) for span in spans]
    again = [film.stills(*span, count=2, max_side=32) for span in spans]  # the next stage, clip by clip
    assert len(decodings) == 2 and all(one is other for one, other in zip(first, again, strict=True))
    film.stills(0.0, 1.0, count=2)
    assert len(decodings) == 3  # of another size


def test_pictures_cannot_be_changed_for_the_next_stage(make_film, tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    for path in (make_film(tmp_path / "a.mp4"), tmp_path / "a.png"):
        with pytest.raises(ValueError, match="read-only"):
            Media(path).stills(0.0, 1.0)[:] = 0


def test_held_pictures_are_bounded(make_film, tmp_path, decodings, monkeypatch):
    film = Media(make_film(tmp_path / "a.mp4", height=48, width=64))
    size = film.stills(0.0, 1.0).nbytes
    monkeypatch.setattr(media, "_HELD_BYTES", 2 * size)
    for end_s in (0.2, 0.4, 0.6, 0.4, 0.2):
        film.stills(0.0, end_s)
    assert len(decodings) == 1 + 3 + 1  # 0.4 s was held, 0.2 s had been let go
    assert film.stills(0.0, 1.4, count=5).shape[0] == 5  # more than may be held is given all the same


def test_a_picture_is_read_once_however_many_are_wanted(tmp_path, monkeypatch):
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    picture, read = Media(tmp_path / "a.png"), []
    original = media.open_picture
    monkeypatch.setattr(media, "open_picture", lambda data: read.append(1) or original(data))
    assert picture.stills(0.0, 0.0, count=4, max_side=16).shape == picture.stills(0.0, 0.0, max_side=16).shape == (1, 8, 16, 3)
    assert len(read) == 1


def test_stretches_of_all_kinds_of_media(make_film, tmp_path):
    film = Media(make_film(tmp_path / "a.mp4", num_frames=12, fps=8.0))
    (tmp_path / "a.wav").write_bytes(wav_bytes(torch.zeros(1, 24000), 16000))
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg")
    sound, picture = Media(tmp_path / "a.wav"), Media(tmp_path / "a.jpg")
    clip = Clip("a", "a")
    assert stretch(clip, film) == pytest.approx((0.0, 1.5)) and stretch(clip, sound) == pytest.approx((0.0, 1.5))
    assert stretch(clip, picture) == (0.0, 0.0) == stretch(clip.part(0, 3.0, 4.0), picture)
    assert stretch(clip.described(duration_s=1.2), film) == (0.0, 1.2)
    assert stretch(clip.part(0, 0.5, 1.0), sound) == (0.5, 1.0)
    for start_s, end_s in ((1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (0.0, float("nan")), (5.0, None)):
        with pytest.raises(SampleError, match="no such stretch"):
            stretch(Clip("a", "a", start_s=start_s, end_s=end_s), film)
    with pytest.raises(SampleError, match="no such stretch"):
        stretch(clip.described(duration_s=1.5).part(0, 1.5, 2.0), film)
    with pytest.raises(SampleError, match="no video"):
        look(clip, sound, count=2)


def test_looks_stay_within_the_clip(make_film, tmp_path):
    film = Media(make_film(tmp_path / "a.mp4", num_frames=32, fps=8.0))
    pictures, times = looks(Clip("a", "a", start_s=1.0, end_s=3.0), film)
    assert times == [1.25, 1.75, 2.25, 2.75] and len(pictures) == 4
    np.testing.assert_array_equal(pictures, film.stills(1.0, 3.0, count=4))


def test_seconds_of_a_sound_without_a_header_are_counted(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(torch.zeros(1, 24000), 16000))
    sound = Media(tmp_path / "a.wav")
    vars(sound)["audio_info"] = type("Info", (), {"duration_s": None})()
    assert sound.sound_s == pytest.approx(1.5)
