"""Text encoders of the transformers library: kept frozen, and outside of the model that uses them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from moviegen_core.parallel.turns import in_turns
from moviegen_core.pretrained import Dtype, load_pretrained
from moviegen_core.pretrained import load_frozen as load_encoder

if TYPE_CHECKING:
    from moviegen_core.parallel.plan import ParallelPlan

__all__ = ["Dtype", "FrozenEncoder", "load_encoder", "load_pretrained"]


class FrozenEncoder:
    """Holds a frozen network outside of the module tree, and loads it when it is first used.

    So it is in no optimizer, no checkpoint and no moving average, is not copied with the model, and costs nothing where embeddings are
    precomputed. It follows its user to his device.

    Args:
        load: loads the network.
    """

    def __init__(self, load: Callable[[], nn.Module]) -> None:
        self._load = load
        self._network: nn.Module | None = None
        self.plan: ParallelPlan | None = None  # where set, the network is sharded once it is loaded

    @property
    def is_loaded(self) -> bool:
        """True once the network was used."""
        return self._network is not None

    def on(self, device: torch.device) -> nn.Module:
        """The network on a device."""
        if self._network is None:
            self._network = self._load() if self.plan is None else in_turns(self._load_shards)
        if self.plan is None and next(self._network.parameters()).device != device:
            with torch.inference_mode(False):
                self._network.to(device)
        return self._network

    def _load_shards(self) -> nn.Module:
        """Load the network and keep this process's shards, layer by layer, the layers being those of its longest list of modules."""
        network = self._load()
        lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
        for layer in max(lists, key=len, default=()):
            self.plan.shard(layer)
        self.plan.shard(network)
        return network

    def __deepcopy__(self, memo: dict[int, Any]) -> "FrozenEncoder":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"_load": self._load, "_network": None, "plan": None}
