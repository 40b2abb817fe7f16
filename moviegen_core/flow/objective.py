"""The training objective: mean squared error on the path's target (paper eq. 2)."""

from jaxtyping import Float
from torch import Tensor


def squared_error(prediction: Float[Tensor, "b ..."], target: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """Mean squared error of each sample, taken in fp32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)
