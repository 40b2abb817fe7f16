"""Samplers: from noise to data through a velocity field, by schedule × solver × guidance × windows."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor

from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow.guidance import ConstantGuidance, GuidanceSchedule, classifier_free_guidance
from moviegen_core.flow.schedules import LinearQuadraticSchedule, Schedule
from moviegen_core.flow.solvers import EulerSolver, Solver
from moviegen_core.flow.windows import Shape, Window, Windows

VelocityField = Callable[[Tensor, Tensor, Conditioning], Tensor]
Progress = Callable[[int, int], None]

# What a sampler is told: for each of its variants a conditioning of the whole length; or make(index, window), which gives those of one
# segment, already cut to it. So a model gives every segment a caption of its own and need not hold the conditions of all at once.
Conditionings = Sequence[Conditioning] | Callable[[int, Window], Sequence[Conditioning]]


class Sampler(LightningModule):
    """Turns noise into data.

    A sampler first says which variants of the conditioning it needs (`variants`), then receives them in that order.
    """

    def variants(self, conditioners: Sequence[str]) -> list[frozenset[str]]:
        """For every pass of the backbone, the names of the conditioners that are replaced by their null version."""
        return [frozenset()]

    def segments(self, length: int) -> list[Window]:
        """The stretches of `length` latent frames that are sampled one by one, and may have conditions of their own."""
        return [Window(0, length)]

    def sample(
        self, velocity: VelocityField, noise: Float[Tensor, "b c ..."], conditionings: Conditionings, *, progress: Progress | None = None
    ) -> Float[Tensor, "b c ..."]:
        """Integrate from noise at t = 0 to data at t = 1.

        Args:
            velocity: (x, t, conditioning) -> dx/dt with t of shape (b,).
            noise: a sample of N(0, I).
            conditionings: one for each of `variants`, or a function that makes them for a segment.
            progress: called as progress(step, num_steps) after each step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define sample(velocity, noise, conditionings)")


class GuidedSampler(Sampler):
    """Fixed steps of a solver through a guided velocity: what the samplers of moviegen have in common.

    Args:
        steps: number of solver steps.
        guidance_scale: s in v_null + s·(v − v_null), so that s − 1 is the weight on the unconditional velocity; 1 turns guidance off (and
            halves the cost).
        guidance_schedule: how the weight changes along the flow, with `guidance_scale` as its mean; constant unless given.
        batched_guidance: evaluate both in one pass of twice the batch; turn off where memory is short.
        schedule: discrete times; the linear-quadratic schedule of the paper unless given.
        solver: Euler unless given.
    """

    def __init__(
        self,
        *,
        steps: int = 50,
        guidance_scale: float = 7.5,
        guidance_schedule: GuidanceSchedule | None = None,
        batched_guidance: bool = True,
        schedule: Schedule | None = None,
        solver: Solver | None = None,
    ) -> None:
        super().__init__()
        if not math.isfinite(guidance_scale):
            raise UsageError(f"guidance_scale={guidance_scale} was given", "it is a weight; 1 turns guidance off", "give e.g. 3 or 7.5")
        self.steps = steps
        self.guidance_scale = guidance_scale
        self.guidance_schedule = guidance_schedule or ConstantGuidance()
        self.batched_guidance = batched_guidance
        self.schedule = schedule or LinearQuadraticSchedule()
        self.solver = solver or EulerSolver()
        self.schedule(steps)  # a number of steps the schedule refuses is refused before any work

    def variants(self, conditioners: Sequence[str]) -> list[frozenset[str]]:
        """Everything given; and nothing given where guidance is on."""
        given: list[frozenset[str]] = [frozenset()]
        return given if self.guidance_scale == 1.0 or not conditioners else [*given, frozenset(conditioners)]

    def intervals(self) -> list[tuple[float, float]]:
        """The beginning and the end of every step, from 0 to 1."""
        times = self.schedule(self.steps).tolist()
        return list(zip(times[:-1], times[1:], strict=True))

    def advance(
        self, velocity: VelocityField, x: Float[Tensor, "b c ..."], t: float, t_next: float, conditionings: Sequence[Conditioning]
    ) -> Float[Tensor, "b c ..."]:
        """One solver step of the guided velocity: ODE-Solve of 6.1.5."""
        return self.solver.step(lambda x, t: self._guided(velocity, x, t, conditionings), x, t, t_next)

    def _guided(self, velocity: VelocityField, x: Tensor, t: float, conditionings: Sequence[Conditioning]) -> Tensor:
        times = x.new_full((x.shape[0],), t, dtype=torch.float32)
        if len(conditionings) == 1:
            return velocity(x, times, conditionings[0])
        if self.batched_guidance:
            both = velocity(torch.cat([x, x]), torch.cat([times, times]), Conditioning.stack(conditionings))
            conditional, unconditional = both.chunk(2)
        else:
            conditional, unconditional = (velocity(x, times, conditioning) for conditioning in conditionings)
        return classifier_free_guidance(conditional, unconditional, self.guidance_schedule(self.guidance_scale, t))


class WindowedSampler(GuidedSampler):
    """Samples a whole by MultiDiffusion over windows: one solver step on each window, then the states are merged (3.1.5, 6.1.5).

    A subclass sets `windows` and, where several windows shall share a pass, `windows_per_batch`.

    With Euler, to merge the states after a step is to merge the velocities before it. With a solver of more than one evaluation it is not:
    inside a step every window goes its own way, which is what the paper does, and where windows disagree the whole is of first order.
    """

    windows: Windows | None = None
    windows_per_batch: int = 1

    def segments(self, length: int) -> list[Window]:
        """The windows; one where there are none."""
        return [Window(0, length)] if self.windows is None else self.windows(length)

    def sample(self, velocity, noise, conditionings, *, progress=None):
        """Step on all windows, merge, and go on; see `Sampler.sample`."""
        length, windows = noise.shape[2], self.segments(noise.shape[2])
        groups = _groups(windows, self.windows_per_batch)
        told = [_stacked([segment_conditionings(conditionings, index, windows[index], length) for index in group]) for group in groups]
        x = noise
        for step, (t, t_next) in enumerate(self.intervals()):
            parts: list[Tensor] = []
            for group, conditions in zip(groups, told, strict=True):
                together = torch.cat([x[:, :, windows[index].start : windows[index].stop] for index in group])
                parts += self.advance(velocity, together, t, t_next, conditions).chunk(len(group))
            x = parts[0] if len(windows) == 1 else self.windows.blend(parts, length, dim=2)
            if progress is not None:
                progress(step + 1, self.steps)
        return x


class FlowSampler(WindowedSampler):
    """The paper's sampler: a fixed schedule, a fixed-step solver, classifier-free guidance (3.1.2, 3.4.2).

    Args:
        window: latent frames per window for MultiDiffusion over long samples; None samples the whole at once.
        window_overlap: latent frames shared by neighbouring windows.
        window_shape: weights inside a window: `triangular` (6.1.5), `linear` for ramps over the overlaps only, or `uniform`.
        **options: those of `GuidedSampler`.
    """

    def __init__(self, *, window: int | None = None, window_overlap: int = 0, window_shape: Shape = "triangular", **options: Any) -> None:
        super().__init__(**options)
        if window is None and window_overlap:
            raise UsageError(
                f"window_overlap={window_overlap} was given without a window",
                "without windows the whole is sampled at once",
                f"give `window` too, more than {window_overlap} latent frames, or leave window_overlap out",
            )
        self.windows = None if window is None else Windows(size=window, overlap=window_overlap, shape=window_shape)


def segment_conditionings(conditionings: Conditionings, index: int, window: Window, length: int) -> Sequence[Conditioning]:
    """The conditionings of one segment of a sample of `length` frames: made for it, or cut out of those of the whole."""
    if callable(conditionings):
        return conditionings(index, window)
    if window.size == length:
        return conditionings
    return [conditioning.window(window.start, window.stop) for conditioning in conditionings]


def _stacked(told: Sequence[Sequence[Conditioning]]) -> Sequence[Conditioning]:
    """The variants of several windows as those of one larger batch."""
    return told[0] if len(told) == 1 else [Conditioning.stack(variant) for variant in zip(*told, strict=True)]


def _groups(windows: Sequence[Window], size: int) -> list[list[int]]:
    """Neighbouring windows of one size, at most `size` of them together, by their indices."""
    groups: list[list[int]] = []
    for index, window in enumerate(windows):
        if groups and len(groups[-1]) < size and windows[groups[-1][0]].size == window.size:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
