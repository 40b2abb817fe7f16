"""The oracle for sound: right on ground truth, after codecs, filters and noise, and silent where there is nothing to hear."""

import io
import json
from itertools import product

import av
import numpy as np
import pytest
import torch
from scipy import signal

from moviegen_core.callbacks.predictions import Prediction
from moviegen_core.callbacks.writers import PredictionWriter
from moviegen_core.errors import UsageError
from moviegen_core.media.sound import wav_bytes
from moviegen_data.audio import read_audio
from moviegen_data.toyworld import (
    AMBIENCES,
    GROUNDS,
    SHAPES,
    SIZES,
    TIMBRES,
    Event,
    GroundSpec,
    ObjectSpec,
    SceneSpec,
    ToyWorldData,
    find_events,
    knock,
    render_sound,
    sample_scene,
    write_media_folder,
)
from moviegen_eval import SoundOracle, SoundOracleAccuracy, hearing_chance, score_sounds
from moviegen_eval.commands import sound as sound_command
from moviegen_eval.hearing_score import blind_onset_f1, distinct_onsets
from moviegen_eval.timbre import PITCHES

HZ = 48000


def scenes(count, *, num_frames=16, fps=8.0, start=0, **settings):
    """Scenes, their events and their sounds."""
    specs = [sample_scene(start + i, **{"vary_timing": True, "grounds": GROUNDS, **settings}) for i in range(count)]
    events = [find_events(spec, num_frames=num_frames, fps=fps) for spec in specs]
    length = round(num_frames / fps * HZ)
    return specs, events, [render_sound(spec, each, num_samples=length)[0] for spec, each in zip(specs, events, strict=True)]


def opus(sound, bit_rate=32000):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=HZ, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="flt", layout="mono")
        frame.sample_rate, frame.pts = HZ, 0
        resampler = av.AudioResampler(format="flt", layout="mono", rate=HZ, frame_size=960)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def low_passed(sound):
    return signal.sosfiltfilt(signal.butter(8, 8000, fs=HZ, output="sos"), sound)


def noisy(sound):
    noise = np.random.default_rng(0).normal(0, 1, len(sound))
    return sound + 0.1 * noise * np.sqrt((sound**2).mean())


class TestGroundTruth:
    @pytest.mark.parametrize(
        ("count", "settings"),
        [
            (100, {"grounds": ["black"]}),
            (100, {}),
            (100, {"music": 1.0}),
            (40, {"num_objects": 2, "num_frames": 32}),
            (8, {"num_frames": 250, "fps": 25.0, "music": 0.5}),
            (40, {"vary_timing": False}),
        ],
        ids=["without-ambience", "with-ambience", "with-music", "two-objects", "ten-seconds", "usual-timing"],
    )
    def test_everything_is_heard_right(self, count, settings):
        specs, events, sounds = scenes(count, **settings)
        score = score_sounds(sounds, HZ, specs, events)
        assert score.num_clips == count
        assert min(score.to_dict().values()) >= 0.99

    @pytest.mark.parametrize("audio_hz", [16000, 22050, 44100])
    def test_at_other_rates_too(self, audio_hz):
        for shape, size in product(SHAPES, SIZES):
            spec = SceneSpec((ObjectSpec(shape, "red", size),))
            sound = render_sound(spec, [Event("contact", 0.7, 0)], num_samples=2 * audio_hz, audio_hz=audio_hz)
            (found,) = SoundOracle().read(sound, audio_hz).knocks
            assert (found.timbre, found.pitch) == (TIMBRES[shape], PITCHES[size])
            assert found.time_s == pytest.approx(0.7, abs=0.01)

    def test_onsets_are_heard_to_a_few_milliseconds(self):
        _, events, sounds = scenes(40, grounds=["black"])
        for each, sound in zip(events, sounds, strict=True):
            np.testing.assert_allclose(SoundOracle().read(sound, HZ).onsets_s, [event.time_s for event in each], atol=0.015)

    @pytest.mark.parametrize("gain", [0.1, 2.0])
    def test_loudness_does_not_change_what_a_knock_is(self, gain):
        for shape in SHAPES:
            sound = gain * render_sound(SceneSpec((ObjectSpec(shape, "red"),)), [Event("contact", 0.7, 0)], num_samples=HZ)
            assert SoundOracle().read(sound, HZ).timbre == TIMBRES[shape]


class TestDegraded:
    @pytest.mark.parametrize("music", [0.0, 1.0])
    @pytest.mark.parametrize(
        ("degrade", "least"),
        # Opus at this rate adds clicks of its own to glides; under music it drops the hiss of the "air".
        [(opus, {"onset_f1": 0.95, "timbre": 0.97, "ambience": 0.8}), (low_passed, {"onset_f1": 0.99, "timbre": 0.99, "ambience": 0.99}),
         (noisy, {"onset_f1": 0.99, "timbre": 0.99, "ambience": 0.8})],
    )  # fmt: skip
    def test_codecs_lost_treble_and_noise_are_survived(self, degrade, least, music):
        specs, events, sounds = scenes(60, start=1000, music=music)
        found = score_sounds([degrade(sound) for sound in sounds], HZ, specs, events).to_dict()
        assert all(found[name] >= value for name, value in least.items()), found

    def test_worse_sound_is_not_heard_better(self):
        specs, events, sounds = scenes(20, start=2000)
        rng = np.random.default_rng(0)
        drowned = [sound + rng.normal(0, 0.3, len(sound)) for sound in sounds]
        found = score_sounds(drowned, HZ, specs, events)
        assert found.timbre < 0.9
        assert found.ambience < 0.5


class TestNothing:
    @pytest.mark.parametrize("kind", ["silence", "white", "tone", "glide", "constant", "empty", "short", "loud"])
    def test_garbage_is_no_knock(self, kind):
        rng, times = np.random.default_rng(0), np.arange(2 * HZ) / HZ
        sound = {
            "silence": np.zeros(2 * HZ),
            "white": 0.2 * rng.normal(size=2 * HZ),
            "tone": 0.3 * np.sin(2 * np.pi * 520 * times),
            "glide": 0.3 * signal.chirp(times, 300, 2.0, 5000),
            "constant": np.full(2 * HZ, 0.7),
            "empty": np.zeros(0),
            "short": np.full(7, 0.5),
            "loud": 1e9 * rng.normal(size=2 * HZ),
        }[kind]
        hearing = SoundOracle().read(sound, HZ)
        assert (hearing.timbre, hearing.pitch, hearing.knocks) == ("none", "none", ())
        assert hearing.ambience == ("silence" if kind in ("silence", "constant") else "none")
        assert not hearing.music or kind in ("white", "loud")

    def test_nan_is_refused_and_not_taken_for_silence(self):
        with pytest.raises(UsageError, match="NaN or infinite"):
            SoundOracle().read(np.append(np.zeros(HZ), np.nan), HZ)

    def test_strange_knocks_are_onsets_without_a_name(self):
        rng, times = np.random.default_rng(1), np.arange(HZ) / HZ
        since = np.maximum(times - 0.5, 0)
        falling = np.where(times >= 0.5, np.sin(2 * np.pi * (5000 * since - 8000 * since**2)) * np.exp(-since / 0.1), 0)
        swelling = np.where(times >= 0.5, rng.normal(size=HZ) * (1 - np.exp(-since / 0.02)), 0)
        buzz = np.where(times >= 0.5, signal.square(2 * np.pi * 300 * since), 0)
        for sound in (falling, swelling, buzz):
            hearing = SoundOracle().read(0.3 * sound, HZ)
            assert len(hearing.knocks) == 1
            assert (hearing.timbre, hearing.pitch) == ("none", "none")

    def test_a_knock_cut_too_short_is_not_guessed(self):
        sound = np.concatenate([np.zeros(HZ), knock("circle", "small")[:500]])
        hearing = SoundOracle().read(sound, HZ)
        assert hearing.timbre == "none"

    @pytest.mark.media
    @pytest.mark.parametrize("name", ["speech_jfk.flac", "music_guitar_16k_mono.wav", "ambient_rain_60s.mp3", "sfx_car_horn.wav"])
    def test_real_sounds_are_no_toys(self, media, name):
        sound = read_audio(media / "audio" / name)
        hearing = SoundOracle().read(sound.audio[:, : 20 * sound.audio_hz], sound.audio_hz)
        assert hearing.timbre == "none"
        assert np.mean([knock.timbre != "none" for knock in hearing.knocks] or [0]) < 0.2


class TestScore:
    def test_wrong_sounds_score_nothing(self):
        spec = SceneSpec((ObjectSpec("circle", "red", "small"),), GroundSpec("grey"))
        other = SceneSpec((ObjectSpec("square", "red", "large"),), GroundSpec("white"), music=True)
        heard = render_sound(other, [Event("contact", 1.5, 0)], num_samples=2 * HZ)
        score = score_sounds([heard], HZ, [spec], [[Event("contact", 0.5, 0)]])
        assert (score.onsets.f1, score.timbre, score.pitch, score.ambience, score.music) == (0, 0, 0, 0, 0)
        assert score.quiet is None and "quiet" not in score.to_dict()

    def test_a_knock_in_a_clip_without_events_is_not_quiet(self):
        spec = SceneSpec((ObjectSpec("circle", "red"),))
        heard = [render_sound(spec, events, num_samples=HZ) for events in ([Event("contact", 0.5, 0)], [])]
        score = score_sounds(heard, HZ, [spec] * 2, [[], []])
        assert (score.quiet, score.timbre, score.onsets.precision) == (0.5, None, 0.0)

    def test_the_timbre_counts_whenever_it_is_heard(self):
        spec = SceneSpec((ObjectSpec("ring", "red"),))
        heard = render_sound(spec, [Event("contact", 1.5, 0)], num_samples=2 * HZ)
        score = score_sounds([heard], HZ, [spec], [[Event("contact", 0.5, 0)]])
        assert (score.timbre, score.pitch, score.onsets.f1) == (1.0, 1.0, 0.0)

    def test_two_objects_want_both_timbres(self):
        spec = SceneSpec((ObjectSpec("ring", "red"), ObjectSpec("square", "blue", "small")))
        events = [Event("contact", 0.5, 0), Event("contact", 1.2, 1)]
        heard = [render_sound(spec, part, num_samples=2 * HZ) for part in (events, events[:1])]
        assert score_sounds(heard, HZ, [spec] * 2, [events] * 2).timbre == 0.75

    def test_events_that_sound_as_one_count_once(self):
        assert distinct_onsets([Event("bounce", 1.01, 1), Event("bounce", 1.0, 0), Event("bounce", 2.0, 0)]) == [1.0, 2.0]

    def test_as_many_of_all_are_wanted(self):
        with pytest.raises(UsageError, match="give as many"):
            score_sounds([], HZ, [], [])

    def test_the_metric_accumulates_what_score_says(self):
        specs, events, sounds = scenes(6)
        wrong = [*sounds[1:3], *sounds[2:]]
        metric = SoundOracleAccuracy()
        for part in (slice(0, 3), slice(3, 6)):
            told = [{"scene": spec.to_dict(), "events": [vars(event) for event in each]} for spec, each in zip(specs, events, strict=True)]
            metric.update(torch.from_numpy(np.stack(wrong[part]))[:, None], HZ, told[part])
        expected = score_sounds(wrong, HZ, specs, events).to_dict()
        assert expected["ambience"] < 1
        assert {name: float(value) for name, value in metric.compute().items()} == pytest.approx(
            {name: expected[name] for name in ("onset_f1", "timbre", "pitch", "ambience")}
        )
        with pytest.raises(UsageError, match="ToyWorldData"):
            metric.update(torch.zeros(1, 1, HZ), HZ, [{}])


def test_who_does_not_see_cannot_guess_when():
    """The point of varied timing: one guess is right for all usual scenes that sound, and for hardly any varied one."""
    for vary_timing, least, most in ((False, 0.99, 1.0), (True, 0.02, 0.15)):
        specs = [sample_scene(seed, vary_timing=vary_timing) for seed in range(600)]
        onsets = [distinct_onsets(find_events(spec, num_frames=16, fps=8.0)) for spec in specs]
        sounding = [each for each in onsets if each]
        mean = float(np.concatenate(sounding).mean())
        assert least <= blind_onset_f1(sounding, guess_s=mean) <= most
        assert blind_onset_f1(sounding, guess_s=mean) <= blind_onset_f1(sounding) <= most
        assert blind_onset_f1(onsets) < blind_onset_f1(sounding)


def test_chance_is_one_over_the_number_of_names():
    figures = hearing_chance([[Event("contact", 1.0, 0)], []])
    assert figures == {"onset_f1": 2 / 3, "timbre": 1 / 5, "pitch": 1 / 10, "ambience": 1 / 6}
    assert len(set(AMBIENCES.values())) == 6


class TestCommand:
    def test_a_folder_of_films_is_judged_by_its_table(self, tmp_path, capsys):
        settings = {"num_frames": 16, "height": 16, "width": 16, "audio_hz": 48000, "vary_timing": True, "grounds": GROUNDS}
        folder = write_media_folder(tmp_path, num_clips=6, **settings)
        sound_command(folder, json=True)
        report = json.loads(capsys.readouterr().out)
        assert report["oracle"]["onset_f1"] == report["oracle"]["timbre"] == report["oracle"]["ambience"] == 1.0
        assert (report["num_clips"], report["chance"]["timbre"]) == (6, 0.2)
        sound_command(folder)
        assert "chance 20.0%" in capsys.readouterr().out

    @pytest.mark.parametrize("formats", [["wav"], ["mp4"]])
    def test_a_folder_of_predictions_is_judged_by_its_descriptions(self, tmp_path, capsys, formats):
        data = ToyWorldData(num_predict=4, batch_size=4, height=16, width=16, audio_hz=48000, vary_timing=True, grounds=["grey"])
        (batch,) = data.test_dataloader()
        writer = PredictionWriter(output=str(tmp_path), formats=formats)
        for i, key in enumerate(batch.keys):
            writer.write(Prediction(key, batch.captions[i], batch.video[i], 8.0, None, batch.audio[i], 48000, batch.metadata[i]))
        sound_command(tmp_path, json=True)
        assert json.loads(capsys.readouterr().out)["oracle"]["onset_f1"] == 1.0

    def test_what_is_missing_is_named(self, tmp_path):
        with pytest.raises(UsageError, match="no description of a sound"):
            sound_command(tmp_path)
        with pytest.raises(UsageError, match="no such file"):
            sound_command(tmp_path, ground_truth=tmp_path / "none.jsonl")
        (tmp_path / "a.json").write_text(json.dumps({"metadata": {}}))
        with pytest.raises(UsageError, match="1 of its 1 files are absent"):
            sound_command(tmp_path)
        (tmp_path / "a.wav").write_bytes(wav_bytes(torch.zeros(1, 100), HZ))
        with pytest.raises(UsageError, match="'scene' and 'events'"):
            sound_command(tmp_path)
        (tmp_path / "a.wav").write_bytes(b"no sound")
        (tmp_path / "a.json").write_text(json.dumps({"metadata": {"scene": SceneSpec(()).to_dict(), "events": []}}))
        with pytest.raises(UsageError, match=r"a\.wav was given; cannot be opened"):
            sound_command(tmp_path)
