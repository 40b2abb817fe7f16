"""`moviegen sound`: the film stays what it was, only its sound is another, and what cannot be is refused before anything is made."""

from functools import partial
from types import SimpleNamespace

import av
import pytest
import torch

from moviegen_cast import sound
from moviegen_core.cli import main
from moviegen_core.media.video import copy_with_sound, read_video, write_video

HZ = 8000


@pytest.fixture
def film(tmp_path):
    def make(name="film.mp4", *, num_frames=12, height=32, width=48, fps=12.0, **given):
        pixels = torch.rand(3, num_frames, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
        write_video(tmp_path / name, pixels, fps=fps, **given)
        return tmp_path / name

    return make


@pytest.fixture
def seen(monkeypatch):
    """A model of a few lines in the place of the real one; what it is shown is noted."""
    shown = []

    def sounds_for(model, clips, *, captions, keys):
        shown.extend(clips)
        return [torch.full((1, round(clip.video.shape[1] / clip.fps * HZ)), 0.5) for clip in clips]

    monkeypatch.setattr(sound, "load_model", lambda *args, **options: SimpleNamespace(audio_hz=HZ))
    monkeypatch.setattr(sound, "sounds_for", sounds_for)
    return shown


def packets(path, kind="video"):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(getattr(container.streams, kind)[0]) if packet.dts is not None]


def run(path, tmp_path, output="out.mp4"):
    (tmp_path / "model.ckpt").touch()
    main(["sound", str(path), f"--output={tmp_path / output}", f"--checkpoint={tmp_path / 'model.ckpt'}"])
    return tmp_path / output


def test_the_picture_is_copied_and_the_sound_replaced(film, seen, tmp_path):
    path = film(audio=torch.zeros(1, HZ), audio_hz=HZ)
    out = run(path, tmp_path)
    assert packets(out) == packets(path)
    made = read_video(out)
    assert made.audio_hz == HZ and made.audio[0, HZ // 4 : HZ // 2].mean() == pytest.approx(0.5, abs=0.05)
    (clip,) = seen
    assert clip.fps == 12.0 and (clip.video - read_video(path).video).abs().max() < 0.1


def test_a_large_film_is_seen_small_and_at_the_rate_of_latents(film, seen, tmp_path):
    path = film(num_frames=12, height=288, width=512, fps=60.0)
    out = run(path, tmp_path)
    (clip,) = seen
    assert clip.video.shape == (3, 5, 256, 455) and clip.fps == 25.0
    assert read_video(out).video.shape == (3, 12, 288, 512)


@pytest.mark.media
def test_a_film_that_lies_on_its_side_stays_so(media, seen, tmp_path):
    path = media / "hostile/rotated_90.mp4"
    out = run(path, tmp_path)
    for one in (path, out):
        with av.open(str(one)) as container:
            assert next(container.decode(video=0)).rotation % 180 == 90
    assert seen[0].video.shape[2:] == (320, 180)


@pytest.mark.media
def test_a_picture_that_mp4_cannot_hold_is_encoded_anew(media, seen, tmp_path):
    path = media / "video/makeup_320x240.avi"
    made = read_video(run(path, tmp_path))
    assert made.video.shape[2:] == (240, 320) and made.audio_hz == HZ


@pytest.mark.media
@pytest.mark.parametrize("name", ["audio_only.mp4", "garbage_in_middle.mp4", "truncated_no_index.mp4", "zero_byte.mp4", "text_renamed.mp4"])
def test_what_cannot_be_shown_is_refused(media, seen, tmp_path, capsys, name):
    with pytest.raises(SystemExit) as stop:
        run(media / f"hostile/{name}", tmp_path)
    assert stop.value.code == 2 and "no video can be read from it" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_the_film_itself_is_not_written_over(film, seen, tmp_path, capsys):
    path = film()
    before = path.read_bytes()
    (tmp_path / "link.mp4").symlink_to(path)
    for output in ("film.mp4", "link.mp4"):
        with pytest.raises(SystemExit) as stop:
            run(path, tmp_path, output)
        assert stop.value.code == 2 and "it is the film itself" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_short_sound_is_followed_by_silence(film):
    made = partial(copy_with_sound, film(), audio_hz=HZ)(audio=torch.full((HZ // 4,), 0.5))
    (film().parent / "made.mp4").write_bytes(made)
    audio = read_video(film().parent / "made.mp4").audio[0]
    assert len(audio) == pytest.approx(HZ, abs=2048) and audio[HZ // 2 : HZ].abs().max() < 0.05
