"""Every class that any plugin offers keeps the contract of its kind."""

import importlib
import inspect

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.strategies import Strategy
from moviegen_hello import HelloBackbone, HelloConditioner, HelloLatents
from torch import nn

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.backbone import Backbone
from moviegen_core.conditioner import Conditioner, Conditioning
from moviegen_core.plugins import plugin_host
from moviegen_core.sampler import FlowSampler, Sampler
from moviegen_core.testing import (
    check_autoencoder,
    check_backbone,
    check_component_typed,
    check_conditioner,
    check_sampler,
)

BASES = {
    "model": LightningModule,
    "backbone": Backbone,
    "autoencoder": Autoencoder,
    "conditioner": Conditioner,
    "sampler": Sampler,
    "data": LightningDataModule,
    "callback": Callback,
    "strategy": Strategy,
}
OFFERED = [pytest.param(found[0][0], id=name) for name, found in plugin_host().components.items()]


def imported(component):
    module, _, name = component.class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("component", OFFERED)
def test_offered_class_exists_and_is_of_its_kind(component):
    cls = imported(component)
    assert issubclass(cls, BASES[component.kind])
    assert not inspect.isabstract(cls)
    assert component.summary and not component.summary.endswith(".")


@pytest.mark.parametrize("component", OFFERED)
def test_offered_class_is_typed_and_documented(component):
    check_component_typed(imported(component))


@pytest.mark.parametrize("component", [param for param in OFFERED if param.values[0].kind == "backbone"])
def test_offered_backbone_builds_with_its_defaults_on_the_meta_device(component):
    with torch.device("meta"):
        backbone = imported(component)()
    assert all(parameter.is_meta for parameter in backbone.parameters())


def modulation(size: int, width: int) -> Conditioning:
    return Conditioning(modulation=torch.randn(size, width))


def test_strangers_classes_pass():
    for cls in (HelloBackbone, HelloConditioner, HelloLatents):
        check_component_typed(cls)
    check_backbone(HelloBackbone, latent_shape=(4, 2, 4, 4), conditioning=modulation)
    check_conditioner(lambda width: HelloConditioner(width))


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 1.0}, {"batched_guidance": False}, {"window": 2, "window_overlap": 1}])
def test_flow_sampler_passes(options):
    check_sampler(lambda: FlowSampler(steps=6, **options), shape=(4, 5, 4, 4))


class Untyped(Backbone):
    """Forgets a type.

    Args:
        width: width.
    """

    def __init__(self, *, width=8):
        super().__init__(width=width)


class Undocumented(Backbone):
    """Says nothing."""

    def __init__(self, *, width: int = 8, secret: int = 1) -> None:
        super().__init__(width=width)


class Positional(Backbone):
    """Takes what it likes.

    Args:
        depth: depth.
    """

    def __init__(self, depth: int = 8) -> None:
        super().__init__(width=8)


@pytest.mark.parametrize(
    ("cls", "told"), [(Untyped, r"Untyped.__init__\(width\) has no type"), (Undocumented, "secret"), (Positional, "is positional")]
)
def test_constructors_that_the_command_line_could_not_show(cls, told):
    with pytest.raises(AssertionError, match=told):
        check_component_typed(cls)


class Leaky(HelloBackbone):
    def forward(self, x_t, t, conditioning):
        return super().forward(x_t, t, conditioning) + x_t.mean()


class Timeless(HelloBackbone):
    def forward(self, x_t, t, conditioning):
        return super().forward(x_t, torch.zeros_like(t), conditioning)


class Idle(HelloBackbone):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)


class Forgetful(HelloBackbone):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x_t, t, conditioning):
        return self.scale * super().forward(x_t, t, conditioning)


class Short(HelloBackbone):
    def forward(self, x_t, t, conditioning):
        return super().forward(x_t, t, conditioning)[:, :, :1]


class Peeking(HelloBackbone):
    def forward(self, x_t, t, conditioning):
        told = Conditioning(modulation=conditioning.context.mean(1))
        return super().forward(x_t, t, told)


class Overstated(HelloBackbone):
    builds_on_meta = True

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.last.weight)


@pytest.mark.parametrize(
    ("cls", "told", "conditioning"),
    [
        (Leaky, "depends on the other samples", modulation),
        (Timeless, "does not depend on the time", modulation),
        (Idle, r"no gradient reaches \['unused", modulation),
        (Forgetful, r"scale was never drawn; Forgetful must set it in reset_parameters", modulation),
        (
            Overstated,
            r"last.weight has a deviation of 0 when built and [\d.]+ from reset_parameters\(\); .* leave builds_on_meta",
            modulation,
        ),
        (Short, "the velocity has shape", modulation),
        (Peeking, "depends on masked context tokens", None),
    ],
)
def test_broken_backbones_are_caught(cls, told, conditioning):
    with pytest.raises(AssertionError, match=told):
        check_backbone(cls, latent_shape=(4, 2, 4, 4), conditioning=conditioning)


class OneDoor(HelloConditioner):
    def null(self, batch):
        return Conditioning()


class Narrow(HelloConditioner):
    def __init__(self, width: int) -> None:
        super().__init__(width - 1)


@pytest.mark.parametrize(("cls", "told"), [(OneDoor, "forward and null differ"), (Narrow, "is 15 wide, the backbone 16")])
def test_broken_conditioners_are_caught(cls, told):
    with pytest.raises(AssertionError, match=told):
        check_conditioner(lambda width: cls(width))


class Stopping(FlowSampler):
    def sample(self, velocity, noise, conditionings, *, progress=None):
        return super().sample(velocity, noise, conditionings, progress=progress) * 0.99


def test_broken_sampler_is_caught():
    with pytest.raises(AssertionError, match="a constant velocity"):
        check_sampler(lambda: Stopping(steps=4))


class Pooling(Autoencoder):
    """Averages blocks and repeats them."""

    def __init__(self) -> None:
        super().__init__(latent_channels=3, temporal_factor=4, spatial_factor=4)
        self.gain = nn.Linear(1, 1, bias=False)

    def encode_raw(self, video, *, sample=False):
        video = torch.cat([video, video[:, :, -1:].expand(-1, -1, -video.shape[2] % 4, -1, -1)], dim=2)
        return nn.functional.avg_pool3d(video, 4)

    def decode_raw(self, latent):
        return nn.functional.interpolate(latent, scale_factor=4.0)


class Unnormalised(Pooling):
    def encode(self, video, *, sample=False):
        return self.encode_raw(video, sample=sample)


def test_autoencoders():
    check_autoencoder(Pooling, meta=False)
    with pytest.raises(AssertionError, match="encode ignores the latent statistics"):
        check_autoencoder(Unnormalised, meta=False)
