"""Onsets: matching in closed form, detection of attacks that are known, and of none where there is none."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import signal

from moviegen_core.errors import UsageError
from moviegen_data.audio import read_audio
from moviegen_eval import OnsetScore, detect_onsets, onset_f1
from moviegen_eval.hearing_score import blind_onset_f1
from moviegen_eval.onsets import match_onsets
from moviegen_eval.waveforms import as_waveform

HZ = 48000


class TestMatching:
    @pytest.mark.parametrize(
        ("reference", "estimate", "matched"),
        [
            ([], [], 0),
            ([1.0], [], 0),
            ([], [1.0], 0),
            ([1.0], [1.04], 1),
            ([1.0], [1.0401], 0),
            ([1.0], [0.98, 1.01], 1),
            # Nearest first would pair 1.03 with 1.04 and leave two alone.
            ([1.00, 1.04], [1.03, 1.07], 2),
            ([1.00, 1.04], [0.97, 1.01], 2),
            ([0.0, 1.0, 2.0], [2.01, 0.99], 2),
        ],
    )
    def test_closed_forms(self, reference, estimate, matched):
        score = onset_f1(reference, estimate)
        assert (score.num_matched, score.num_reference, score.num_estimate) == (matched, len(reference), len(estimate))
        total = len(reference) + len(estimate)
        assert score.f1 == (2 * matched / total if total else 1.0)

    def test_the_matching_is_the_best_of_all(self):
        rng = np.random.default_rng(0)
        for _ in range(60):
            reference, estimate = sorted(rng.uniform(0, 0.3, 4)), list(rng.uniform(0, 0.3, 5))
            best = max(
                sum(abs(a - b) <= 0.04 for a, b in zip(reference, order, strict=True)) for order in permutations(estimate, len(reference))
            )
            pairs = match_onsets(reference, estimate)
            assert len(pairs) == best == onset_f1(estimate, reference).num_matched
            assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == best
            assert all(abs(reference[i] - estimate[j]) <= 0.04 + 1e-9 for i, j in pairs)

    def test_scores_of_clips_add_up(self):
        total = onset_f1([0.1], [0.1]) + onset_f1([0.5, 1.0], [0.5]) + onset_f1([], [0.3])
        assert total == OnsetScore(2, 3, 3)
        assert (total.precision, total.recall, total.f1) == (2 / 3, 2 / 3, 2 / 3)
        assert (OnsetScore(0, 0, 0).precision, OnsetScore(0, 0, 0).recall) == (1.0, 1.0)

    def test_a_negative_tolerance_is_refused(self):
        with pytest.raises(UsageError, match="give 0.04"):
            onset_f1([1.0], [1.0], tolerance_s=-1)

    def test_a_blind_guess_is_counted_in_every_clip(self):
        # Right in two clips of four, one of them silent: 2 · 2 / (4 onsets + 4 guesses).
        clips = [[1.0], [1.03, 2.0], [0.5], []]
        assert blind_onset_f1(clips) == blind_onset_f1(clips, guess_s=1.0) == 0.5
        assert blind_onset_f1(clips, guess_s=3.0) == 0.0
        assert blind_onset_f1([[], []]) == 1.0


def attacks(times_s, duration_s=3.0, hz=HZ, pitch=700.0, decay_s=0.05):
    times = np.arange(round(duration_s * hz)) / hz
    since = times - np.array(times_s)[:, None]
    return 0.5 * np.where(since >= 0, np.exp(-np.maximum(since, 0) / decay_s) * np.sin(2 * np.pi * pitch * since), 0.0).sum(0)


class TestDetection:
    times = [0.0333, 0.5, 0.613, 1.25, 2.9]

    @pytest.mark.parametrize("hz", [8000, 16000, 22050, 44100, 48000])
    def test_sharp_attacks_are_found_to_a_few_milliseconds(self, hz):
        found = detect_onsets(attacks(self.times, hz=hz), hz)
        assert len(found) == len(self.times)
        np.testing.assert_allclose(found, self.times, atol=0.006)

    @pytest.mark.parametrize("gain", [1.9, 1e-2])
    def test_loudness_changes_nothing(self, gain):
        np.testing.assert_allclose(detect_onsets(gain * attacks(self.times), HZ), self.times, atol=0.006)

    def test_attacks_stand_out_of_steady_sounds(self):
        rng = np.random.default_rng(0)
        sound = attacks(self.times) + 0.01 * rng.normal(size=3 * HZ) + 0.2 * np.sin(2 * np.pi * 90 * np.arange(3 * HZ) / HZ)
        np.testing.assert_allclose(detect_onsets(sound, HZ), self.times, atol=0.015)

    @pytest.mark.parametrize("form", ["stereo", "tensor", "int16", "bfloat16"])
    def test_all_forms_are_heard_alike(self, form):
        mono = attacks(self.times)
        sound = {
            "stereo": np.stack([mono, 0.5 * mono]),
            "tensor": torch.from_numpy(mono)[None],
            "int16": (mono * 32767).astype(np.int16),
            "bfloat16": torch.from_numpy(mono).bfloat16(),
        }[form]
        np.testing.assert_allclose(detect_onsets(sound, HZ), self.times, atol=0.006)

    def test_steady_sounds_and_silence_have_none(self):
        rng, times = np.random.default_rng(1), np.arange(3 * HZ) / HZ
        swelling = 0.3 * rng.normal(size=3 * HZ) * (0.6 + 0.4 * np.sin(2 * np.pi * times))
        glide = 0.5 * signal.chirp(times, 200, 3.0, 3000, method="logarithmic")
        steady = [0.3 * rng.normal(size=3 * HZ), swelling, 0.5 * np.sin(2 * np.pi * 440 * times), glide, np.zeros(3 * HZ)]
        steady += [np.full(3 * HZ, 0.5), np.zeros(10), np.zeros(0), np.full(1, 0.5)]
        assert [detect_onsets(sound, HZ) for sound in steady] == [[]] * len(steady)

    def test_a_sound_that_is_cut_off_begins_nothing(self):
        sound = 0.3 * np.random.default_rng(2).normal(size=2 * HZ)
        sound[HZ:] = 0
        assert detect_onsets(sound, HZ) == []

    def test_of_two_that_are_too_near_the_stronger_counts(self):
        sound = 0.1 * attacks([1.0]) + attacks([1.05])
        (found,) = detect_onsets(sound, HZ, gap_s=0.1)
        assert found == pytest.approx(1.05, abs=0.01) or found == pytest.approx(1.0, abs=0.01)
        assert len(detect_onsets(attacks([1.0, 1.1]), HZ, gap_s=0.05)) == 2

    def test_the_threshold_and_the_band_are_honoured(self):
        rng = np.random.default_rng(3)
        faint = 0.1 * rng.normal(size=3 * HZ) + 0.35 * attacks([1.5])
        assert detect_onsets(faint, HZ, threshold=0.7) and not detect_onsets(faint, HZ, threshold=6.0)
        low = attacks([1.0], pitch=150.0, decay_s=0.3) * np.minimum(np.maximum(np.arange(3 * HZ) / HZ - 1.0, 0) / 0.02, 1.0)
        assert len(detect_onsets(low, HZ)) == 1
        assert detect_onsets(low, HZ, low_hz=1500.0, threshold=4.0) == []

    def test_what_is_no_sound_is_refused(self):
        with pytest.raises(UsageError, match="move the axes"):
            detect_onsets(np.zeros((48000, 2)), HZ)
        with pytest.raises(UsageError, match="resample it"):
            detect_onsets(np.zeros(100), 100)
        with pytest.raises(UsageError, match="NaN or infinite"):
            detect_onsets(np.append(np.zeros(HZ), np.nan), HZ)


def test_resampling_keeps_time_and_level():
    times = np.arange(HZ) / HZ
    wave = as_waveform(np.sin(2 * np.pi * 1000 * times), HZ)
    np.testing.assert_allclose(wave[100:-100], np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)[100:-100], atol=1e-3)


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "threshold", "least", "most"),
    [("hammer_anvil_640x360.mp4", 3.0, 4, 4), ("congas_cut_640x360.mp4", 3.0, 45, 75), ("drummer_204x360_36s.mp4", 1.5, 70, 300)],
    ids=["anvil", "congas", "dense"],
)
def test_real_strikes_are_found(media, name, threshold, least, most):
    sound = read_audio(media / "video" / name)
    assert least <= len(detect_onsets(sound.audio, sound.audio_hz, threshold=threshold)) <= most
