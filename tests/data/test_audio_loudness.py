"""Loudness against the standard's own numbers and closed forms."""

import io
import math
import wave

import numpy as np
import pytest

from moviegen_core.errors import UsageError
from moviegen_data.faults import SampleError
from moviegen_data.loudness import SoundMeter, gain, k_weighting, loudness, true_peak_db
from moviegen_data.sound import check_sound


def sine(hz, seconds, rate=48000, level=1.0):
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)[None]


@pytest.mark.parametrize("rate", [48000, 44100, 96000, 32000, 16000])
def test_the_reference_tone(rate):
    """BS.1770-4: a 997 Hz sine at full scale in one channel is -3.01 LKFS; in both channels of stereo 3.01 dB more."""
    tone = sine(997, 5, rate)
    assert loudness(tone, rate) == pytest.approx(-3.01, abs=0.05 if rate != 48000 else 0.005)
    assert loudness(np.concatenate([tone, 0 * tone]), rate) == pytest.approx(loudness(tone, rate), abs=1e-9)
    assert loudness(np.concatenate([tone, tone]), rate) == pytest.approx(loudness(tone, rate) + 10 * math.log10(2), abs=1e-9)


def test_the_filters_are_the_printed_ones():
    (above, below), (high, low) = k_weighting(48000)
    assert above == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-9)
    assert below == pytest.approx([1.0, -1.69065929318241, 0.73248077421585], abs=1e-9)
    assert high == pytest.approx([1.0, -2.0, 1.0]) and low == pytest.approx([1.0, -1.99004745483398, 0.99007225036621], abs=1e-9)


def test_gates():
    """EBU Tech 3341, case 3: -36, -23 and -36 dBFS stereo tones of 10, 60 and 10 s are -23 LUFS; silence counts for nothing."""
    tone = np.concatenate([sine(1000, seconds, level=10 ** (db / 20)) for seconds, db in ((10, -36), (60, -23), (10, -36))], axis=1)
    stereo = np.concatenate([tone, tone])
    assert loudness(stereo, 48000) == pytest.approx(-23.0, abs=0.1)
    assert loudness(np.pad(stereo, ((0, 0), (0, 48000 * 30))), 48000) == pytest.approx(-23.0, abs=0.1)
    assert loudness(np.zeros((1, 48000)), 48000) == -math.inf


def test_surrounds_weigh_more_and_the_bass_nothing():
    """EBU Tech 3341, case 6: 5.1 at -28, -24 (centre) and -30 (surrounds) dBFS is -23 LUFS."""
    levels = [-28, -28, -24, None, -30, -30]
    tone = sine(1000, 20)
    sound = np.concatenate([0 * tone if db is None else tone * 10 ** (db / 20) for db in levels])
    assert loudness(sound, 48000) == pytest.approx(-23.0, abs=0.1)
    sound[3] = tone
    assert loudness(sound, 48000) == pytest.approx(-23.0, abs=0.1)


def test_pieces_make_no_difference():
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 100_001))
    whole = SoundMeter(audio_hz=44100, num_channels=2)
    whole.add(noise)
    parts = SoundMeter(audio_hz=44100, num_channels=2)
    for start in range(0, 100_001, 777):
        parts.add(noise[:, start : start + 777])
    assert parts.loudness == pytest.approx(whole.loudness, abs=1e-9)
    assert (parts.silence, parts.peak, parts.num_samples) == (whole.silence, whole.peak, whole.num_samples)


def test_short_sounds_are_measured_whole():
    assert loudness(sine(997, 0.3), 48000) == pytest.approx(-3.01, abs=0.15)


def test_true_peaks_lie_between_samples():
    """A sine at a quarter of the rate, sampled at 45 degrees: samples reach 0.707, the wave 1."""
    tone = np.sin(2 * np.pi * np.arange(4800) / 4 + np.pi / 4)[None]
    assert np.abs(tone).max() == pytest.approx(0.7071, abs=1e-3)
    assert true_peak_db(tone[:, 100:-100]) == pytest.approx(0.0, abs=0.3)
    assert true_peak_db(np.zeros((1, 10))) == -math.inf


def silence(sound):
    meter = SoundMeter(audio_hz=48000, num_channels=len(sound))
    meter.add(sound)
    return meter.silence


def test_silence_is_counted_in_time():
    sound = np.concatenate([sine(440, 1, level=0.5), np.zeros((1, 48000 * 3))], axis=1)
    assert silence(sound) == pytest.approx(0.75)
    assert silence(10 ** (-56 / 20) * sine(440, 1)) == 0.0  # -59 dB by its RMS
    assert silence(10 ** (-58 / 20) * sine(440, 1)) == 1.0
    assert silence(np.zeros((1, 0))) == 1.0
    one_side = np.concatenate([sine(440, 1), np.zeros((1, 48000))])
    assert silence(one_side) == 0.0


def test_levels():
    quiet = sine(997, 3, level=0.01)
    assert np.abs(quiet * gain(quiet, 48000, "peak", -6.0)).max() == pytest.approx(10 ** (-6 / 20), rel=1e-6)
    assert loudness(quiet * gain(quiet, 48000, "loudness", -20.0), 48000) == pytest.approx(-20.0, abs=1e-6)
    assert gain(quiet, 48000, "none") == 1.0 == gain(0 * quiet, 48000, "loudness") == gain(0 * quiet, 48000, "peak")
    clicks = np.zeros((1, 48000 * 2))
    clicks[0, ::4800] = 0.5
    loud = clicks * gain(clicks, 48000, "loudness", -5.0)
    assert true_peak_db(loud) == pytest.approx(-1.0, abs=1e-6), "a loudness that would clip is not reached"
    with pytest.raises(UsageError, match="full scale is 0 dB"):
        gain(quiet, 48000, "peak", 3.0)


def test_facts_of_a_file(media_maker):
    data = media_maker.encode_sound(np.concatenate([sine(997, 2, level=0.5), np.zeros((1, 96000))], axis=1), 48000)
    facts = check_sound(data)
    level = -3.01 - 6.02 + 10 * math.log10(18.5 / 20)  # 17 blocks are full of the tone, 3 of them in part
    assert facts.pop("loudness_lufs") == pytest.approx(level, abs=0.01)
    assert facts == {"audio_hz": 48000, "num_channels": 1, "duration_s": 4.0, "peak": 0.5, "silence": 0.5}
    assert "loudness_lufs" not in check_sound(media_maker.encode_sound(np.zeros((2, 48000)), 48000))
    empty = io.BytesIO()
    with wave.open(empty, "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(48000)
    with pytest.raises(SampleError, match="no sound: the pcm_s16le stream is empty"):
        check_sound(empty.getvalue())
