"""Guidance that changes along the flow."""

import pytest
import torch
from scipy.integrate import quad

from moviegen_core.conditioner import Conditioning
from moviegen_core.flow.guidance import ConstantGuidance, CosineGuidance, GuidanceSchedule, LinearGuidance
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.flow.solvers import MidpointSolver
from moviegen_core.sampler import FlowSampler

SCHEDULES = [ConstantGuidance(), LinearGuidance(), CosineGuidance()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("scale", [1.0, 3.0, 7.5])
def test_mean_over_the_flow_is_the_given_scale_and_one_is_no_guidance(schedule, scale):
    assert quad(lambda t: schedule(scale, t), 0, 1)[0] == pytest.approx(scale)
    scales = [schedule(scale, k / 100) for k in range(101)]
    assert all(later >= earlier for earlier, later in zip(scales[:-1], scales[1:], strict=True))
    assert min(scales) >= 1.0
    if scale == 1.0:
        assert set(scales) == {1.0}


def test_the_schedulers_of_wang_et_al():
    # In their time, from data (0) to noise (T): ω(t) = 2ω(1 − t/T), ω(t) = ω(1 + cos(πt/T)), and ω = s − 1.
    for t in (0.0, 0.3, 1.0):
        assert LinearGuidance()(3.0, t) == pytest.approx(1 + 2 * 2.0 * (1 - (1 - t)))
        assert CosineGuidance()(3.0, t) == pytest.approx(1 + 2.0 * (1 + torch.cos(torch.tensor(torch.pi * (1 - t)))).item())


def told():
    mask = torch.ones(1, 1, dtype=torch.bool)
    return [Conditioning(context=torch.full((1, 1, 1), value), context_mask=mask) for value in (1.0, 0.0)]


def from_context(x, t, conditioning):
    return conditioning.context.view(-1, 1, 1).expand_as(x)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("schedule", [None, *SCHEDULES])
def test_the_sampler_asks_the_schedule_at_the_solvers_times(schedule, batched):
    # Given 1 and null 0, dx/dt is the scale itself, and midpoint integrates a linear scale exactly: to its mean.
    options = {"schedule": LinearSchedule(), "solver": MidpointSolver(), "batched_guidance": batched}
    sampler = FlowSampler(steps=4, guidance_scale=3.0, guidance_schedule=schedule, **options)
    sample = sampler.sample(from_context, torch.zeros(1, 2, 3), told())
    torch.testing.assert_close(sample, torch.full((1, 2, 3), 3.0))


def test_schedules_of_a_users_own():
    class Late(GuidanceSchedule):
        def ratio(self, t):
            return 2.0 if t >= 0.5 else 0.0

    states = []
    sampler = FlowSampler(steps=2, guidance_scale=2.0, guidance_schedule=Late(), schedule=LinearSchedule())
    sampler.sample(lambda x, t, c: (states.append(x.flatten()[0].item()), from_context(x, t, c))[1], torch.zeros(1, 1, 1), told())
    assert states == [0.0, 0.5]
    with pytest.raises(NotImplementedError, match="must define ratio"):
        GuidanceSchedule()(2.0, 0.5)
