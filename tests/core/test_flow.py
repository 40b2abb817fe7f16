"""Flow matching against closed forms."""

import math

import pytest
import torch

from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow import schedules
from moviegen_core.flow.path import OptimalTransportPath, VariancePreservingPath
from moviegen_core.flow.solvers import EulerSolver, MidpointSolver
from moviegen_core.flow.timesteps import LogitNormalTimesteps, UniformTimesteps
from moviegen_core.flow.windows import Windows
from moviegen_core.sampler import FlowSampler


def test_optimal_transport_path_follows_the_papers_formula():
    x_0, x_1 = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    t = torch.tensor([0.0, 0.3], dtype=torch.float64)
    point = OptimalTransportPath().sample(x_0, x_1, t)
    expected = 0.3 * x_1[1] + (1 - (1 - 1e-5) * 0.3) * x_0[1]
    torch.testing.assert_close(point.x_t[0], x_0[0])
    torch.testing.assert_close(point.x_t[1], expected)
    torch.testing.assert_close(point.target, x_1 - (1 - 1e-5) * x_0)


@pytest.mark.parametrize("path", [OptimalTransportPath(), VariancePreservingPath()])
def test_velocity_is_the_derivative_of_the_path(path):
    x_0, x_1 = torch.randn(1, 5), torch.randn(1, 5)
    for time in (0.2505, 0.5005, 0.9005):  # inside a linear piece of the diffusion table
        t, step = torch.tensor([time]), 2e-4
        point = path.sample(x_0, x_1, t)
        numeric = (path.sample(x_0, x_1, t + step).x_t - path.sample(x_0, x_1, t - step).x_t) / (2 * step)
        torch.testing.assert_close(path.velocity(point.x_t, point.target, t), numeric, rtol=2e-2, atol=2e-2)


def test_diffusion_path_has_zero_terminal_snr():
    path = VariancePreservingPath()
    alpha, sigma, _, _ = path.rates(torch.tensor([0.0, 1.0]))
    assert alpha[0] == 0.0 and sigma[0] == 1.0
    assert alpha[1] == 1.0 and sigma[1] == 0.0


def test_logit_normal_times_have_the_right_law():
    generator = torch.Generator().manual_seed(0)
    t = LogitNormalTimesteps().sample(200_000, generator=generator)
    underlying = torch.logit(t)
    assert abs(underlying.mean()) < 0.01 and abs(underlying.std() - 1.0) < 0.01
    spread = LogitNormalTimesteps().quantile(torch.linspace(0, 1, 1001))
    assert spread[500] == pytest.approx(0.5, abs=1e-6) and (spread.diff() > 0).all()
    assert UniformTimesteps().quantile(torch.tensor([0.25, 0.75])).tolist() == [0.25, 0.75]


@pytest.mark.parametrize("emulated", [250, 1000])
def test_linear_quadratic_copies_the_long_schedule_then_bends(emulated):
    times = schedules.linear_quadratic(50, emulated_steps=emulated)
    assert times.shape == (51,) and times[0] == 0.0 and times[-1] == 1.0
    torch.testing.assert_close(times[:26], schedules.linear(emulated)[:26], rtol=0, atol=0)
    bend = times[25:].double()
    assert (bend.diff() > 0).all()
    torch.testing.assert_close(bend.diff().diff(), bend.diff().diff().mean().expand(24), rtol=1e-3, atol=1e-6)


def test_schedule_errors_say_what_to_do():
    with pytest.raises(ValueError, match="give emulated_steps=300"):
        schedules.linear_quadratic(300)
    with pytest.raises(ValueError, match="0 sampling steps were asked for"):
        FlowSampler(steps=0)


@pytest.mark.parametrize(("solver", "order"), [(EulerSolver(), 1), (MidpointSolver(), 2)])
def test_solver_converges_with_its_order(solver, order):
    # dx/dt = −2t·x has the solution x(1) = x(0)·e^{-1}.
    errors = []
    for num_steps in (20, 40, 80):
        x = torch.ones(1, dtype=torch.float64)
        times = [k / num_steps for k in range(num_steps + 1)]
        for t, t_next in zip(times[:-1], times[1:], strict=True):
            x = solver.step(lambda x, t: -2 * t * x, x, t, t_next)
        errors.append(abs(x.item() - math.exp(-1.0)))
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_sampler_solves_a_gaussian_flow_in_closed_form():
    # Data N(m, s²): the marginal velocity of the optimal transport path is linear in x and known.
    mean, std = 2.0, 0.5

    def velocity(x, t, conditioning):
        t = t.view(-1, 1, 1, 1, 1)
        variance = (t * std) ** 2 + (1 - t) ** 2
        return mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)

    noise = torch.randn(2, 1, 3, 4, 4)
    sampler = FlowSampler(steps=200, guidance_scale=1.0, solver=MidpointSolver(), schedule=schedules.LinearSchedule())
    sample = sampler.sample(velocity, noise, [Conditioning()])
    torch.testing.assert_close(sample, mean + std * noise, rtol=1e-3, atol=1e-3)


def _toy_velocity(x, t, conditioning):
    pooled = (conditioning.context * conditioning.context_mask.unsqueeze(-1)).sum((1, 2))
    return x.tanh() * t.view(-1, 1, 1, 1, 1) + pooled.view(-1, 1, 1, 1, 1)


def _conditioning(batch, length, fill):
    return Conditioning(context=torch.full((batch, length, 2), fill), context_mask=torch.ones(batch, length, dtype=torch.bool))


def test_batched_guidance_equals_two_passes():
    noise = torch.randn(2, 3, 2, 4, 4)
    both = [_conditioning(2, 5, 0.1), _conditioning(2, 1, -0.2)]
    batched, sequential = (FlowSampler(steps=4, batched_guidance=batched).sample(_toy_velocity, noise, both) for batched in (True, False))
    torch.testing.assert_close(batched, sequential)
    alone = FlowSampler(steps=4, guidance_scale=1.0)
    assert alone.variants(["text"]) == [frozenset()]
    assert FlowSampler().variants(["a", "b"]) == [frozenset(), frozenset({"a", "b"})]
    assert not torch.allclose(alone.sample(_toy_velocity, noise, both[:1]), batched)


@pytest.mark.parametrize("shape", ["linear", "triangular", "uniform"])
@pytest.mark.parametrize(("length", "size", "overlap"), [(16, 4, 0), (17, 4, 2), (5, 8, 3), (9, 4, 1), (30, 10, 5)])
def test_windows_blend_to_the_identity(shape, length, size, overlap):
    windows = Windows(size=size, overlap=overlap, shape=shape)
    whole = torch.randn(2, 3, length, 2)
    parts = [whole[:, :, w.start : w.stop] for w in windows(length)]
    assert all(w.size <= size for w in windows(length))
    torch.testing.assert_close(windows.blend(parts, length, dim=2), whole)
    streamed = torch.cat(list(windows.stream(iter(parts), length, dim=2)), dim=2)
    torch.testing.assert_close(streamed, whole)


def test_linear_windows_ramp_as_the_paper_says():
    windows = Windows(size=4, overlap=2, shape="linear")
    first, second = torch.zeros(1, 1, 4), torch.ones(1, 1, 4)
    blended = windows.blend([first, second], 6, dim=2)
    torch.testing.assert_close(blended.flatten(), torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.0]))


def test_windows_without_progress_are_refused():
    for size, overlap in ((4, 4), (4, -1), (0, 0)):
        with pytest.raises(UsageError, match=f"size {size} with overlap {overlap}"):
            Windows(size=size, overlap=overlap)


def test_windowed_sampling_equals_whole_for_a_field_local_in_time():
    noise = torch.randn(1, 2, 12, 2, 2)
    conditioning = [Conditioning(aligned=torch.randn(1, 12, 1))]

    def local(x, t, conditioning):
        return x.sin() + conditioning.aligned.view(1, 1, -1, 1, 1)

    whole = FlowSampler(steps=3, guidance_scale=1.0).sample(local, noise, conditioning)
    windowed = FlowSampler(steps=3, guidance_scale=1.0, window=5, window_overlap=2).sample(local, noise, conditioning)
    torch.testing.assert_close(windowed, whole)
