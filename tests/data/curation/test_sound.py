"""Sound: silence, loudness and presence, of the clip's stretch alone, against closed forms."""

import math
import pickle

import numpy as np
import pytest
import torch

from moviegen_core.errors import UsageError
from moviegen_core.media.sound import wav_bytes
from moviegen_core.media.video import write_video
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.stages import sound
from moviegen_data.curation.stages.sound import Sound
from moviegen_data.faults import SampleError

CLIP = Clip(key="a", source="a")
HZ = 48000


def tone(seconds, level=0.5, hz=997.0):
    return level * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * HZ)) / HZ)


def wav(path, audio):
    path.write_bytes(wav_bytes(audio[None], HZ))
    return Media(path)


def test_loudness_is_that_of_a_sine(tmp_path):
    found = Sound().apply(CLIP, wav(tmp_path / "a.wav", tone(4)))
    assert found.drop is None and found.facts["has_audio"] is True
    # BS.1770: a mono sine of 997 Hz at full scale is -3.01 LUFS; half of it 6.02 dB less.
    assert found.scores["loudness_lufs"] == pytest.approx(-9.03, abs=0.05)
    assert found.scores["silence"] == 0.0 and found.scores["peak"] == pytest.approx(0.5, abs=1e-3)


def test_the_stretch_alone_is_heard(tmp_path):
    media = wav(tmp_path / "a.wav", torch.cat([tone(3), torch.zeros(3 * HZ)]))
    stage = pickle.loads(pickle.dumps(Sound(max_silence=0.4)))
    assert stage.apply(CLIP, media).scores["silence"] == pytest.approx(0.5, abs=0.02)
    assert stage.apply(CLIP.part(0, 0.0, 2.0), media).scores["silence"] == 0.0
    silent = stage.apply(CLIP.part(1, 3.5, 6.0), media)
    assert silent.drop.reason == "silent" and silent.scores["silence"] == 1.0 and "loudness_lufs" not in silent.scores
    assert Sound(max_silence=1.0).apply(CLIP.part(1, 3.5, 6.0), media).drop is None


def test_quiet_clips_are_dropped_where_asked(tmp_path):
    media = wav(tmp_path / "a.wav", tone(2, level=0.005))
    assert Sound().apply(CLIP, media).drop is None
    found = Sound(min_loudness_lufs=-40.0).apply(CLIP, media)
    assert found.drop.reason == "not loud enough" and found.scores["loudness_lufs"] == pytest.approx(-49.03, abs=0.1)
    nothing = wav(tmp_path / "b.wav", torch.zeros(HZ))
    assert Sound(max_silence=1.0, min_loudness_lufs=-40.0).apply(CLIP, nothing).drop.measured == "silence"


def test_a_film_without_a_track_is_dropped_where_sound_is_wanted(tmp_path):
    video = torch.zeros(3, 8, 16, 16)
    write_video(tmp_path / "mute.mp4", video, fps=8)
    write_video(tmp_path / "heard.mp4", video, fps=8, audio=tone(1), audio_hz=HZ)
    found = Sound().apply(CLIP, Media(tmp_path / "mute.mp4"))
    assert found.drop.reason == "no sound" and found.facts["has_audio"] is False
    assert Sound(require=False).apply(CLIP, Media(tmp_path / "mute.mp4")).drop is None
    assert Sound().apply(CLIP, Media(tmp_path / "heard.mp4")).drop is None


def test_bad_sounds_and_settings(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound at all")
    with pytest.raises(SampleError):
        Sound().apply(CLIP, Media(tmp_path / "a.wav"))
    for wrong in ({"max_silence": 1.5}, {"max_silence": float("nan")}, {"min_loudness_lufs": 3.0}):
        with pytest.raises(UsageError, match="share of 0 to 1"):
            Sound(**wrong)


def test_what_follows_the_end_of_a_track_is_silent(tmp_path, media_maker):
    track = {"container": "mp4", "codec": "aac", "frames": media_maker.grey_steps(32), "fps": 8}
    (tmp_path / "a.mp4").write_bytes(media_maker.encode_sound(tone(1)[None].numpy(), HZ, **track))
    media = Media(tmp_path / "a.mp4")
    assert Sound(max_silence=1.0).apply(CLIP, media).scores["silence"] == pytest.approx(0.75, abs=0.03)
    assert Sound(max_silence=1.0).apply(CLIP.part(0, 0.5, 2.5), media).scores["silence"] == pytest.approx(0.75, abs=0.03)
    assert Sound(max_silence=1.0).apply(CLIP.part(0, 0.0, 0.9), media).scores["silence"] == 0.0
    assert Sound().apply(CLIP.part(0, 2.0, 4.0), media).drop.reason == "no sound"


@pytest.mark.parametrize("end_s", [None, 9.7])
def test_long_sounds_are_heard_piece_by_piece(tmp_path, monkeypatch, end_s):
    audio = torch.cat([tone(4), torch.zeros(2 * HZ), tone(4, level=0.1)])
    clip, whole = Clip(key="a", source="a", start_s=1.3, end_s=end_s), wav(tmp_path / "a.wav", audio)
    expected = Sound().apply(clip, whole).scores
    spans = []

    class Watched(Media):
        def sound(self, start_s=0.0, end_s=None, **settings):
            spans.append(end_s - start_s)
            return super().sound(start_s, end_s, **settings)

    monkeypatch.setattr(sound, "_PIECE_S", 0.7)
    assert Sound().apply(clip, Watched(whole.path)).scores == pytest.approx(expected, abs=1e-5)
    assert len(spans) > 10 and max(spans) < 0.71


@pytest.mark.media
def test_real_clips(media):
    wanted = {
        "video/dog_leash_720p_silent_track.mp4": "silent",
        "video/soccer_juggle_720p_24fps.mp4": "no sound",
        "video/dog_barks_480x360_15fps.mp4": None,
        "video/hammer_anvil_640x360.mp4": None,
        "video/bunny_720p_6ch_audio.mp4": None,
        "audio/digital_silence_48k.wav": "silent",
        "audio/music_guitar_16k_mono.wav": None,
        "audio/speech_jfk.flac": None,
    }
    for name, reason in wanted.items():
        found = Sound().apply(CLIP, Media(media / name))
        assert (found.drop and found.drop.reason) == reason, name
        assert all(np.isfinite(score) for score in found.scores.values())
