"""Sounds of the toy world: what is heard, when, how it sounds, in words, in batches and in files."""

import csv
import hashlib
import json
from itertools import combinations as pairs_of
from itertools import product

import numpy as np
import pytest
import torch
from scipy import signal

from moviegen_core.errors import UsageError
from moviegen_core.media.video import read_video
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
    hears,
    is_held_out,
    knock,
    render,
    render_scenes,
    render_sound,
    sample_scene,
    sound_caption,
    write_media_folder,
)
from moviegen_data.toyworld.captions import SHAPE_WORDS
from moviegen_data.toyworld.media import encode_sample
from moviegen_data.toyworld.sound import KNOCK_PEAK
from moviegen_data.toyworld.sound_captions import AMBIENCE_WORDS, TIMBRE_WORDS
from moviegen_data.toyworld.tracks import trace
from moviegen_data.toyworld.world import World


class TestTiming:
    def test_default_scenes_and_pixels_are_what_they_always_were(self):
        """Digests taken before scenes had a timing and a sound."""
        kinds = {
            "dde3ca2e18d0dcdb": ({}, {}),
            "41af22f680707c96": (
                {"num_objects": 2, "grounds": GROUNDS, "text_probability": 0.5},
                {"num_frames": 33, "height": 48, "width": 64},
            ),
            "aba88c0c37533cd7": ({"grounds": GROUNDS}, {"num_frames": 1}),
            "da3fdf241def1fbd": ({"spread": 0.2, "split": "held_out"}, {"num_frames": 24, "fps": 12.0, "height": 32, "width": 32}),
        }
        for expected, (drawing, form) in kinds.items():
            digest = hashlib.sha256()
            for seed in range(40):
                clip = render(sample_scene(seed, **drawing), **form)
                for part in (clip.video, clip.masks, clip.track):
                    digest.update(part.tobytes())
                digest.update(clip.caption.encode())
                digest.update(json.dumps([[event.kind, event.time_s.hex(), event.object_index] for event in clip.events]).encode())
            assert digest.hexdigest()[:16] == expected

    def test_timing_and_music_change_nothing_else(self):
        for seed in range(40):
            usual = sample_scene(seed, num_objects=2, grounds=GROUNDS, text_probability=0.5)
            varied = sample_scene(seed, num_objects=2, grounds=GROUNDS, text_probability=0.5, vary_timing=True, music=0.5)
            for before, after in zip(usual.objects, varied.objects, strict=True):
                assert {**vars(after), "phase": 0.0, "pace": 1.0, "arrival": 1.0} == vars(before)
            assert {**vars(varied), "objects": usual.objects, "music": False} == vars(usual)
            assert SceneSpec.from_dict(json.loads(json.dumps(varied.to_dict()))) == varied
        assert sample_scene(3, vary_timing=True, music=1.0).objects == sample_scene(3, vary_timing=True).objects

    @pytest.mark.parametrize("motion", ["left", "right", "up", "down", "bounce"])
    def test_events_are_where_the_motion_has_them_to_a_millisecond(self, motion):
        for seed in range(12):
            spec = sample_scene(seed, vary_timing=True, combination=("circle", "red", motion))
            events = find_events(spec, num_frames=33, fps=8.0)
            moments = np.linspace(0.0, 1.0, 40001)  # a tenth of a millisecond
            way = trace(spec.objects[0], moments, bounces=2)[:, :2].sum(1)
            if motion == "bounce":
                found = signal.argrelmax(way)[0]
            else:
                found = [np.flatnonzero(way != way[-1])[-1] + 1]
            assert [event.kind for event in events] == ["bounce" if motion == "bounce" else "contact"] * len(found)
            np.testing.assert_allclose([event.time_s for event in events], moments[found] * 4.0, atol=5e-4)

    def test_clips_show_the_events(self):
        spec = sample_scene(5, vary_timing=True, combination=("ring", "blue", "left"))
        clip = render(spec, num_frames=401, fps=100.0)
        (event,) = clip.events
        rests = np.ptp(clip.track[0, int(np.ceil(event.time_s * 100)) :, 0])
        assert rests < 1e-3 < abs(np.diff(clip.track[0, : int(event.time_s * 100), 0])).min()

    def test_nothing_is_heard_of_what_grows_or_rests_or_never_arrives(self):
        for motion in ("grow", "still"):
            assert not render(sample_scene(1, vary_timing=True, combination=("cross", "red", motion))).events
        assert not render(sample_scene(1, combination=("cross", "red", "up"))).events
        assert not render(sample_scene(1, vary_timing=True, combination=("cross", "red", "up")), num_frames=1).events

    def test_two_objects_keep_apart_in_place_and_in_time(self):
        for seed in range(40):
            clip = render(sample_scene(seed, vary_timing=True, num_objects=2), num_frames=31)
            assert not (clip.masks[0] & clip.masks[1]).any()
            assert all(abs(a.time_s - b.time_s) > 0.2 for a, b in pairs_of(clip.events, 2) if a.object_index != b.object_index)

    def test_a_scene_that_was_too_crowded_finds_room(self):
        assert len(sample_scene(1355, num_objects=2).objects) == 2

    @pytest.mark.parametrize(
        "timing", [{"phase": 1.5}, {"pace": 0.0}, {"arrival": 0.0}, {"arrival": float("nan")}, {"phase": float("nan")}]
    )
    def test_impossible_timings_are_refused(self, timing):
        with pytest.raises(UsageError, match="give numbers in these ranges"):
            ObjectSpec("circle", "red", **timing)


class TestWaveform:
    @pytest.mark.parametrize("audio_hz", [16000, 44100, 48000])
    def test_length_peak_and_determinism(self, audio_hz):
        spec = sample_scene(3, vary_timing=True, num_objects=2, grounds=["checker"], music=1.0)
        clip = render(spec, num_frames=17, fps=7.3, height=8, width=8, audio_hz=audio_hz)
        assert clip.audio.shape == (1, round(17 / 7.3 * audio_hz))
        assert clip.audio.dtype == np.float32
        assert clip.audio_hz == audio_hz
        assert 0.1 < abs(clip.audio).max() < 1.0
        assert np.array_equal(clip.audio, render(spec, num_frames=17, fps=7.3, height=8, width=8, audio_hz=audio_hz).audio)

    def test_none_is_rendered_unless_asked_for(self):
        clip = render(sample_scene(0))
        assert (clip.audio, clip.audio_hz) == (None, None)
        with pytest.raises(UsageError, match="give 48000"):
            render(sample_scene(0), audio_hz=100)

    def test_many_knocks_at_once_do_not_clip(self):
        spec = SceneSpec(tuple(ObjectSpec(shape, "red", "small") for shape in SHAPES), music=True)
        sound = render_sound(spec, [Event("contact", 0.5, index) for index in range(5)], num_samples=48000)
        assert 0.9 < abs(sound).max() < 1.0

    @pytest.mark.parametrize(("shape", "size"), list(product(SHAPES, SIZES)))
    def test_a_knock_is_sharp_short_low_passed_and_not_too_loud(self, shape, size):
        sound = knock(shape, size)
        level = abs(sound) / abs(sound).max()
        assert abs(sound).max() <= 1.05
        assert np.flatnonzero(level > 0.5)[0] < 48 * 5
        assert 48 * 80 < np.flatnonzero(level > 0.01)[-1] < 48 * 250
        power = abs(np.fft.rfft(sound, 48000)) ** 2
        assert power[8000:].sum() < 1e-3 * power.sum()
        assert power[:400].sum() < 0.02 * power.sum()

    @pytest.mark.parametrize("shape", ["circle", "square", "triangle"])
    def test_small_is_an_octave_above_large(self, shape):
        lowest = {}
        for size in SIZES:
            spectrum = abs(np.fft.rfft(knock(shape, size), 48000))
            lowest[size] = signal.find_peaks(spectrum, height=0.3 * spectrum.max())[0][0]
        assert lowest["small"] == pytest.approx(2 * lowest["large"], rel=0.02)

    def test_no_two_knocks_sound_alike(self):
        spectra = {}
        for shape, size in product(SHAPES, SIZES):
            _, _, power = signal.stft(knock(shape, size), 48000, nperseg=1024)
            spectra[shape, size] = np.sqrt(abs(power[:171])).ravel()
        for a, b in pairs_of(spectra, 2):
            cosine = (spectra[a] * spectra[b]).sum() / np.linalg.norm(spectra[a]) / np.linalg.norm(spectra[b])
            assert cosine < 0.8, (a, b)

    def test_an_event_sounds_at_its_time_whatever_the_rate(self):
        """Half a sample later, half a sample later: the same tone at 16 and 48 kHz, where both have a sample."""
        spec = SceneSpec((ObjectSpec("circle", "red"),))
        for time_s in (0.1, 0.1 + 0.5 / 48000, 0.1 + 0.3 / 16000):
            event = [Event("contact", time_s, 0)]
            low, high = (render_sound(spec, event, num_samples=hz // 2, audio_hz=hz)[0] for hz in (16000, 48000))
            np.testing.assert_allclose(high[::3], low, atol=1e-6)

    @pytest.mark.parametrize("ground", GROUNDS)
    def test_ambience_is_quiet_and_the_same_at_any_rate(self, ground):
        spec = SceneSpec((), GroundSpec(ground), seed=4)
        low, high = (render_sound(spec, [], num_samples=2 * hz, audio_hz=hz)[0] for hz in (16000, 48000))
        np.testing.assert_allclose(high[::3], low, atol=1e-5)
        if AMBIENCES[ground] == "silence":
            assert not high.any()
        else:
            assert -46 < 10 * np.log10((high**2).mean()) < -38

    def test_music_is_soft_and_keeps_below_the_knocks(self):
        spec = SceneSpec((), seed=4, music=True)
        sound = render_sound(spec, [], num_samples=8 * 48000)[0]
        power = abs(np.fft.rfft(sound)) ** 2
        hz = np.fft.rfftfreq(len(sound), 1 / 48000)
        assert power[(hz > 120) & (hz < 345)].sum() > 0.999 * power.sum()
        assert 0.03 < abs(sound).max() < 0.06
        other = render_sound(SceneSpec((), seed=5, music=True), [], num_samples=8 * 48000)[0]
        assert not np.allclose(sound, other)

    @pytest.mark.parametrize("num_samples", [0, 1, 100])
    def test_a_sound_of_hardly_any_length_is_rendered(self, num_samples):
        spec = SceneSpec((ObjectSpec("circle", "red"),), GroundSpec("white"), music=True)
        assert render_sound(spec, [Event("bounce", 0.0, 0), Event("bounce", 9.0, 0)], num_samples=num_samples).shape == (1, num_samples)


class TestWords:
    def test_every_phrasing_tells_the_timbre_and_no_other(self):
        own = {TIMBRES[shape]: set(SHAPE_WORDS[shape]) for shape in SHAPES}
        for timbre, forms in TIMBRE_WORDS.items():
            own[timbre] |= {phrase.split("{}")[-1].strip() for pair in forms for phrase in pair}
        texts = set()
        for seed, shape in product(range(60), SHAPES):
            spec = sample_scene(seed, vary_timing=True, combination=(shape, "red", ("bounce", "left", "up")[seed % 3]), grounds=GROUNDS)
            text = sound_caption(spec)
            texts.add(text)
            named = {timbre for timbre, words in own.items() if any(word in text for word in words)}
            assert named == {TIMBRES[shape]}, text
            assert "red" not in text.split()
        assert len(texts) > 250

    def test_silent_scenes_tell_their_ambience_alone(self):
        for seed, ground in product(range(20), GROUNDS):
            spec = sample_scene(seed, combination=("square", "red", "grow"), grounds=[ground])
            assert any(word in sound_caption(spec) for word in AMBIENCE_WORDS[AMBIENCES[ground]])
            assert "square" not in sound_caption(spec)

    def test_both_of_two_sounds_are_told(self):
        items = (ObjectSpec("circle", "red", motion="bounce"), ObjectSpec("cross", "blue", motion="left", arrival=0.5))
        for phrasing in range(40):
            text = sound_caption(SceneSpec(items), phrasing=phrasing)
            assert any(word in text for word in ("bell", "circle", "disc"))
            assert any(word in text for word in ("noise", "static", "cross", "plus sign"))

    def test_facts_are_those_of_the_papers_captions(self):
        quiet, tuneful = (hears(sample_scene(2, vary_timing=True, music=music)) for music in (0.0, 1.0))
        assert (quiet.quality, quiet.music_likelihood) == (7.0, 0.01)
        assert (tuneful.quality, tuneful.music_likelihood) == (8.0, 0.90)
        assert not (quiet.speech or quiet.singing)
        assert quiet.music_description and tuneful.description.startswith(quiet.description)


class TestBatches:
    settings = {"num_train": 8, "num_val": 4, "num_predict": 6, "batch_size": 2, "num_frames": 9, "fps": 7.0, "height": 16, "width": 16}

    def test_sound_comes_with_the_pixels_it_belongs_to(self):
        data = ToyWorldData(**self.settings, audio_hz=48000, vary_timing=True, music=0.5, grounds=list(GROUNDS))
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            batch = next(iter(loader))
            assert batch.audio.shape == (2, 1, round(9 / 7 * 48000))
            assert (batch.audio.dtype, batch.audio_hz) == (torch.float32, 48000)
            for sound, item in zip(batch.audio, batch.metadata, strict=True):
                clip = render(SceneSpec.from_dict(item["scene"]), num_frames=9, fps=7.0, audio_hz=48000)
                assert np.array_equal(sound.numpy(), clip.audio)
                assert [Event(**event) for event in item["events"]] == clip.events
                assert (item["audio_hz"], item["audio_samples"]) == (48000, clip.audio.shape[1])
                assert item["sound"]["description"] == sound_caption(clip.spec)

    def test_music_and_timing_are_drawn_as_often_as_asked(self):
        data = ToyWorldData(**{**self.settings, "num_train": 200, "batch_size": 100}, audio_hz=4000, music=0.3, vary_timing=True)
        scenes = [SceneSpec.from_dict(item["scene"]) for batch in data.train_dataloader() for item in batch.metadata]
        assert 0.2 < np.mean([scene.music for scene in scenes]) < 0.4
        assert np.mean([scene.objects[0].arrival < 1 or scene.objects[0].pace != 1 for scene in scenes]) > 0.5

    def test_no_sound_unless_asked_for(self):
        batch = next(iter(ToyWorldData(**self.settings).train_dataloader()))
        assert (batch.audio, batch.audio_hz) == (None, None)
        assert "audio_hz" not in batch.metadata[0]

    def test_pictures_are_silent(self):
        batches = list(ToyWorldData(**self.settings, audio_hz=8000, image_every=2).train_dataloader())
        assert [(batch.is_image, batch.audio is None) for batch in batches] == [(False, False), (True, True)] * 2

    @pytest.mark.parametrize(("predict_with", "has_video"), [("prompts", False), ("video", True)])
    def test_prediction_withholds_the_sound_and_keeps_the_truth(self, predict_with, has_video):
        data = ToyWorldData(**self.settings, audio_hz=48000, vary_timing=True, predict_with=predict_with, captions="sound")
        keys = []
        for batch in data.predict_dataloader():
            assert batch.audio is None and batch.audio_hz == 48000
            assert (batch.video is not None) == has_video
            keys += batch.keys
            for caption, item in zip(batch.captions, batch.metadata, strict=True):
                scene = SceneSpec.from_dict(item["scene"])
                assert is_held_out(*scene.objects[0].combination)
                assert caption == sound_caption(scene)
                assert [Event(**event) for event in item["events"]] == find_events(scene, num_frames=9, fps=7.0)
        assert len(set(keys)) == 6

    def test_impossible_settings_are_refused_at_once(self):
        with pytest.raises(UsageError, match="give 48000"):
            ToyWorldData(audio_hz=10)
        with pytest.raises(UsageError, match="music=2"):
            ToyWorldData(music=2.0)


class TestFiles:
    def test_a_folder_has_sound_in_time_with_the_truth(self, tmp_path):
        settings = {"num_frames": 16, "height": 16, "width": 16, "audio_hz": 48000, "vary_timing": True}
        folder = write_media_folder(tmp_path, num_clips=4, **settings)
        truths = [json.loads(line) for line in (folder / "ground_truth.jsonl").read_text().splitlines()]
        with (folder / "captions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for truth, row, (key, clip) in zip(truths, rows, render_scenes(4, **settings), strict=True):
            decoded = read_video(folder / truth["file"])
            assert (truth["file"], decoded.audio_hz) == (f"{key}.mp4", 48000)
            assert row["sound_caption"] == sound_caption(clip.spec)
            assert [Event(**event) for event in truth["events"]] == clip.events
            length = clip.audio.shape[1]
            assert length <= decoded.audio.shape[1] < length + 2048
            if clip.events:
                lags = signal.correlate(decoded.audio[0, :length].numpy(), clip.audio[0], "full", "fft")
                assert abs(lags.argmax() - (length - 1)) <= 48

    def test_a_shards_sample_has_sound_where_the_clip_has(self, tmp_path):
        for audio_hz in (None, 16000):
            parts = encode_sample(render(sample_scene(1, vary_timing=True), height=16, width=16, audio_hz=audio_hz))
            path = tmp_path / f"{audio_hz}.mp4"
            path.write_bytes(parts["mp4"])
            assert read_video(path).audio_hz == audio_hz
            assert parts["json"].get("audio_hz") == audio_hz


# -- knocks on a grid --------------------------------------------------------------------------------------------------------------


def test_knocks_on_a_grid_sound_alike_and_events_stay():
    free, on_grid = (World(vary_timing=True, grounds=["black"], audio_hz=16000, knock_grid_hz=grid) for grid in (None, 25.0))
    for index in range(12):
        clip, moved = free.clip("train", index), on_grid.clip("train", index)
        assert moved.events == clip.events, "what is seen does not move"
        for event in clip.events:
            first, item = round(event.time_s * 25) * 640, clip.spec.objects[event.object_index]
            heard = moved.audio[0, first : first + 640]
            np.testing.assert_allclose(heard, KNOCK_PEAK * knock(item.shape, item.size, audio_hz=16000)[: len(heard)], atol=1e-6)
            assert not moved.audio[0, :first].any()
        assert len(clip.events) <= 1, "or the silence before the second would not be silent"


@pytest.mark.parametrize("given", [{"knock_grid_hz": 0.0}, {"knock_grid_hz": float("nan")}, {"knock_grid_hz": 25.0, "audio_hz": None}])
def test_a_grid_that_is_none_is_refused(given):
    settings = {"audio_hz": 16000} | given
    with pytest.raises(UsageError, match="knock_grid_hz"):
        World(**settings).check()
    with pytest.raises(UsageError, match="knock_grid_hz"):
        next(render_scenes(1, **settings))
