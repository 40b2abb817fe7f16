"""Figures of a sound, against closed forms and other people's code."""

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from moviegen_core.errors import UsageError
from moviegen_eval import boundary_flux, clipping_share, level_range, log_mel_distance, si_sdr
from moviegen_eval.audio_metrics import mel_bands

HZ = 16000


def noise(seconds=4.0, seed=0):
    return 0.1 * torch.randn(round(seconds * HZ), generator=torch.Generator().manual_seed(seed))


class TestAgainstAReference:
    @pytest.mark.parametrize(("hz", "bands", "window"), [(16000, 40, 1024), (48000, 80, 2048)])
    def test_mel_bands_are_those_of_transformers(self, hz, bands, window):
        theirs = mel_filter_bank(window // 2 + 1, bands, 0.0, hz / 2, hz, norm=None, mel_scale="htk")
        np.testing.assert_allclose(mel_bands(hz, bands, window).numpy().T, theirs, atol=1e-5)

    def test_log_mel_distance_of_a_gain_is_the_gain(self):
        sound = noise()
        assert log_mel_distance(sound, sound, audio_hz=HZ) == 0.0
        assert log_mel_distance(0.5 * sound, sound, audio_hz=HZ) == pytest.approx(20 * np.log10(2), abs=1e-3)
        assert log_mel_distance(-sound, sound, audio_hz=HZ) == pytest.approx(0.0, abs=1e-3)
        stereo = torch.stack([sound, sound])
        changed = torch.stack([sound, 0.5 * sound])
        assert log_mel_distance(changed, stereo, audio_hz=HZ) == pytest.approx(10 * np.log10(2), abs=1e-3)

    def test_two_draws_of_one_noise_are_nearer_than_two_noises(self):
        low = torch.from_numpy(np.convolve(noise(seed=1), np.ones(8) / 8, "same"))
        assert log_mel_distance(noise(seed=1), noise(seed=2), audio_hz=HZ) < 0.7 * log_mel_distance(low, noise(seed=2), audio_hz=HZ)

    def test_silence_against_silence_is_no_distance(self):
        assert log_mel_distance(torch.zeros(100), torch.zeros(100), audio_hz=HZ) == 0.0

    def test_si_sdr_of_known_noise(self):
        sound, other = noise(seed=1), noise(seed=2)
        # What is orthogonal to the sound, a tenth of its amplitude: 20 dB, whatever the scale.
        other = other - (other @ sound) / (sound @ sound) * sound
        other = other * sound.norm() / other.norm()
        assert si_sdr(3.0 * (sound + 0.1 * other), sound) == pytest.approx(20.0, abs=1e-2)
        assert si_sdr(torch.stack([sound + 0.1 * other, sound + other]), torch.stack([sound, sound])) == pytest.approx(10.0, abs=1e-2)

    def test_lengths_must_agree(self):
        for figure in (si_sdr, lambda a, b: log_mel_distance(a, b, audio_hz=HZ)):
            with pytest.raises(UsageError, match="shorter one"):
                figure(torch.zeros(10), torch.zeros(11))


class TestBoundaries:
    def test_a_seamless_sound_is_smooth_everywhere_and_a_cut_is_not(self):
        times = torch.arange(4 * HZ) / HZ
        tone = 0.3 * torch.sin(2 * np.pi * 500 * times) + 0.05 * noise()
        stitched = tone.clone()
        stitched[2 * HZ :] = (0.3 * torch.sin(2 * np.pi * 830 * times) + 0.05 * noise(seed=5))[2 * HZ :]
        assert boundary_flux(tone, HZ, [1.0, 2.0]) < 4.0
        assert boundary_flux(stitched, HZ, [2.0]) > 10.0
        assert boundary_flux(stitched, HZ, [1.0, 3.0]) < 4.0

    def test_a_cross_fade_is_smoother_than_a_cut(self):
        first, second = noise(seed=1), torch.from_numpy(np.convolve(noise(seed=2), np.ones(24) / 6, "same")).float()
        cut = torch.cat([first[: 2 * HZ], second[2 * HZ :]])
        ramp = ((torch.arange(4 * HZ) / HZ - 1.5) / 1.0).clamp(0, 1)
        faded = (1 - ramp).sqrt() * first + ramp.sqrt() * second
        assert boundary_flux(faded, HZ, [2.0]) < boundary_flux(cut, HZ, [2.0])

    @pytest.mark.parametrize("boundaries", [[], [9.0], [-1.0]])
    def test_boundaries_outside_are_refused(self, boundaries):
        with pytest.raises(UsageError, match="segments were joined"):
            boundary_flux(noise(), HZ, boundaries)


class TestLevels:
    def test_a_steady_sound_has_no_range_and_a_step_has_its_height(self):
        tone = 0.5 * torch.sin(2 * np.pi * 440 * torch.arange(40 * HZ) / HZ)
        assert level_range(tone, HZ) == pytest.approx(0.0, abs=0.05)
        step = torch.cat([tone, 10 ** (-12 / 20) * tone])
        assert level_range(step, HZ) == pytest.approx(12.0, abs=0.1)
        assert level_range(torch.stack([step, step]), HZ) == pytest.approx(12.0, abs=0.1)

    def test_silence_and_what_is_far_below_do_not_count(self):
        tone = 0.5 * torch.sin(2 * np.pi * 440 * torch.arange(40 * HZ) / HZ)
        assert level_range(torch.cat([tone, 0.001 * tone]), HZ) < 3.0
        assert level_range(torch.zeros(10 * HZ), HZ) == 0.0
        assert level_range(tone[:HZ], HZ) == 0.0

    def test_clipping_is_of_runs_at_the_ceiling(self):
        tone = torch.sin(2 * np.pi * 100 * torch.arange(HZ) / HZ)
        assert clipping_share(0.99 * tone) == 0.0
        # sin x > 1 / 2 for two thirds of the time, in both directions.
        assert clipping_share((2.0 * tone).clamp(-1, 1)) == pytest.approx(2 / 3, abs=0.01)
        assert clipping_share(torch.tensor([0.0, 1.0, 0.0, -1.0, 1.0, 0.0])) == 0.0
        assert clipping_share(torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])) == 0.25
        assert clipping_share(torch.zeros(0)) == 0.0
