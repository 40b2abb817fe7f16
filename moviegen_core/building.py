"""Building a backbone: without weights where its class lets them be drawn later."""

import logging
from collections.abc import Callable

import torch

from moviegen_core.backbone import Backbone
from moviegen_core.nn.initialization import seeded
from moviegen_core.randomness import run_seed

logger = logging.getLogger(__name__)


def build_backbone(factory: Callable[[], Backbone]) -> Backbone:
    """The backbone; on the meta device, and so without memory, where its class allows it."""
    try:
        with torch.device("meta"):
            backbone = factory()
        if backbone.builds_on_meta:
            return backbone
    except Exception as error:
        # What is wrong with its arguments is told below; what cannot be built without memory is built with it.
        logger.info("the backbone cannot be built on the meta device (%s); every process builds it whole", error)
    with seeded(run_seed(), "backbone"):
        return factory()
