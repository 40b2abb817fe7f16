"""Growth of a backbone between the stages of the recipe (3.2.2): longer positional tables, more input channels."""

from collections import ChainMap
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from moviegen_core.errors import UsageError
from moviegen_core.parallel.dtensor import whole
from moviegen_t2v.model import VideoTransformer

SPATIAL_TABLES = ("positions.rows", "positions.columns")
TEMPORAL_TABLE = "positions.frames"
PATCHIFIER = "patchify.weight"
GROWN = (*SPATIAL_TABLES, TEMPORAL_TABLE, PATCHIFIER)


def grow(state_dict: dict[str, Tensor], backbone: VideoTransformer) -> dict[str, Tensor]:
    """Fit the weights of an earlier stage to a backbone with longer tables or more input channels; equal shapes pass untouched.

    Spatial tables are stretched by linear interpolation: the paper says "2× expansion" and "3×" (3.2.2) and no more, and stretching
    keeps a patch's place in the picture when the resolution grows. The temporal table keeps its entries and gains new ones. Weights of
    new input channels are zero, so the grown backbone starts by ignoring them (3.1.5, 5.1).

    Args:
        state_dict: weights of the earlier stage, named as in `backbone.state_dict()`.
        backbone: the backbone to fit, possibly on the meta device.

    Raises:
        UsageError: a weight differs in a way that no growth explains.
    """
    grown = dict(state_dict)
    for name, wanted in backbone.state_dict().items():
        given = state_dict.get(name)
        if given is None or given.shape == wanted.shape:
            continue
        if name in SPATIAL_TABLES and _longer(given, wanted):
            grown[name] = _stretch(given, wanted.shape[0])
        elif name == TEMPORAL_TABLE and _longer(given, wanted):
            grown[name] = torch.cat([given, _fresh(wanted, backbone.positions.std)[given.shape[0] :].to(given)])
        elif name == PATCHIFIER and _more_channels(given, wanted, backbone.in_channels):
            missing = wanted.shape[1] - given.shape[1]
            grown[name] = F.pad(given, (0, 0, 0, 0, 0, 0, 0, missing))
        else:
            raise UsageError(
                f"the checkpoint's {name} has shape {tuple(given.shape)}; this backbone's has {tuple(wanted.shape)}",
                "only longer positional tables and more extra channels can be grown",
                "give the checkpoint's sizes to the backbone, or another checkpoint",
            )
    return grown


def grow_stage(state: Mapping[str, Tensor], backbone: VideoTransformer, *, prefix: str = "backbone.") -> Mapping[str, Tensor]:
    """Fit an earlier stage's whole model to a backbone; all but tables and input weights are read when they are asked for.

    Args:
        state: weights by name, which reads a tensor when it is asked for one.
        backbone: the backbone to fit.
        prefix: what the names of the backbone's weights begin with.
    """
    names = (name for name in state if name.startswith(prefix) and name.removeprefix(prefix) in GROWN)
    tables = {name.removeprefix(prefix): state[name] for name in names}
    return ChainMap({prefix + name: table for name, table in grow(tables, backbone).items()}, state)


def _longer(given: Tensor, wanted: Tensor) -> bool:
    return given.shape[1:] == wanted.shape[1:] and given.shape[0] < wanted.shape[0]


def _more_channels(given: Tensor, wanted: Tensor, in_channels: int) -> bool:
    same = given.shape[0] == wanted.shape[0] and given.shape[2:] == wanted.shape[2:]
    return same and in_channels <= given.shape[1] < wanted.shape[1]


def _stretch(table: Tensor, length: int) -> Tensor:
    """Resample a table (m, d) to (length, d) linearly, entries at the centres of their cells."""
    return F.interpolate(table.float().t()[None], size=length, mode="linear", align_corners=False)[0].t().to(table.dtype).contiguous()


def _fresh(wanted: Tensor, std: float) -> Tensor:
    """New entries of a table: those the backbone drew, or new draws where it holds no numbers yet."""
    return torch.randn(wanted.shape) * std if wanted.is_meta else whole(wanted.detach()).cpu()
