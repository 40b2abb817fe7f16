"""Classifier-free guidance."""

from jaxtyping import Float
from torch import Tensor


def classifier_free_guidance(
    conditional: Float[Tensor, "b ..."], unconditional: Float[Tensor, "b ..."], scale: float
) -> Float[Tensor, "b ..."]:
    """v_null + scale·(v − v_null); scale 1 leaves the conditional velocity as it is."""
    return unconditional + scale * (conditional - unconditional)
