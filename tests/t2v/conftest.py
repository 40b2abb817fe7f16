"""A backbone small enough to read, with every weight awake."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from moviegen_core.conditioner import Conditioning
from moviegen_t2v.model import VideoTransformer


@pytest.fixture
def sizes() -> dict[str, Any]:
    """Constructor arguments of a tiny backbone."""
    tables = {"max_frames": 4, "max_height": 4, "max_width": 4}
    return {"num_layers": 2, "width": 32, "ffn_width": 48, "num_heads": 4, "in_channels": 4} | tables


@pytest.fixture
def awake(sizes: dict[str, Any]) -> Callable[..., VideoTransformer]:
    """Build a backbone and draw every weight, those that start at zero included, so that nothing hides behind a closed gate."""

    def build(**changes: Any) -> VideoTransformer:
        backbone = VideoTransformer(**sizes | changes)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        return backbone

    return build


@pytest.fixture
def backbone(awake: Callable[..., VideoTransformer]) -> VideoTransformer:
    """The tiny backbone."""
    return awake()


@pytest.fixture
def conditioning() -> Conditioning:
    """Contexts of three, one and five real tokens."""
    torch.manual_seed(2)
    mask = torch.tensor([[True, True, True, False, False], [True, False, False, False, False], [True] * 5])
    return Conditioning(context=torch.randn(3, 5, 32), context_mask=mask)
