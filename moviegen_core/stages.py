"""Starting a training from the weights of an earlier stage."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from moviegen_core.weights import load_into, open_weights

logger = logging.getLogger(__name__)


def load_stage(model: Any, checkpoint: str | Path) -> None:
    """Give a `FlowModel` the backbone and conditioners of an earlier stage; its `adapt_state_dict` may grow them on the way.

    What serves an auxiliary loss alone is loaded where both stages have it. Otherwise it starts anew, or is left out.
    """
    state = model.adapt_state_dict(open_weights(checkpoint))
    unshared = _unshared_parts(model, state, source=checkpoint)
    load_into(model, state, source=checkpoint, prefixes=("backbone.", "conditioners."), without=unshared)


def _unshared_parts(model: Any, state: Mapping[str, Tensor], *, source: str | Path) -> list[str]:
    """Prefixes of the conditioners' auxiliary parts that only one side has."""
    unshared, own = [], model.state_dict(keep_vars=True)
    for prefix in [f"conditioners.{name}.{part}." for name, found in model.conditioners.items() for part in found.auxiliary_parts]:
        here, there = (any(name.startswith(prefix) for name in names) for names in (own, state))
        if here != there:
            told = "lacks %s*: it starts anew" if here else "holds %s*, which this model does without"
            logger.warning(f"the stage %s {told}", source, prefix)
            unshared.append(prefix)
    return unshared
