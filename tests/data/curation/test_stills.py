"""Pictures of a video at given times, against all frames decoded one by one."""

import pytest

from moviegen_data.curation import Media
from moviegen_data.faults import SampleError
from moviegen_data.stills import read_stills


def seen(stills):
    return [round(float(value - 20) / 5) for value in stills.mean((1, 2, 3))]


@pytest.fixture
def path(media_maker, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(media_maker.encode_clip(media_maker.grey_steps(40, step=5), fps=2))
    return path


def test_the_frame_on_the_screen(path):
    times = [0.0, 0.1, 0.5, 3.0, 3.0, 12.9, 19.9]
    assert seen(read_stills(path, times)) == [int(time * 2 + 1e-9) for time in times]


def test_behind_the_end_the_last_frame_stays(path):
    assert seen(read_stills(path, [19.0, 25.0, 400.0])) == [38, 39, 39]


def test_times_on_frames_are_those_frames(path):
    assert seen(read_stills(path, [n / 2 for n in range(0, 40, 3)])) == list(range(0, 40, 3))


def test_size_and_source(path):
    assert read_stills(path.read_bytes(), [1.0], max_side=16).shape == (1, 16, 16, 3)
    assert read_stills(path, []).shape == (0, 0, 0, 3)


@pytest.mark.parametrize("times", [[1.0, 0.5], [-1.0], [float("nan")]])
def test_times_rise(path, times):
    with pytest.raises(ValueError, match="times"):
        read_stills(path, times)


def test_media_give_pictures_sounds_and_errors(path, media_maker, tmp_path):
    media = Media(path)
    assert media.kind == "video" and media.extent == (40, 20.0) and media.info.width == 32
    assert seen(media.stills(4.0, 8.0, count=2)) == [10, 14]
    assert media.stills(4.0, 8.0, count=2) is media.stills(4.0, 8.0, count=2)
    (tmp_path / "p.png").write_bytes(media_maker.picture_bytes(height=8, width=16))
    assert Media(tmp_path / "p.png").stills(0.0, 0.0, max_side=8).shape == (1, 4, 8, 3)
    with pytest.raises(SampleError, match="it is a sound"):
        Media(tmp_path / "s.wav").stills(0.0, 1.0)
    with pytest.raises(SampleError, match="cannot be opened"):
        (tmp_path / "b.mp4").write_bytes(b"")
        Media(tmp_path / "b.mp4").info  # noqa: B018
