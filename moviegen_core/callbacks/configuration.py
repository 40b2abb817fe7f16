"""A checkpoint carries the configuration of the model it belongs to, so that one file is enough to predict, export and go on."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class ConfigurationSaver(Callback):
    """Writes the model's class path and arguments into every checkpoint, as `hyper_parameters`; plain values only.

    Arguments that name files to start from (the model's `starting_points`) are left out: the checkpoint holds what was loaded from them.
    The command line adds this callback by itself.

    Args:
        class_path: where the model's class is found.
        init_args: its arguments as in YAML.
    """

    def __init__(self, *, class_path: str, init_args: Mapping[str, Any]) -> None:
        self.class_path = class_path
        self.init_args = dict(init_args)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration."""
        dropped = set(getattr(pl_module, "starting_points", ()))
        kept = {name: value for name, value in self.init_args.items() if name not in dropped}
        checkpoint["hyper_parameters"] = {**kept, "_class_path": self.class_path}
