"""The oracle as a torchmetrics metric: accumulates over batches and ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from moviegen_core.errors import UsageError
from moviegen_data.toyworld import SceneSpec
from moviegen_eval.oracle import ATTRIBUTES, Oracle, match


class OracleAccuracy(Metric):
    """Fractions of objects whose colour, shape and motion the oracle reads as the scene says.

    Args:
        kwargs: settings of every torchmetrics metric.
    """

    higher_is_better = True
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.oracle = Oracle()
        self.add_state("hits", torch.zeros(len(ATTRIBUTES) + 1, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, video: Float[Tensor, "b 3 t h w"], metadata: Sequence[Mapping[str, Any]]) -> None:
        """Read a batch of clips in [-1, 1]; each sample's metadata holds its scene under "scene"."""
        for clip, item in zip(video, metadata, strict=True):
            if "scene" not in item:
                raise UsageError(
                    f"metadata of {', '.join(item) or 'nothing'} was given", "the oracle needs 'scene'", "predict with ToyWorldData"
                )
            for row in match(self.oracle.read(clip), SceneSpec.from_dict(item["scene"])):
                self.hits += torch.tensor([*row, all(row)], dtype=torch.long, device=self.hits.device)
                self.count += 1

    def compute(self) -> dict[str, Tensor]:
        """Fractions by attribute, and "all" of them at once."""
        return dict(zip((*ATTRIBUTES, "all"), self.hits / self.count.clamp(min=1), strict=True))
