"""Samplers beyond the training's length (6.1.5)."""

import math

import pytest
import torch

from moviegen_audio import MultiDiffusion, SegmentAutoregressive, SegmentBeamSearch
from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow.guidance import LinearGuidance
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.flow.solvers import MidpointSolver
from moviegen_core.sampler import FlowSampler
from moviegen_core.testing import check_sampler

CUT = {"window": 8, "hop": 5}
PLAIN = {"guidance_scale": 1.0, "schedule": LinearSchedule(), "solver": MidpointSolver()}
METHODS = {
    "uniform": lambda **options: MultiDiffusion(shape="uniform", **options),
    "triangular": lambda **options: MultiDiffusion(shape="triangular", **options),
    "stitch": lambda **options: SegmentAutoregressive(context=False, **options),
    "context": lambda **options: SegmentAutoregressive(**options),
    "trajectory": lambda **options: SegmentAutoregressive(context=False, trajectory=True, **options),
    "both": lambda **options: SegmentAutoregressive(trajectory=True, **options),
    "beam": lambda **options: SegmentBeamSearch(num_candidates=1, beam_width=1, context=False, trajectory=True, **options),
}
WITHOUT_CONTEXT = [name for name in METHODS if name not in ("context", "both")]
methods = pytest.mark.parametrize("method", METHODS)


def per_frame(t, x):
    return t.view(-1, *[1] * (x.ndim - 1)).to(x)


def mixing(x, t, conditioning):
    """A field that looks at the whole window and at the context, so that what a window knows shows."""
    heard = 0.0 if conditioning.channels is None else conditioning.channels.mean(2, keepdim=True)
    return torch.sin(2 * per_frame(t, x)) - 0.5 * x.mean(2, keepdim=True) + 0.3 * x.roll(1, dims=2) + heard


def told(noise, variants=1):
    return [Conditioning(channels=torch.zeros_like(noise)) for _ in range(variants)]


@pytest.mark.parametrize("shape", [(3, 17), (3, 17, 2, 2)])
@pytest.mark.parametrize("method", WITHOUT_CONTEXT)
@pytest.mark.parametrize("options", [{}, {"guidance_scale": 1.0}, {"batched_guidance": False, "solver": MidpointSolver()}])
def test_checks_that_every_sampler_runs(method, shape, options):
    check_sampler(lambda: METHODS[method](steps=4, **CUT, **options), shape=shape)


@methods
@pytest.mark.parametrize("length", [1, 4, 5, 6, 8, 9, 17, 20, 21])
@pytest.mark.parametrize("cut", [CUT, {"window": 5, "hop": 5}, {"window": 6, "hop": 5}, {"window": 8, "hop": 2}, {"window": 1, "hop": 1}])
def test_fields_local_in_time_are_sampled_as_without_windows(method, length, cut):
    # Exact for constant and linear fields as for any other that does not look beyond a frame, whatever the lengths.
    noise, shift = torch.randn(2, 3, length), torch.randn(3, 1)

    def local(x, t, conditioning):
        return shift + per_frame(t, x) - 0.7 * x

    sample = METHODS[method](steps=3, **cut, **PLAIN).sample(local, noise, told(noise))
    torch.testing.assert_close(sample, FlowSampler(steps=3, **PLAIN).sample(local, noise, told(noise)))


@methods
def test_a_single_segment_is_a_plain_sample(method):
    noise = torch.randn(2, 3, 5)
    options = {"steps": 4, "guidance_scale": 3.0, "guidance_schedule": LinearGuidance(), "solver": MidpointSolver()}
    sample = METHODS[method](**CUT, **options).sample(mixing, noise, told(noise, 2))
    assert torch.equal(sample, FlowSampler(**options).sample(mixing, noise, told(noise, 2)))


@methods
def test_the_same_noise_gives_the_same_sample_alone_and_in_a_batch(method):
    noise = torch.randn(3, 2, 14)
    sampler = METHODS[method](steps=3, **CUT, **PLAIN)
    together = sampler.sample(mixing, noise, told(noise))
    assert torch.equal(together, sampler.sample(mixing, noise, told(noise)))
    torch.testing.assert_close(sampler.sample(mixing, noise[1:2], told(noise[1:2])), together[1:2])
    assert not torch.allclose(sampler.sample(mixing, noise.flip(0), told(noise)), together)


@methods
@pytest.mark.parametrize("length", [5, 23, 64])
def test_the_network_never_sees_more_than_a_window(method, length):
    seen = []

    def watched(x, t, conditioning):
        seen.append((x.shape[0], x.shape[2]))
        assert conditioning.channels.shape[::2] == x.shape[::2] and conditioning.aligned.shape[:2] == (x.shape[0], x.shape[2])
        return -x

    noise = torch.randn(1, 2, length)
    conditioning = Conditioning(channels=torch.zeros_like(noise), aligned=torch.zeros(1, length, 4))
    METHODS[method](steps=2, **CUT, guidance_scale=2.0).sample(watched, noise, [conditioning, conditioning])
    assert max(frames for _, frames in seen) <= CUT["window"] and max(batch for batch, _ in seen) == 2


@pytest.mark.parametrize("together", [2, 3, 16])
def test_windows_that_share_a_pass_change_nothing_but_the_number_of_passes(together):
    noise = torch.randn(2, 3, 31)
    mask = torch.ones(2, 3, dtype=torch.bool)
    conditionings = [Conditioning(channels=torch.randn_like(noise), context=torch.randn(2, 3, 4), context_mask=mask) for _ in range(2)]
    passes = []

    def counted(x, t, conditioning):
        passes.append(x.shape[0])
        return mixing(x, t, conditioning) + conditioning.context.mean((1, 2)).view(-1, 1, 1)

    one, many = (MultiDiffusion(steps=3, **CUT, guidance_scale=2.0, windows_per_batch=size) for size in (1, together))
    expected = one.sample(counted, noise, conditionings)
    assert len(passes) == 3 * 7 and set(passes) == {4}
    passes.clear()
    torch.testing.assert_close(many.sample(counted, noise, conditionings), expected)
    assert max(passes) <= 4 * together and len(passes) == 3 * (2 + math.ceil(5 / together))  # the first and the last segment are shorter


@methods
def test_progress_ends_at_its_end(method):
    noise, reports = torch.randn(1, 2, 16), []
    METHODS[method](steps=3, **CUT, **PLAIN).sample(mixing, noise, told(noise), progress=lambda step, total: reports.append((step, total)))
    assert [step for step, _ in reports] == list(range(1, reports[-1][1] + 1))


def test_conditions_made_segment_by_segment_are_asked_for_one_at_a_time():
    noise, log = torch.randn(1, 2, 17), []
    whole = Conditioning(channels=torch.zeros_like(noise), aligned=torch.randn(1, 17, 2))

    def field(x, t, conditioning):
        log.append("step")
        return mixing(x, t, conditioning) + conditioning.aligned.mT

    def make(index, window):
        log.append((index, window.start, window.stop))
        return [whole.window(window.start, window.stop)]

    for method, first in (("both", 2), ("triangular", 5)):  # autoregression makes conditions when it comes to them
        sampler = METHODS[method](steps=2, **CUT, guidance_scale=1.0)
        log.clear()
        sample = sampler.sample(field, noise, make)
        asked = [entry for entry in log if entry != "step"]
        assert asked == [(0, 0, 5), (1, 2, 10), (2, 7, 15), (3, 12, 17)]
        assert log.index("step") < log.index(asked[1]) if first == 2 else log.index("step") == 4
        torch.testing.assert_close(sample, sampler.sample(field, noise, [whole]))


@pytest.mark.parametrize("sampler", [MultiDiffusion, SegmentAutoregressive, SegmentBeamSearch])
def test_lengths_that_do_not_fit_are_refused(sampler):
    for cut in ({"window": 8, "hop": 9}, {"window": 8, "hop": 0}, {"window": 0, "hop": 0}):
        with pytest.raises(UsageError, match=rf"window={cut['window']} latent frames with hop={cut['hop']}"):
            sampler(**cut)
    with pytest.raises(UsageError, match="windows_per_batch=0"):
        MultiDiffusion(windows_per_batch=0)


@methods
def test_midpoint_on_a_linear_schedule_is_what_6_1_6_wants(method):
    sampler = METHODS[method](
        steps=64, guidance_scale=3.0, guidance_schedule=LinearGuidance(), schedule=LinearSchedule(), solver=MidpointSolver()
    )
    intervals = sampler.intervals()
    assert len(intervals) == 64 and all(t_next - t == pytest.approx(1 / 64) for t, t_next in intervals)
    assert sampler.segments(58 * 25)[-1].stop == 58 * 25
    hop = 750
    assert [window.stop for window in sampler.segments(3 * hop)] == [hop, 2 * hop, 3 * hop]
