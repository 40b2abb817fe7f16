"""The backbone interface: a velocity field over latents."""

from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor

from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError

if TYPE_CHECKING:
    from moviegen_core.footprint import Footprint
    from moviegen_core.parallel.plan import ParallelPlan


class Backbone(LightningModule):
    """Predicts the velocity of a noisy latent: (x_t, t, Conditioning) -> v.

    Args:
        in_channels: channels of the latent that is generated.
        width: width d of the tokens; conditioners are built for it.
        extra_channels: channels that conditioners add through the `channels` door; their input weights start at zero.

    A class sets `builds_on_meta` where the `reset_parameters` of its parts draw all that its constructor draws. On a mesh of processes it
    is then built without memory and given weights part by part; any other class is built whole on every process, and then sharded.
    """

    builds_on_meta: ClassVar[bool] = False

    def __init__(self, *, in_channels: int = 16, width: int = 6144, extra_channels: int = 0) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.width = width
        self.extra_channels = extra_channels

    def forward(self, x_t: Float[Tensor, "b c ..."], t: Float[Tensor, " b"], conditioning: Conditioning) -> Float[Tensor, "b c ..."]:
        """Predict the velocity at `x_t`; t in [0, 1], 0 is noise and 1 is data."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x_t, t, conditioning)")

    def parallelize(self, plan: "ParallelPlan") -> None:
        """Shard this backbone in place; by FSDP alone unless a subclass knows more.

        Raises:
            UsageError: the plan wants context or tensor parallelism, which this backbone has not.
        """
        if plan.context.size() * plan.tensor.size() > 1:
            raise UsageError(
                f"context_parallel_size={plan.context.size()} and tensor_parallel_size={plan.tensor.size()} were given",
                f"{type(self).__name__} can be sharded over data alone",
                "leave both at 1, or override its parallelize(plan)",
            )
        plan.shard(self)

    def num_tokens(self, latent_shape: tuple[int, ...]) -> int:
        """Sequence length for one latent of shape (c, t, h, w), or (c, t) of a sound."""
        raise NotImplementedError(f"{type(self).__name__} must define num_tokens(latent_shape)")

    def num_flops(self, latent_shape: tuple[int, ...], context_length: int) -> int:
        """Floating-point operations of one forward pass of one sample (a multiply-add counts two)."""
        raise NotImplementedError(f"{type(self).__name__} must define num_flops(latent_shape, context_length)")

    def footprint(
        self, latent_shape: tuple[int, ...], context_length: int, *, context: int = 1, tensor: int = 1, element_bytes: int = 2
    ) -> "Footprint":
        """What one sample costs a process in training, as `parallelize` shards this backbone; by it `moviegen plan` plans.

        Args:
            latent_shape: shape (c, t, h, w) of one latent, (c, t) of a sound.
            context_length: tokens of the context; 0 for none.
            context: processes that share the sequence.
            tensor: processes that share each matrix.
            element_bytes: bytes of a number in computation.

        Raises:
            UsageError: this backbone does not say, or cannot be sharded so.
        """
        raise UsageError(
            f"a plan for {type(self).__name__} was asked for",
            "it does not say what it keeps and computes",
            "define its footprint(latent_shape, context_length, ...), as VideoTransformer does",
        )

    def reset_parameters(self) -> None:
        """Draw the initial weights; called after a model built on the meta device was materialised."""
        for module in self.modules():
            if module is not self and hasattr(module, "reset_parameters"):
                module.reset_parameters()
