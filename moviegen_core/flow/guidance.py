"""Classifier-free guidance, with a weight that is constant or grows along the flow (6.1.6: "dynamic guidance").

The scale s multiplies the difference of the conditional and the unconditional velocity: v_null + s·(v − v_null). Scale 1 is no guidance;
what is beyond it, s − 1, is the weight of the guidance term in v + (s − 1)·(v − v_null), and the weight on the unconditional field.
"""

import math

from jaxtyping import Float
from torch import Tensor


def classifier_free_guidance(
    conditional: Float[Tensor, "b ..."], unconditional: Float[Tensor, "b ..."], scale: float
) -> Float[Tensor, "b ..."]:
    """v_null + scale·(v − v_null); scale 1 leaves the conditional velocity as it is."""
    return unconditional + scale * (conditional - unconditional)


class GuidanceSchedule:
    """How the guidance scale changes along the flow, from noise at t = 0 to data at t = 1.

    A schedule gives the scale 1 + (s − 1)·r(t), where r has mean 1 over t in [0, 1]: the mean scale is s, and s = 1 is no guidance at any
    time. Define `ratio` for a schedule of your own.
    """

    def ratio(self, t: float) -> float:
        """r(t), at least 0 and of mean 1 over [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} must define ratio(t)")

    def __call__(self, scale: float, t: float) -> float:
        """The scale at time t in [0, 1] where `scale` is the mean."""
        return 1.0 + (scale - 1.0) * self.ratio(t)


class ConstantGuidance(GuidanceSchedule):
    """The same scale at all times."""

    def ratio(self, t):
        """1."""
        return 1.0


class LinearGuidance(GuidanceSchedule):
    """Grows in proportion to time, from no guidance at the noise to twice the weight at the data.

    The linear scheduler of Wang et al. 2024 (arXiv 2404.13040), who count time from data (0) to noise (T): ω(t) = 2·ω·(1 − t/T), where the
    factor keeps the area under the curve that of the static weight, ∫ω(t)dt = ω·T. We take their ω for the weight of the guidance term,
    s − 1. They find that simple increasing weights beat a static one across models, and that shapes with more parameters do not carry over
    from one model to another.
    """

    def ratio(self, t):
        """2t."""
        return 2.0 * t


class CosineGuidance(GuidanceSchedule):
    """Grows along half a cosine: slowly at both ends, from no guidance at the noise to twice the weight at the data.

    The cosine scheduler of Wang et al. 2024 (arXiv 2404.13040): in their time ω(t) = ω·(1 + cos(π·t/T)), of the static weight's area.
    """

    def ratio(self, t):
        """1 − cos(πt)."""
        return 1.0 - math.cos(math.pi * t)
