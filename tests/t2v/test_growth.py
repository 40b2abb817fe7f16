"""Growth between stages (3.2.2)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_t2v.growth import grow
from moviegen_t2v.model import VideoTransformer

Build = Callable[..., VideoTransformer]

IMAGES = {"max_frames": 1}
VIDEOS = {"max_frames": 4, "max_height": 8, "max_width": 8}


def test_stages_grow_the_tables(awake: Build, sizes: dict[str, Any]) -> None:
    earlier = awake(**IMAGES)
    later = VideoTransformer(**sizes | VIDEOS)
    grown = grow(earlier.state_dict(), later)
    later.load_state_dict(grown)
    torch.testing.assert_close(later.positions.frames[:1], earlier.positions.frames)
    assert later.positions.frames[1:].std() > 0
    # Twice the length: entry 2i lies a quarter step before the old entry i, entry 2i + 1 a quarter step after it.
    old, new = earlier.positions.rows, later.positions.rows
    torch.testing.assert_close(new[2:-1:2], 0.25 * old[:-1] + 0.75 * old[1:])
    torch.testing.assert_close(new[1:-1:2], 0.75 * old[:-1] + 0.25 * old[1:])
    torch.testing.assert_close(new[[0, -1]], old[[0, -1]])


def test_three_times_keeps_the_centres(awake: Build, sizes: dict[str, Any]) -> None:
    """From 256 to 768 px every old entry is the middle one of its three."""
    earlier = awake(**VIDEOS)
    later = VideoTransformer(**sizes | VIDEOS | {"max_height": 24, "max_width": 24})
    grown = grow(earlier.state_dict(), later)
    torch.testing.assert_close(grown["positions.columns"][1::3], earlier.positions.columns)
    assert grown["positions.frames"] is not None and torch.equal(grown["positions.frames"], earlier.positions.frames)


def test_new_channels_are_ignored_at_first(awake: Build, sizes: dict[str, Any]) -> None:
    earlier = awake()
    later = VideoTransformer(**sizes, extra_channels=2)
    later.load_state_dict(grow(earlier.state_dict(), later))
    x_t, t = torch.randn(1, 4, 2, 4, 4), torch.rand(1)
    after = later(x_t, t, Conditioning(channels=torch.randn(1, 2, 2, 4, 4)))
    torch.testing.assert_close(after, earlier(x_t, t, Conditioning()))


def test_equal_sizes_pass_untouched(awake: Build) -> None:
    backbone = awake()
    grown = grow(backbone.state_dict(), backbone)
    assert all(torch.equal(tensor, grown[name]) for name, tensor in backbone.state_dict().items())


def test_grows_onto_the_meta_device(awake: Build, sizes: dict[str, Any]) -> None:
    earlier = awake(**IMAGES)
    with torch.device("meta"):
        later = VideoTransformer(**sizes | VIDEOS)
    grown = grow(earlier.state_dict(), later)
    assert not any(tensor.is_meta for tensor in grown.values())
    assert grown["positions.frames"].shape == (4, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 64}, r"\(.*\); this backbone's has \(.*64.*\); only longer positional tables"),
        ({"max_height": 2}, r"positions.rows has shape \(4, 32\); this backbone's has \(2, 32\)"),
        ({"in_channels": 8, "max_frames": 8}, r"patchify.weight has shape \(32, 4, 1, 2, 2\)"),
    ],
)
def test_another_model_is_refused(changes: dict[str, int], message: str, backbone: VideoTransformer, sizes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=message):
        grow(backbone.state_dict(), VideoTransformer(**sizes | changes))
