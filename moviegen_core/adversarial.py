"""Autoencoders that a discriminator teaches: it serves training alone, and is saved beside their weights."""

from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from moviegen_core.errors import UsageError


class TaughtByDiscriminator(LightningModule):
    """Keeps `discriminator` out of the weights, so that these fit whoever only encodes and decodes, and takes it up again on resume.

    Name it before the other base class; set `discriminator` in `setup`, where training needs one.

    Args:
        options: those of the other base class.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.discriminator: nn.Module | None = None
        self.register_state_dict_post_hook(_without_discriminator)
        self.register_load_state_dict_post_hook(_forgive_discriminator)

    def refuse_fp16(self) -> None:
        """Refuse a precision whose gradients would have to be scaled: the two optimizers are stepped by hand."""
        if self.trainer.precision == "16-mixed":
            raise UsageError(
                "trainer.precision=16-mixed was given together with a discriminator",
                "its optimizers are stepped by hand, and gradients are not scaled for them",
                "set trainer.precision to bf16-mixed or 32-true, or leave the discriminator out",
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the discriminator beside the weights."""
        if self.discriminator is not None:
            checkpoint["discriminator"] = self.discriminator.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the discriminator up again."""
        if self.discriminator is not None and "discriminator" in checkpoint:
            self.discriminator.load_state_dict(checkpoint["discriminator"])


def _without_discriminator(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}discriminator.")]:
        del state[key]


def _forgive_discriminator(module: nn.Module, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if ".discriminator." not in f".{key}"]
