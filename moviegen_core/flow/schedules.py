"""Discrete times for sampling: increasing from 0 (noise) to 1 (data), `num_steps + 1` of them (paper 3.4.2)."""

import torch
from jaxtyping import Float
from torch import Tensor


def linear(num_steps: int) -> Float[Tensor, " n"]:
    """Evenly spaced times."""
    _check_steps(num_steps, minimum=1)
    return torch.arange(num_steps + 1, dtype=torch.float64).div(num_steps).float()


def quadratic(num_steps: int) -> Float[Tensor, " n"]:
    """Squares of evenly spaced times: short steps at the noisy end, where the scene and its motion are decided."""
    _check_steps(num_steps, minimum=1)
    return torch.arange(num_steps + 1, dtype=torch.float64).div(num_steps).square().float()


def linear_quadratic(num_steps: int = 50, *, emulated_steps: int = 250) -> Float[Tensor, " n"]:
    """The paper's schedule: half the steps copy the start of a long linear schedule, the other half reach 1 on a parabola.

    The first num_steps // 2 steps are those of a linear schedule of `emulated_steps`; the parabola starts with the linear part's slope.

    Args:
        num_steps: number of steps, at least 2.
        emulated_steps: length N of the linear schedule that is imitated (250; the paper also shows 1000).

    Raises:
        ValueError: fewer than 2 steps, or more steps than the schedule that is imitated.
    """
    _check_steps(num_steps, minimum=2)
    if emulated_steps < num_steps:
        raise ValueError(
            f"{num_steps} steps were asked to emulate {emulated_steps}; emulated_steps must be at least num_steps; "
            f"give emulated_steps={num_steps} or more, or use the linear schedule"
        )
    num_linear = num_steps // 2
    num_quadratic = num_steps - num_linear
    slope = 1.0 / emulated_steps
    knee = num_linear * slope
    curvature = (1.0 - knee - slope * num_quadratic) / num_quadratic**2
    k = torch.arange(1, num_quadratic + 1, dtype=torch.float64)
    head = torch.arange(num_linear + 1, dtype=torch.float64) / emulated_steps
    times = torch.cat([head, knee + slope * k + curvature * k**2])
    times[-1] = 1.0
    return times.float()


class Schedule:
    """Chooses the discrete times of sampling."""

    def __call__(self, num_steps: int) -> Float[Tensor, " n"]:
        """Increasing times from 0 to 1, `num_steps + 1` of them."""
        raise NotImplementedError


class LinearSchedule(Schedule):
    """Evenly spaced times."""

    def __call__(self, num_steps: int) -> Float[Tensor, " n"]:
        """See `linear`."""
        return linear(num_steps)


class QuadraticSchedule(Schedule):
    """Squares of evenly spaced times."""

    def __call__(self, num_steps: int) -> Float[Tensor, " n"]:
        """See `quadratic`."""
        return quadratic(num_steps)


class LinearQuadraticSchedule(Schedule):
    """The paper's schedule (3.4.2).

    Args:
        emulated_steps: length N of the linear schedule whose start is copied.
    """

    def __init__(self, *, emulated_steps: int = 250) -> None:
        self.emulated_steps = emulated_steps

    def __call__(self, num_steps: int) -> Float[Tensor, " n"]:
        """See `linear_quadratic`."""
        return linear_quadratic(num_steps, emulated_steps=self.emulated_steps)


def _check_steps(num_steps: int, *, minimum: int) -> None:
    if num_steps < minimum:
        raise ValueError(f"{num_steps} sampling steps were asked for; this schedule takes {minimum} or more; give for example steps=50")
