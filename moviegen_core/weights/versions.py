"""A checkpoint with a moving average holds two versions of its weights; this finds the one that is wanted."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from moviegen_core.errors import UsageError
from moviegen_core.weights.reading import TensorInfo, WeightsFile
from moviegen_core.weights.sharded import StoredTensor

Version = Literal["averaged", "trained"]

# Keys that Lightning's own weight averaging adds to a checkpoint, whose `state_dict` then holds the average.
_LIGHTNING_TRAINED, _LIGHTNING_STATE = "current_model_state", "averaging_state"
_TRAINING_ONLY = ("callbacks", "loops", "lr_schedulers", "native_amp_scaling_state", _LIGHTNING_TRAINED, _LIGHTNING_STATE)


class VersionedWeights(WeightsFile):
    """One version of a checkpoint's weights.

    Args:
        file: the checkpoint.
        version: the moving average, or the weights that were trained beside it.

    Raises:
        UsageError: the checkpoint holds only one version.
    """

    def __init__(self, file: WeightsFile, version: Version) -> None:
        super().__init__(file.path)
        self._file = file
        found = _overlay(file.metadata, version)
        if found is None:
            raise UsageError(
                f"the {version} weights of {file.path} were asked for",
                "it holds one version only, because no moving average was kept",
                "leave `ema` unset, or train with ExponentialMovingAverage",
            )
        renamed = {name.replace("_orig_mod.", ""): tensor for name, tensor in found.items()}
        self._overlay = {name: tensor for name, tensor in renamed.items() if name in file.infos}

    @cached_property
    def infos(self) -> dict[str, TensorInfo]:
        """Shape and type of every tensor by name."""
        return self._file.infos

    @property
    def metadata(self) -> dict[str, Any]:
        """All that the checkpoint holds beside its weights and optimizer states."""
        return self._file.metadata

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._overlay:
            return self._file[name]
        found = self._overlay[name]
        return (found.read() if isinstance(found, StoredTensor) else found).to(self.infos[name].dtype)


def lasting_metadata(file: WeightsFile) -> dict[str, Any]:
    """The metadata that stays true of other weights: hyper-parameters and versions, but no state of callbacks, loops or schedules."""
    return {key: value for key, value in file.metadata.items() if key not in _TRAINING_ONLY}


def _overlay(metadata: Mapping[str, Any], version: Version) -> Mapping[str, Tensor] | None:
    if _LIGHTNING_TRAINED in metadata:
        return metadata[_LIGHTNING_TRAINED] if version == "trained" else {}
    for state in (metadata.get("callbacks") or {}).values():
        if isinstance(state, dict) and {"online", "average"} <= state.keys():
            # `online` is filled where `state_dict` holds the average, `average` where it holds the trained weights.
            if version == "trained":
                return state["online"]
            return {} if state["online"] else state["average"]
    return None
