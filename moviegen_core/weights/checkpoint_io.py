"""How Lightning's strategies read and write checkpoints here: whole or not at all, weights-only, files and folders alike."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import Trainer

from moviegen_core.errors import UsageError
from moviegen_core.files import replacing
from moviegen_core.weights.reading import load_torch, open_weights, read_rest
from moviegen_core.weights.sharded import ShardedFolder, looks_sharded


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a local checkpoint beside the one of its name and then takes its place in one step, so that a crash leaves a valid one.

    It also reads folders of sharded training, whole, for a single process. Remote paths are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write a file; what had its name, file or folder, is removed after."""
        if storage_options is not None or not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with replacing(Path(path)) as temporary:
            save_torch(checkpoint, temporary)

    def load_checkpoint(self, path: _PATH, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Read a file or folder; only a file, and only where `weights_only` is false, may run code."""
        local = _is_local_file_protocol(path)
        if local and looks_sharded(Path(path)):
            return load_whole(ShardedFolder(Path(path)))
        if not local or weights_only is False:
            return super().load_checkpoint(path, map_location, weights_only is not False)
        open_weights(path)  # tells what is wrong with it
        return load_torch(Path(path))


def save_torch(content: Any, path: Path) -> None:
    """`torch.save` through a file of Python's, whose errors say what is wrong; torch's own file does not."""
    with open(path, "wb") as file:
        torch.save(content, file)


def use_whole_checkpoints(trainer: Trainer) -> None:
    """Let a trainer save so, unless it was given a way of its own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()


def load_whole(folder: ShardedFolder) -> dict[str, Any]:
    """A sharded checkpoint as one process would have saved it.

    Raises:
        UsageError: the folder holds no weights.
    """
    folder.require_rest()
    state = folder.tree("state_dict")
    if not state:
        raise UsageError(f"the sharded checkpoint {folder.path} was given", "it holds no weights", "give the checkpoint of a training run")
    names = sorted({path[0] for path in folder.index.planner_data.values() if str(path[0]).startswith("optimizer_")})
    optimizers = [by_number(folder.tree(name)) for name in names]
    return {**read_rest(folder), "state_dict": state, "optimizer_states": optimizers}


def by_number(state: dict[str, Any]) -> dict[str, Any]:
    """Name the parameters of an optimizer's state as a single process does: by their place."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {numbers[name]: values for name, values in state.get("state", {}).items()}, "param_groups": groups}
