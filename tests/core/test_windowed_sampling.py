"""One solver step on every window, then the states are merged."""

import math

import pytest
import torch

from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.flow.solvers import EulerSolver, MidpointSolver
from moviegen_core.flow.windows import Window, Windows
from moviegen_core.sampler import FlowSampler, Sampler
from moviegen_core.testing import check_sampler


def pooled(x, t, conditioning):
    """A velocity that depends on the whole window, so that windows disagree."""
    t = t.view(-1, *[1] * (x.ndim - 1))
    return torch.cos(3 * t) - x.mean(2, keepdim=True) + 0.3 * x.roll(1, dims=2)


@pytest.mark.parametrize("shape", ["linear", "triangular", "uniform"])
@pytest.mark.parametrize("solver", [EulerSolver(), MidpointSolver()])
def test_a_step_solves_on_each_window_and_then_merges(solver, shape):
    noise = torch.randn(2, 3, 11)
    sampler = FlowSampler(steps=3, guidance_scale=1.0, solver=solver, window=4, window_overlap=2, window_shape=shape)
    windows, x = Windows(size=4, overlap=2, shape=shape), noise
    times = sampler.schedule(3).tolist()
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        merged = torch.zeros_like(x)
        for window, mask in zip(windows(11), windows.masks(11), strict=True):
            part = solver.step(lambda x, t: pooled(x, torch.full((2,), t), None), x[:, :, window.start : window.stop], t, t_next)
            merged[:, :, window.start : window.stop] += mask * part
        x = merged
    torch.testing.assert_close(sampler.sample(pooled, noise, [Conditioning()]), x)


def test_with_euler_merging_states_is_merging_velocities():
    noise, windows = torch.randn(1, 2, 9), Windows(size=4, overlap=2, shape="triangular")
    sampler = FlowSampler(steps=5, guidance_scale=1.0, window=4, window_overlap=2)

    def blended(x, t, conditioning):
        return windows.blend([pooled(x[:, :, w.start : w.stop], t, None) for w in windows(9)], 9, dim=2)

    whole = FlowSampler(steps=5, guidance_scale=1.0).sample(blended, noise, [Conditioning()])
    torch.testing.assert_close(sampler.sample(pooled, noise, [Conditioning()]), whole)


@pytest.mark.parametrize(("window", "order"), [(None, 2), (6, 1)])
def test_midpoint_is_of_second_order_on_a_whole_and_of_first_where_windows_disagree(window, order):
    noise = torch.randn(1, 1, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def sample(steps):
        sampler = FlowSampler(
            steps=steps,
            guidance_scale=1.0,
            schedule=LinearSchedule(),
            solver=MidpointSolver(),
            window=window,
            window_overlap=3 if window else 0,
        )
        return sampler.sample(lambda x, t, c: pooled(x, t.double(), c), noise, [Conditioning()])

    reference = sample(1024)
    errors = [(sample(steps) - reference).norm().item() for steps in (16, 32, 64)]
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("options", [{"window_shape": "uniform"}, {"window_shape": "linear"}, {"window_shape": "triangular"}])
def test_flow_sampler_with_windows_passes(options):
    for overlap in (0, 1):
        check_sampler(lambda: FlowSampler(steps=4, solver=MidpointSolver(), window=2, window_overlap=overlap, **options), shape=(3, 5))  # noqa: B023


def test_conditions_can_be_made_window_by_window():
    noise = torch.randn(1, 2, 10)
    aligned = torch.randn(1, 10, 2)
    asked = []

    def make(index, window):
        asked.append((index, window))
        return [Conditioning(aligned=aligned[:, window.start : window.stop])]

    def local(x, t, conditioning):
        return x.sin() + conditioning.aligned.mT

    sampler = FlowSampler(steps=3, guidance_scale=1.0, window=4, window_overlap=1)
    torch.testing.assert_close(sampler.sample(local, noise, make), sampler.sample(local, noise, [Conditioning(aligned=aligned)]))
    assert asked == list(enumerate([Window(0, 4), Window(3, 7), Window(6, 10)])) == list(enumerate(sampler.segments(10)))
    assert Sampler().segments(10) == [Window(0, 10)] == FlowSampler().segments(10)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_guidance_that_is_no_number_is_refused(scale):
    with pytest.raises(UsageError, match="guidance_scale=(nan|inf) was given"):
        FlowSampler(guidance_scale=scale)


def test_an_overlap_without_windows_is_refused():
    with pytest.raises(ValueError, match="window_overlap=3 was given without a window"):
        FlowSampler(window_overlap=3)
