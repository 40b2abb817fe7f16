"""Samplers: from noise to data through a velocity field, by schedule × solver × guidance × windows."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor

from moviegen_core.conditioner import Conditioning
from moviegen_core.flow.guidance import classifier_free_guidance
from moviegen_core.flow.schedules import LinearQuadraticSchedule, Schedule
from moviegen_core.flow.solvers import EulerSolver, Solver
from moviegen_core.flow.windows import Windows

VelocityField = Callable[[Tensor, Tensor, Conditioning], Tensor]
Progress = Callable[[int, int], None]


class Sampler(LightningModule):
    """Turns noise into data.

    A sampler first says which variants of the conditioning it needs (`variants`), then receives them in that order.
    """

    def variants(self, conditioners: Sequence[str]) -> list[frozenset[str]]:
        """For every pass of the backbone, the names of the conditioners that are replaced by their null version."""
        return [frozenset()]

    def sample(
        self,
        velocity: VelocityField,
        noise: Float[Tensor, "b c ..."],
        conditionings: Sequence[Conditioning],
        *,
        progress: Progress | None = None,
    ) -> Float[Tensor, "b c ..."]:
        """Integrate from noise at t = 0 to data at t = 1.

        Args:
            velocity: (x, t, conditioning) -> dx/dt with t of shape (b,).
            noise: a sample of N(0, I).
            conditionings: one for each of `variants`.
            progress: called as progress(step, num_steps) after each step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define sample(velocity, noise, conditionings)")


class FlowSampler(Sampler):
    """The paper's sampler: a fixed schedule, a fixed-step solver, classifier-free guidance (3.1.2, 3.4.2).

    Args:
        steps: number of solver steps.
        guidance_scale: weight of the conditional over the unconditional velocity; 1 turns guidance off (and halves the cost).
        batched_guidance: evaluate both in one pass of twice the batch; turn off where memory is short.
        schedule: discrete times; the linear-quadratic schedule of the paper unless given.
        solver: Euler unless given.
        window: latent frames per window for MultiDiffusion over long samples; None samples the whole at once.
        window_overlap: latent frames shared by neighbouring windows.
    """

    def __init__(
        self,
        *,
        steps: int = 50,
        guidance_scale: float = 7.5,
        batched_guidance: bool = True,
        schedule: Schedule | None = None,
        solver: Solver | None = None,
        window: int | None = None,
        window_overlap: int = 0,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.guidance_scale = guidance_scale
        self.batched_guidance = batched_guidance
        self.schedule = schedule or LinearQuadraticSchedule()
        self.solver = solver or EulerSolver()
        self.windows = None if window is None else Windows(size=window, overlap=window_overlap, shape="triangular")
        self.schedule(steps)  # a number of steps the schedule refuses is refused before any work

    def variants(self, conditioners: Sequence[str]) -> list[frozenset[str]]:
        """Everything given; and nothing given where guidance is on."""
        given: list[frozenset[str]] = [frozenset()]
        return given if self.guidance_scale == 1.0 or not conditioners else [*given, frozenset(conditioners)]

    def sample(self, velocity, noise, conditionings, *, progress=None):
        """Integrate the guided velocity; see `Sampler.sample`."""
        times = self.schedule(self.steps).tolist()

        def guided(x: Tensor, t: float) -> Tensor:
            return self._windowed(velocity, x, x.new_full((x.shape[0],), t, dtype=torch.float32), conditionings)

        x = noise
        for step, (t, t_next) in enumerate(zip(times[:-1], times[1:], strict=True)):
            x = self.solver.step(guided, x, t, t_next)
            if progress is not None:
                progress(step + 1, self.steps)
        return x

    def _windowed(self, velocity, x, t, conditionings):
        length = x.shape[2]
        if self.windows is None or length <= self.windows.size:
            return self._guided(velocity, x, t, conditionings)
        parts = [
            self._guided(velocity, x[:, :, w.start : w.stop], t, [c.window(w.start, w.stop) for c in conditionings])
            for w in self.windows(length)
        ]
        return self.windows.blend(parts, length, dim=2)

    def _guided(self, velocity, x, t, conditionings):
        if len(conditionings) == 1:
            return velocity(x, t, conditionings[0])
        if self.batched_guidance:
            both = velocity(torch.cat([x, x]), torch.cat([t, t]), Conditioning.stack(conditionings))
            conditional, unconditional = both.chunk(2)
        else:
            conditional, unconditional = (velocity(x, t, conditioning) for conditioning in conditionings)
        return classifier_free_guidance(conditional, unconditional, self.guidance_scale)
