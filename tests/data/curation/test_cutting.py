"""Stretches of videos: by copying packets and by encoding anew, both show the frames of the stretch and no others."""

import io

import av
import numpy as np
import pytest

from moviegen_data.audio import AudioDecoder
from moviegen_data.curation.copying import copy_stretch
from moviegen_data.curation.cutting import cut_video as cut_lossy
from moviegen_data.faults import SampleError
from moviegen_data.stills import read_stills
from moviegen_data.toyworld.media import write_media_folder
from moviegen_data.video import VideoDecoder


def cut_video(path, start_s, end_s):
    return cut_lossy(path, start_s, end_s, crf=1)


def numbers(data, count, fps=8):
    stills = read_stills(data, [(n + 0.5) / fps for n in range(count)])
    return [round(float(value - 20) / 5) for value in stills.mean((1, 2, 3))]


@pytest.fixture
def film(media_maker, tmp_path):
    def make(**options):
        path = tmp_path / "film.bin"
        path.write_bytes(media_maker.encode_clip(media_maker.grey_steps(40, step=5), **options))
        return path

    return make


@pytest.mark.parametrize("cut", [copy_stretch, cut_video])
@pytest.mark.parametrize(("first", "last"), [(0, 8), (13, 27), (12, 13), (30, 40)])
def test_a_stretch_is_its_frames(cut, first, last, film):
    data = cut(film(), first / 8, last / 8)
    count, duration_s = VideoDecoder().count(data)
    assert numbers(data, count) == list(range(first, first + count))
    assert duration_s == pytest.approx(count / 8, abs=1e-3)
    assert count == last - first or (cut is copy_stretch and last - first - 3 <= count < last - first), "B frames may end it early"


def test_copies_hold_the_very_packets(film):
    path = film()
    data = copy_stretch(path, 13 / 8, 27 / 8)
    with av.open(str(path)) as one, av.open(io.BytesIO(data)) as other:
        known = {bytes(packet) for packet in one.demux(video=0)}
        copied = [bytes(packet) for packet in other.demux(video=0) if packet.size]
    assert copied and set(copied) <= known


def test_frames_keep_their_times_where_the_rate_varies(film):
    times = [n / 8 if n < 20 else 20 / 8 + (n - 20) / 2 for n in range(40)]
    path = film(times=times)
    for cut in (copy_stretch, cut_video):
        data = cut(path, times[16], times[26])
        wanted = [t - times[16] for t in times[16:24]]
        stills = read_stills(data, [t + 0.05 for t in wanted])
        assert [round(float(v - 20) / 5) for v in stills.mean((1, 2, 3))] == list(range(16, 24))


def test_turned_films_are_upright(media_maker, tmp_path):
    frames = np.full((16, 32, 64, 3), 30, np.uint8)
    frames[:, :, :16] = 220
    path = tmp_path / "turned.mp4"
    path.write_bytes(media_maker.encode_clip(frames, rotation=90))
    shown = read_stills(path, [0.5])[0]
    for cut in (copy_stretch, cut_video):
        again = read_stills(cut(path, 0.5, 1.5), [0.5])[0]
        assert again.shape == shown.shape == (64, 32, 3)
        assert np.abs(again.astype(int) - shown).mean() < 3


@pytest.mark.parametrize("cut", [copy_stretch, cut_video])
def test_sound_stays_beside_the_picture(cut, media_maker, tmp_path):
    hz = 48000
    frames = media_maker.grey_steps(30, step=5)
    path = tmp_path / "film.mp4"
    wave = media_maker.click(hz, 3.0, 1.7)
    path.write_bytes(media_maker.encode_sound(wave, hz, container="mp4", codec="aac", frames=frames, fps=10))
    sound = AudioDecoder(audio_hz=hz, channels=1).decode(cut(path, 1.0, 2.5)).audio[0].numpy()
    assert abs(np.abs(sound).argmax() / hz - 0.7) < 0.003


@pytest.mark.parametrize("first", range(0, 30, 3))
def test_matroska_with_b_frames_is_right_or_left_to_the_encoder(first, film):
    path = film(container="matroska", crf=20)
    data = copy_stretch(path, first / 8, (first + 10) / 8) or cut_video(path, first / 8, (first + 10) / 8)
    count = VideoDecoder().count(data)[0]
    assert count >= 7 and numbers(data, count) == list(range(first, first + count))


def test_sound_that_ends_early_is_not_made_longer(media_maker, tmp_path):
    hz, frames = 48000, media_maker.grey_steps(40, step=5)
    path = tmp_path / "film.mp4"
    path.write_bytes(media_maker.encode_sound(media_maker.click(hz, 2.0, 1.5), hz, container="mp4", codec="aac", frames=frames, fps=10))
    assert VideoDecoder().probe(cut_video(path, 3.0, 4.0)).num_audio_streams == 0
    with av.open(io.BytesIO(cut_video(path, 1.0, 4.0))) as file:
        assert float(file.streams.audio[0].duration * file.streams.audio[0].time_base) == pytest.approx(1.0, abs=0.1)


def test_what_mp4_cannot_hold_is_left_to_the_encoder(film):
    path = film(codec="libvpx", container="webm")
    assert copy_stretch(path, 1.0, 2.0) is None
    data = cut_video(path, 1.0, 2.0)
    assert numbers(data, VideoDecoder().count(data)[0]) == list(range(8, 16))


def test_encoding_again_gives_the_same_bytes(tmp_path):
    """x264's macroblock tree gave one of six of these films other bytes from call to call."""
    folder = write_media_folder(
        tmp_path, num_clips=48, num_frames=16, height=64, width=64, fps=8.0, grounds=("stripes", "checker", "gradient")
    )
    for path in sorted(folder.glob("*.mp4")):
        assert len({cut_lossy(path, 0.6, 1.6, crf=16) for _ in range(6)}) == 1


def test_memory_does_not_grow_and_empty_stretches_are_told(film):
    for cut in (copy_stretch, cut_video):
        with pytest.raises(SampleError, match="no frame between"):
            cut(film(), 90.0, 95.0)


def test_nothing_is_cut_out_of_what_is_no_film(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    for cut in (copy_stretch, cut_video):
        with pytest.raises(SampleError, match="cannot be opened"):
            cut(tmp_path / "a.mp4", 0.0, 1.0)
