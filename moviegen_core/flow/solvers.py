"""Solvers of dx/dt = v(x, t) from noise to data."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]


class Solver:
    """Advances a sample over one step of time."""

    num_evaluations: int

    def step(self, velocity: Velocity, x: Float[Tensor, "b ..."], t: float, t_next: float) -> Float[Tensor, "b ..."]:
        """The sample at `t_next`, from the sample at `t`."""
        raise NotImplementedError


class EulerSolver(Solver):
    """First order, one evaluation a step: what the paper uses for video."""

    num_evaluations = 1

    def step(self, velocity, x, t, t_next):
        """x + Δt·v(x, t)."""
        return x + (t_next - t) * velocity(x, t)


class MidpointSolver(Solver):
    """Second order, two evaluations a step: what the paper uses for audio (6.1.6)."""

    num_evaluations = 2

    def step(self, velocity, x, t, t_next):
        """x + Δt·v at the middle of the step."""
        half = 0.5 * (t_next - t)
        return x + (t_next - t) * velocity(x + half * velocity(x, t), t + half)
