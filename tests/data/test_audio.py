"""Decoding sound: times, rates, channels, and files that are awkward."""

import wave

import numpy as np
import pytest

from moviegen_core.errors import UsageError
from moviegen_data.audio import AudioDecoder, pieces, read_audio
from moviegen_data.faults import SampleError
from moviegen_data.resampling import resample

FORMS = {
    "wav": {"container": "wav", "codec": "pcm_s16le"},
    "flac": {"container": "flac", "codec": "flac"},
    "mp3": {"container": "mp3", "codec": "libmp3lame"},
    "ogg-opus": {"container": "ogg", "codec": "libopus"},
    "mp4-aac": {"container": "mp4", "codec": "aac"},
    "mkv-opus": {"container": "matroska", "codec": "libopus"},
    "webm-opus": {"container": "webm", "codec": "libopus"},
}
FILMS = {name: FORMS[name] for name in ("mp4-aac", "mkv-opus")} | {"mp4-opus": {"container": "mp4", "codec": "libopus"}}


def place(audio, hz):
    """Time of a click: the middle of its energy."""
    energy = np.square(np.asarray(audio, dtype=np.float64)).sum(0)
    energy[energy < 0.05 * energy.max()] = 0
    return float((energy * np.arange(len(energy))).sum() / energy.sum()) / hz


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("audio_hz", [None, 44100, 16000])
def test_a_click_keeps_its_time(media_maker, name, audio_hz):
    data = media_maker.encode_sound(media_maker.click(48000, 4.0, 3.1), 48000, **FORMS[name])
    decoder = AudioDecoder(audio_hz=audio_hz)
    whole = decoder.decode(data)
    assert whole.audio_hz == (audio_hz or 48000)
    assert place(whole.audio, whole.audio_hz) == pytest.approx(3.1, abs=1e-3)
    assert whole.valid_s == pytest.approx(4.0, abs=0.06)
    span = decoder.decode(data, start_s=2.5, duration_s=1.0)
    assert span.audio.shape == (1, whole.audio_hz) and span.start_s == 2.5 and span.valid_s == pytest.approx(1.0)
    assert place(span.audio, span.audio_hz) == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("audio_hz", [48000, 22050])
def test_a_click_beside_a_picture_keeps_its_time(media_maker, name, audio_hz):
    sound, frames = media_maker.click(48000, 3.0, 2.2), media_maker.grey_steps(30, step=5)
    decoder = AudioDecoder(audio_hz=audio_hz)
    data = media_maker.encode_sound(sound, 48000, frames=frames, **FILMS[name])
    assert place(decoder.decode(data).audio, audio_hz) == pytest.approx(2.2, abs=1e-3)
    late = media_maker.encode_sound(sound, 48000, frames=frames, late_s=0.5, **FILMS[name])
    assert place(decoder.decode(late).audio, audio_hz) == pytest.approx(2.7, abs=1e-3)
    first = decoder.decode(late, duration_s=0.5)
    assert first.audio[:, : round(0.48 * audio_hz)].abs().max() < 1e-3, "the late track is led in by silence"
    assert place(decoder.decode(late, start_s=2.5, duration_s=0.4).audio, audio_hz) == pytest.approx(0.2, abs=1e-3)
    before = decoder.decode(late, duration_s=0.3)
    assert before.audio.shape == (1, round(0.3 * audio_hz)) and not before.audio.any(), "a span that ends before the track begins"
    early = media_maker.encode_sound(sound, 48000, frames=frames, late_picture_s=0.5, **FILMS[name])
    assert place(decoder.decode(early).audio, audio_hz) == pytest.approx(1.7, abs=1e-3), "what comes before the picture is cut"
    assert decoder.probe(late).start_s == pytest.approx(0.5, abs=0.03), "the encoder's priming samples belong to it"


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "mp4-aac"])
def test_spans_agree_with_the_whole(media_maker, name):
    noise = 0.2 * np.random.default_rng(0).standard_normal((2, 3 * 44100))
    data = media_maker.encode_sound(noise, 44100, **FORMS[name])
    decoder = AudioDecoder(audio_hz=48000, channels=2)
    whole = decoder.decode(data).audio
    for start in (0.0, 0.3, 1.234567, 2.0):
        span = decoder.decode(data, start_s=start, duration_s=0.9).audio
        first = round(start * 48000)
        assert span.shape == (2, 43200)
        # AAC replaces noise by noise of its own, drawn anew after a seek.
        assert (span - whole[:, first : first + 43200]).abs().max() < (0.05 if name == "mp4-aac" else 2e-3)


def test_numbers_of_samples_are_exact_and_short_sounds_are_padded(media_maker):
    data = media_maker.encode_sound(np.full((1, 8000), 0.5), 8000)
    decoder = AudioDecoder(audio_hz=8000)
    padded = decoder.decode(data, start_s=0.25, duration_s=1.5)
    assert padded.audio.shape == (1, 12000) and padded.valid_s == 0.75
    assert padded.audio[0, :6000] == pytest.approx(0.5, abs=1e-3) and not padded.audio[0, 6000:].any()
    beyond = decoder.decode(data, start_s=5.0, duration_s=0.1)
    assert beyond.valid_s == 0.0 and beyond.audio.shape == (1, 800) and not beyond.audio.any()
    for hz in (44100, 47999, 11025):
        for duration in (0.1, 1 / 3, 0.987654):
            assert AudioDecoder(audio_hz=hz).decode(data, duration_s=duration).audio.shape == (1, round(duration * hz))


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44100, 48000), (8000, 48000), (48000, 16000), (22050, 44100)])
def test_a_tone_survives_resampling(from_hz, to_hz):
    time = np.arange(from_hz) / from_hz
    out = resample(np.sin(2 * np.pi * 440 * time)[None], from_hz, to_hz)
    assert out.shape == (1, to_hz)
    expected = np.sin(2 * np.pi * 440 * np.arange(to_hz) / to_hz)
    inner = slice(to_hz // 50, -to_hz // 50)
    assert np.abs(out[0] - expected)[inner].max() < 2e-3


def test_channels_are_mixed_by_libswresample(media_maker):
    one = np.stack([np.full(4800, value) for value in (0.5, -0.25)])
    assert resample(one, 48000, 48000, channels=1) == pytest.approx(0.125, abs=1e-6)
    assert resample(one[:1], 48000, 48000, channels=2) == pytest.approx(0.5)
    full = np.ones((6, 4800))
    stereo = resample(full, 48000, 48000, channels=2)
    weight = 1 / (1 + 2 * 2**-0.5)
    assert stereo == pytest.approx(1.0, abs=1e-5), "all channels at full scale just reach it"
    for channel, (left, right) in enumerate([(1, 0), (0, 1), (2**-0.5, 2**-0.5), (0, 0), (2**-0.5, 0), (0, 2**-0.5)]):
        alone = np.zeros((6, 480))
        alone[channel] = 1.0
        assert resample(alone, 48000, 48000, channels=2)[:, 100] == pytest.approx([left * weight, right * weight], abs=1e-5)
    data = media_maker.encode_sound(np.eye(6)[:, [2] * 4800] * 0.5, 48000, container="wav")
    assert AudioDecoder(channels=2).decode(data).audio.shape == (2, 4800)
    assert AudioDecoder(channels=1).decode(data).audio.shape == (1, 4800)
    assert AudioDecoder().decode(data).audio.shape == (6, 4800)


def test_an_unknown_codec(media_maker):
    data = bytearray(media_maker.encode_sound(np.zeros((1, 8000)), 8000))
    data[20:22] = b"\xee\xee"  # the number of the format
    with pytest.raises(SampleError, match="cannot be decoded: its codec is unknown"):
        AudioDecoder().decode(bytes(data))


def test_many_channels(tmp_path):
    samples = np.tile(np.arange(16, dtype=np.int16) * 1000, (800, 1))
    with wave.open(str(tmp_path / "many.wav"), "wb") as file:
        file.setnchannels(16), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(samples.tobytes())
    sound = read_audio(tmp_path / "many.wav", audio_hz=16000)
    assert sound.audio.shape == (16, 1600)
    assert sound.audio[:, 800].numpy() == pytest.approx(samples[0] / 32768, abs=1e-3)
    with pytest.raises(UsageError, match="channels cannot be mixed: 16 channels"):
        read_audio(tmp_path / "many.wav", channels=2)


def test_bad_files(media_maker, tmp_path):
    broken = np.zeros((1, 48000), dtype=np.float32)
    broken[0, 30000] = np.nan
    data = media_maker.encode_sound(broken, 48000, codec="pcm_f32le")
    with pytest.raises(SampleError, match="the sound holds NaN or infinite values"):
        AudioDecoder().decode(data)
    with pytest.raises(SampleError, match=r"the sound holds NaN or infinite values: near 0\.6"):
        list(pieces(data))
    silent_film = media_maker.encode_clip(media_maker.grey_steps(4))
    for name in ("decode", "probe"):
        with pytest.raises(SampleError, match="no sound: 1 other streams"):
            getattr(AudioDecoder(), name)(silent_film)
        with pytest.raises(SampleError, match="cannot be opened"):
            getattr(AudioDecoder(), name)(b"not a sound")
    (tmp_path / "film.mp4").write_bytes(silent_film)
    with pytest.raises(UsageError, match=r"film\.mp4 was given; no sound"):
        read_audio(tmp_path / "film.mp4")
    with pytest.raises(UsageError, match="there is no such file"):
        read_audio(tmp_path / "absent.wav")
    with pytest.raises(UsageError, match="1 is mono and 2 stereo"):
        AudioDecoder(channels=6)
    with pytest.raises(UsageError, match="audio_hz=0"):
        AudioDecoder(audio_hz=0)


@pytest.mark.parametrize("name", FORMS)
def test_damaged_files_are_bad_samples_or_finite_sounds(media_maker, name):
    clean = media_maker.encode_sound(0.2 * np.random.default_rng(0).standard_normal((1, 2 * 48000)), 48000, **FORMS[name])
    decoder = AudioDecoder(audio_hz=16000, channels=1)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        data = bytearray(clean[: len(clean) * (seed % 4 + 1) // 4])
        for place in rng.integers(0, len(data), size=1 + len(data) // (2000 if seed < 6 else 50)):
            data[place] = rng.integers(256)
        for start_s in (0.0, 1.2):
            try:
                sound = decoder.decode(bytes(data), start_s=start_s, duration_s=0.5)
            except SampleError:
                continue
            assert sound.audio.shape == (1, 8000) and sound.audio.isfinite().all() and 0.0 <= sound.valid_s <= 0.5


def test_a_file_cut_in_its_middle_gives_what_it_has(media_maker):
    data = media_maker.encode_sound(np.full((1, 16000), 0.25), 16000)
    sound = AudioDecoder().decode(data[: len(data) // 2], duration_s=1.0)
    assert sound.audio.shape == (1, 16000) and sound.valid_s == pytest.approx(0.5, abs=0.01)


REAL = {
    "audio/music_guitar_16k_mono.wav": (16000, 1, 8.784),
    "audio/digital_silence_48k.wav": (48000, 1, 0.6245),
    "audio/ambient_rain_60s.mp3": (44100, 2, 60.46),
    "audio/ambient_hens.ogg": (44100, 2, 10.036),
    "audio/speech_jfk.flac": (44100, 2, 11.0),
    "video/bunny_720p_6ch_audio.mp4": (48000, 6, 5.312),
    "video/nasa_320x180_two_video_streams.mp4": (8000, 2, 13.056),
    "video/dog_leash_720p_silent_track.mp4": (48000, 2, 9.664),
    "video/makeup_320x240.avi": (44100, 2, 6.557),
    "video/pancake_426x240.mkv": (48000, 1, 10.381),
    "video/bunny_30s_720p_vp8.webm": (44100, 2, 30.0),
    "hostile/audio_only.mp4": (44100, 2, 3.0),
}


@pytest.mark.media
@pytest.mark.parametrize("name", REAL)
def test_real_files(media, name):
    hz, channels, duration = REAL[name]
    decoder = AudioDecoder(audio_hz=48000, channels=1)
    info = decoder.probe(media / name)
    assert (info.audio_hz, info.num_channels) == (hz, channels) and info.duration_s == pytest.approx(duration, abs=0.03)
    whole = decoder.decode(media / name)
    assert whole.audio.shape[1] / 48000 == pytest.approx(duration, abs=0.06) and whole.audio.isfinite().all()
    assert bool(whole.audio.any()) == ("silen" not in name)
    start = 0.6 * duration
    span = decoder.decode((media / name).read_bytes(), start_s=start, duration_s=0.2)
    first = round(start * 48000)
    pair = [span.audio[0].double().numpy(), whole.audio[0, first - 48 : first + 9648].double().numpy()]
    if pair[0].std() > 1e-3:  # within 1 ms of the whole, found by correlation
        match = np.correlate(pair[1], pair[0], mode="valid")
        assert match.max() > 0.98 * np.linalg.norm(pair[0]) ** 2


@pytest.mark.media
def test_real_bad_sound(media):
    with pytest.raises(SampleError, match="the sound holds NaN or infinite values"):
        AudioDecoder().decode(media / "hostile" / "nan_samples.wav")
