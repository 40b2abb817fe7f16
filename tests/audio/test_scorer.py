"""Scorers, and the best of several candidates."""

import pytest
import torch

from moviegen_audio.candidates import Candidate, best_of, candidate_keys, checked_score
from moviegen_audio.scorer import OnsetSyncScorer, Scorer, motion_energy, onset_strength, per_frame
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError

HZ, FPS, NUM_FRAMES = 16000, 20.0, 40


def clicks(times_s, duration_s=2.0):
    audio = torch.zeros(1, 1, int(duration_s * HZ))
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0, 400) ** 2
    for time_s in times_s:
        start = int(time_s * HZ)
        audio[0, 0, start : start + 400] += 0.5 * noise[: audio.shape[2] - start]
    return audio


def flashes(frames):
    video = torch.full((1, 3, NUM_FRAMES, 8, 8), -1.0)
    for frame in frames:
        video[:, :, frame:] *= -1.0  # all pixels change at that frame
    return video


def batch(frames=(8, 21, 33), fps=FPS):
    return MediaBatch(captions=[""], keys=["k"], video=flashes(frames), fps=torch.tensor([fps]))


def test_onsets_are_where_the_clicks_are():
    (strength,), envelope_hz = onset_strength(clicks([0.4, 1.05]), HZ)
    peaks = (strength > 0.5 * strength.max()).nonzero().flatten() / envelope_hz
    assert all(min(abs(peak - time) for time in (0.4, 1.05)) < 0.05 for peak in peaks.tolist())
    assert any(abs(peak - 0.4) < 0.05 for peak in peaks.tolist()) and any(abs(peak - 1.05) < 0.05 for peak in peaks.tolist())


def test_motion_energy_is_where_pixels_change():
    assert motion_energy(flashes((8, 21)))[0].nonzero().flatten().tolist() == [8, 21]


def test_envelopes_are_summed_over_frames_of_each_rate():
    summed = per_frame(torch.ones(2, 100), 100.0, torch.tensor([10.0, 25.0]), 10)
    assert summed[0].tolist() == [10.0] * 10 and summed[1].tolist() == [4.0] * 10


def test_sounds_in_time_score_higher():
    scorer, told = OnsetSyncScorer(), batch()
    in_time = scorer.score(clicks([8 / FPS, 21 / FPS, 33 / FPS]), HZ, told)
    off = scorer.score(clicks([0.7, 1.3, 1.85]), HZ, told)
    assert in_time.shape == (1,) and in_time > 0.6 and off < 0.2
    assert scorer.score(torch.zeros(1, 1, 2 * HZ), HZ, told) == 0.0
    assert scorer.score(clicks([0.5]), HZ, batch(frames=())) == 0.0
    assert isinstance(scorer, Scorer)


def test_what_is_heard_at_one_end_is_not_shifted_into_the_other():
    """A click in the last frame is no sound of a motion in the first ones."""
    scorer, told = OnsetSyncScorer(max_lag=2), batch(frames=(1,))
    assert scorer.score(clicks([39.5 / FPS]), HZ, told) < 0.05 < 0.9 < scorer.score(clicks([1.5 / FPS]), HZ, told)


@pytest.mark.parametrize("audio_hz", [8000, 11025, 22050])
def test_onsets_late_in_a_long_sound_are_in_time_at_any_rate(audio_hz):
    """Where a hundredth of a second is no whole number of samples too."""
    audio = torch.zeros(1, 1, 30 * audio_hz)
    audio[..., 29 * audio_hz : 29 * audio_hz + audio_hz // 50] = 0.5
    strength, envelope_hz = onset_strength(audio, audio_hz)
    assert float(strength[0].argmax()) / envelope_hz == pytest.approx(29.0, abs=0.02)
    frames = per_frame(strength, envelope_hz, torch.tensor([50.0]), 1500)
    assert frames[0, 1448:1452].sum() > 0.4 * frames.sum()


def test_no_video_is_refused():
    with pytest.raises(UsageError, match="OnsetSyncScorer"):
        OnsetSyncScorer().score(clicks([0.5]), HZ, MediaBatch(captions=["a"], keys=["k"]))


def test_the_best_of_each_sample_is_kept():
    made = [Candidate(torch.full((3, 2, 4), float(number)), torch.full((3, 1, 8), float(number))) for number in range(4)]
    known = torch.tensor([[0.1, 0.5, 0.5, 0.2], [9.0, 1.0, 2.0, 3.0], [-4.0, -3.0, -2.0, -1.0]])
    best = best_of(iter(made), lambda audio: known[:, int(audio[0, 0, 0])])
    assert best.audio[:, 0, 0].tolist() == best.latents[:, 0, 0].tolist() == [1.0, 0.0, 3.0]
    assert torch.equal(best.scores, known)


def test_keys_of_candidates():
    assert candidate_keys(["a", "b"], 0) == ["a", "b"]
    assert len({key for number in range(8) for key in candidate_keys(["a", "b"], number)}) == 16


@pytest.mark.parametrize("scores", [torch.tensor([float("nan")]), torch.zeros(2), torch.zeros(1, 1)])
def test_scores_that_are_none_are_refused(scores):
    class Odd:
        def score(self, audio, audio_hz, batch):
            return scores

    with pytest.raises(UsageError, match="Odd gave scores of shape"):
        checked_score(Odd(), torch.zeros(1, 1, 8), HZ, batch())
