"""Segment-level autoregression (6.1.5) against the paper's formulas, spelt out."""

import pytest
import torch

from moviegen_audio import SegmentAutoregressive
from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.flow.solvers import MidpointSolver
from moviegen_core.sampler import FlowSampler

WINDOW, HOP, CONTEXT = 8, 5, 3
OPTIONS = {"steps": 6, "guidance_scale": 1.0, "schedule": LinearSchedule(), "solver": MidpointSolver()}


def field(x, t, conditioning):
    t = t.view(-1, *[1] * (x.ndim - 1)).to(x)
    heard = 0.0 if conditioning.channels is None else conditioning.channels.mean(2, keepdim=True)
    return torch.cos(2 * t) - 0.5 * x.mean(2, keepdim=True) + 0.3 * x.roll(1, dims=2) + heard


def reference(noise, *, context, trajectory):
    """The paper's algorithm with lists of whole trajectories."""
    solver, steps = OPTIONS["solver"], OPTIONS["steps"]
    out, before, stop = torch.zeros_like(noise), None, 0
    for start, end in ((0, 5), (2, 10), (7, 15), (12, 17)):
        shared = stop - start
        channels = torch.zeros_like(noise[:, :, start:end])
        if context and before is not None:
            channels[:, :, :shared] = before[-1][:, :, -shared:]
        states = [noise[:, :, start:end].clone()]
        for step in range(steps):
            x = solver.step(
                lambda x, t, c=channels: field(x, torch.tensor(t), Conditioning(channels=c)), states[-1], step / steps, (step + 1) / steps
            )
            if trajectory and before is not None:
                x = x.clone()
                for n in range(shared):
                    w = n / shared
                    x[:, :, n] = w * x[:, :, n] + (1 - w) * before[step + 1][:, :, n - shared]
            states.append(x)
        out[:, :, start:end] = states[-1]
        before, stop = states, end
    return out


@pytest.mark.parametrize("shape", [(2, 3, 17), (1, 2, 17, 2, 3)])
@pytest.mark.parametrize(("context", "trajectory"), [(True, False), (False, True), (True, True)])
def test_follows_the_papers_algorithm(context, trajectory, shape):
    noise = torch.randn(shape)
    sampler = SegmentAutoregressive(window=WINDOW, hop=HOP, context=context, trajectory=trajectory, **OPTIONS)
    sample = sampler.sample(field, noise, [Conditioning(channels=torch.zeros_like(noise))])
    torch.testing.assert_close(sample, reference(noise, context=context, trajectory=trajectory))


def test_first_segment_is_a_plain_sample():
    noise = torch.randn(2, 3, 17)
    told = [Conditioning(channels=torch.zeros_like(noise))]
    plain = FlowSampler(**OPTIONS).sample(field, noise[:, :, :HOP], [told[0].window(0, HOP)])
    sample = SegmentAutoregressive(window=WINDOW, hop=HOP, **OPTIONS).sample(field, noise, told)
    assert torch.equal(sample[:, :, : HOP - CONTEXT], plain[:, :, : HOP - CONTEXT])  # what follows is replaced by the second segment
    assert torch.equal(SegmentAutoregressive(window=HOP, hop=HOP, **OPTIONS).sample(field, noise, told)[:, :, :HOP], plain)


def test_stitching_puts_independent_samples_end_to_end():
    noise = torch.randn(1, 2, 12)
    sampler = SegmentAutoregressive(window=WINDOW, hop=HOP, context=False, trajectory=False, **OPTIONS)
    parts = [FlowSampler(**OPTIONS).sample(field, noise[:, :, start : start + HOP], [Conditioning()]) for start in (0, 5, 10)]
    assert torch.equal(sampler.sample(field, noise, [Conditioning()]), torch.cat(parts, dim=2))


def test_context_is_the_end_of_the_segment_before_in_the_given_variant_alone():
    noise, seen = torch.randn(1, 2, 10), []

    def watched(x, t, conditioning):
        seen.append(conditioning.channels.clone())
        return x.tanh()

    given = torch.zeros_like(noise)
    given[:, :, 9] = 7.0  # a frame that the user knows
    told = [Conditioning(channels=given), Conditioning(channels=torch.zeros_like(noise))]
    sampler = SegmentAutoregressive(window=WINDOW, hop=HOP, steps=2, guidance_scale=2.0, batched_guidance=False, schedule=LinearSchedule())
    sampler.sample(watched, noise, told)
    first = FlowSampler(steps=2, guidance_scale=1.0, schedule=LinearSchedule()).sample(watched, noise[:, :, :HOP], [told[0].window(0, HOP)])
    conditional, null = seen[4:8:2], seen[5:8:2]
    assert not any(channels.any() for channels in [*seen[:4], *null])
    for channels in conditional:
        torch.testing.assert_close(channels[:, :, :CONTEXT], first[:, :, -CONTEXT:])
        assert not channels[:, :, CONTEXT:-1].any() and (channels[:, :, -1] == 7.0).all()
    assert not told[0].channels[:, :, :9].any(), "the model's own conditioning was written into"


def test_trajectory_at_the_first_shared_frame_is_that_of_the_segment_before():
    noise = torch.randn(1, 2, 10)
    sampler = SegmentAutoregressive(window=WINDOW, hop=HOP, context=False, trajectory=True, **OPTIONS)
    before = FlowSampler(**OPTIONS).sample(field, noise[:, :, :HOP], [Conditioning()])
    sample = sampler.sample(field, noise, [Conditioning()])
    assert torch.equal(sample[:, :, : HOP - CONTEXT + 1], before[:, :, : HOP - CONTEXT + 1])
    assert not torch.allclose(sample[:, :, HOP - CONTEXT + 1 : HOP], before[:, :, HOP - CONTEXT + 1 :])


def test_context_that_is_reproduced_is_continued_without_a_seam():
    # dx/dt = (context − x) / (1 − t) on the frames of the context takes any noise to it, as the exact model does.
    noise = torch.randn(1, 2, 15)

    def exact(x, t, conditioning):
        known = (conditioning.channels != 0).to(x)
        drawn = (conditioning.channels - x) / (1 - t.view(-1, 1, 1).to(x))
        return known * drawn + (1 - known) * -x

    told = [Conditioning(channels=torch.zeros_like(noise))]
    sample = SegmentAutoregressive(window=WINDOW, hop=HOP, **OPTIONS).sample(exact, noise, told)
    torch.testing.assert_close(sample, FlowSampler(**OPTIONS).sample(exact, noise, told))


@pytest.mark.parametrize("channels", [None, torch.zeros(1, 5, 10)])
def test_a_model_without_a_door_for_context_is_refused_before_any_work(channels):
    def velocity(x, t, conditioning):
        raise AssertionError("work was done")

    with pytest.raises(UsageError, match="context: true.*MultiDiffusion"):
        SegmentAutoregressive(window=WINDOW, hop=HOP).sample(velocity, torch.randn(1, 2, 10), [Conditioning(channels=channels)] * 2)
