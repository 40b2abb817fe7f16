"""Segment-level beam search (6.1.5) against trying everything."""

import itertools

import pytest
import torch

from moviegen_audio import Continuity, DecodedScorer, SegmentAutoregressive, SegmentBeamSearch, SegmentScorer
from moviegen_audio.beam import _redrawn
from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow.windows import Window

CUT = {"window": 6, "hop": 4, "steps": 3, "guidance_scale": 1.0, "context": False}


def field(x, t, conditioning):
    return torch.sin(3 * x) - 0.5 * x.mean(2, keepdim=True) + 0.3 * x.roll(1, dims=2)


class Known(SegmentScorer):
    """A fixed linear functional of all frames: it has no reason to be the same along a greedy path and along the best one."""

    def __init__(self, length):
        self.weights = torch.randn(length, generator=torch.Generator().manual_seed(3))

    def __call__(self, latents, window):
        assert latents.shape[2] == window.stop
        return (latents * self.weights[: window.stop]).sum((1, 2))


def every_path(noise, num_candidates, trajectory):
    """All samples that any choice of candidates gives (p, b, c, t)."""
    sampler = SegmentBeamSearch(trajectory=trajectory, **CUT)
    windows = sampler.segments(noise.shape[2])
    paths = []
    for choice in itertools.product(range(num_candidates), repeat=len(windows)):
        stops = [0, *(window.stop for window in windows)]
        parts = zip(stops[:-1], stops[1:], choice, strict=True)
        chosen = torch.cat([_redrawn(noise[:, :, a:b], index, candidate) for index, (a, b, candidate) in enumerate(parts)], dim=2)
        paths.append(SegmentAutoregressive(trajectory=trajectory, **CUT).sample(field, chosen, [Conditioning()]))
    return torch.stack(paths)


@pytest.mark.parametrize("trajectory", [True, False])
def test_a_wide_beam_finds_the_best_path_of_all_for_every_sample(trajectory):
    noise, scorer = torch.randn(3, 2, 11, generator=torch.Generator().manual_seed(0)), Known(11)
    paths = every_path(noise, 2, trajectory)
    scores = torch.stack([scorer(path, Window(0, 11)) for path in paths])
    best = paths[scores.argmax(0), torch.arange(3)]
    sampler = SegmentBeamSearch(num_candidates=2, beam_width=8, scorer=scorer, trajectory=trajectory, **CUT)
    torch.testing.assert_close(sampler.sample(field, noise, [Conditioning()]), best)
    assert scores.argmax(0).unique().numel() > 1, "all samples chose alike; the test sees too little"


def test_a_beam_of_one_is_greedy():
    noise, scorer = torch.randn(1, 2, 8), Known(8)
    first = [SegmentAutoregressive(**CUT).sample(field, _redrawn(noise[:, :, :4], 0, k), [Conditioning()]) for k in range(3)]
    best = max(first, key=lambda latents: scorer(latents, Window(0, 4)).item())
    second = [SegmentAutoregressive(**CUT).sample(field, _redrawn(noise[:, :, 4:], 1, k), [Conditioning()]) for k in range(3)]
    paths = [torch.cat([best, latents], dim=2) for latents in second]
    sampler = SegmentBeamSearch(num_candidates=3, beam_width=1, scorer=scorer, **CUT)
    expected = max(paths, key=lambda latents: scorer(latents, Window(4, 8)).item())
    torch.testing.assert_close(sampler.sample(field, noise, [Conditioning()]), expected)


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("trajectory", [True, False])
def test_one_candidate_is_autoregression(context, trajectory):
    noise, options = torch.randn(2, 3, 13), {**CUT, "context": context, "trajectory": trajectory}
    told = [Conditioning(channels=torch.zeros_like(noise))]
    beam = SegmentBeamSearch(num_candidates=1, beam_width=3, **options).sample(field, noise, told)
    assert torch.equal(beam, SegmentAutoregressive(**options).sample(field, noise, told))


def test_candidates_depend_on_a_samples_own_noise_alone():
    noise = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    assert _redrawn(noise, 1, 0) is noise
    drawn = _redrawn(noise, 1, 2)
    assert torch.equal(_redrawn(noise[1:2], 1, 2), drawn[1:2])
    others = [_redrawn(noise, 2, 2), _redrawn(noise, 1, 1), _redrawn(noise + 1e-3, 1, 2), noise]
    assert all(not torch.allclose(drawn, other, atol=0.1) for other in others)
    many = _redrawn(torch.randn(1, 64, 200, generator=torch.Generator().manual_seed(1)), 0, 1)
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03


def test_continuity_hears_a_jump():
    smooth = torch.linspace(0, 1, 12).expand(2, 3, 12).clone()
    smooth[1, :, 6:] += 2.0
    scores = Continuity()(smooth, Window(6, 12))
    assert scores[0] == pytest.approx(-1.0, abs=1e-3) and scores[1] < -100
    torch.testing.assert_close(Continuity()(10 * smooth, Window(6, 12)), scores, rtol=1e-3, atol=1e-3)
    assert torch.equal(Continuity()(smooth[:, :, :1], Window(0, 1)), torch.zeros(2))
    assert Continuity()(torch.randn(2, 3, 5, 2, 2), Window(0, 5)).shape == (2,)


def test_a_scorer_may_listen_to_the_sound():
    scorer = DecodedScorer(decode=lambda latents: latents.repeat_interleave(4, dim=2), score=lambda sound: -sound.abs().amax((1, 2)))
    noise = torch.randn(2, 1, 9)
    sample = SegmentBeamSearch(num_candidates=4, beam_width=2, scorer=scorer, **CUT).sample(field, noise, [Conditioning()])
    plain = SegmentAutoregressive(**CUT).sample(field, noise, [Conditioning()])
    assert (sample.abs().amax((1, 2)) <= plain.abs().amax((1, 2))).all()


def test_progress_counts_all_candidates():
    reports, noise = [], torch.randn(1, 2, 13)
    sampler = SegmentBeamSearch(num_candidates=3, beam_width=5, **CUT)
    sampler.sample(field, noise, [Conditioning()], progress=lambda step, total: reports.append((step, total)))
    assert reports[-1] == (3 * (3 + 9 + 15 + 15),) * 2


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(UsageError, match="num_candidates=0"):
        SegmentBeamSearch(num_candidates=0)
    broken = DecodedScorer(decode=lambda latents: latents, score=lambda sound: sound.mean((1, 2)) * float("nan"))
    with pytest.raises(UsageError, match="DecodedScorer gave NaN"):
        SegmentBeamSearch(scorer=broken, **CUT).sample(field, torch.randn(1, 2, 9), [Conditioning()])
