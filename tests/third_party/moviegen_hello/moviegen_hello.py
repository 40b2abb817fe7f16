"""A stranger's plugin: a convolutional backbone, a conditioner of words, random latents, a stage of curation, and a command."""

from collections.abc import Iterator

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from moviegen_core import Command, Component, CurationStage, hookimpl
from moviegen_core.backbone import Backbone
from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioner, Conditioning
from moviegen_data.curation import Clip, ClipStage, Media


class HelloBackbone(Backbone):
    """Three convolutions.

    Args:
        in_channels: channels of the latent.
        width: channels inside, and the width of the conditioning vector.
        num_layers: convolutions between the first and the last.
    """

    def __init__(self, *, in_channels: int = 4, width: int = 8, num_layers: int = 1) -> None:
        super().__init__(in_channels=in_channels, width=width)
        self.first = nn.Conv3d(in_channels, width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv3d(width, width, 3, padding=1) for _ in range(num_layers))
        self.last = nn.Conv3d(width, in_channels, 3, padding=1)
        self.time = nn.Linear(1, width)

    def forward(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict the velocity."""
        told = self.time(t[:, None])
        if conditioning.modulation is not None:
            told = told + conditioning.modulation
        x = self.first(x_t) + told[:, :, None, None, None]
        for layer in self.layers:
            x = torch.nn.functional.silu(layer(x))
        return self.last(x)

    def num_tokens(self, latent_shape: tuple[int, ...]) -> int:
        """One token per latent cell."""
        return latent_shape[1] * latent_shape[2] * latent_shape[3]

    def num_flops(self, latent_shape: tuple[int, ...], context_length: int) -> int:
        """Two per weight of a convolution and cell; padding counts as cells."""
        weights = sum(module.weight.numel() for module in self.modules() if isinstance(module, nn.Conv3d))
        return 2 * self.num_tokens(latent_shape) * weights


class HelloConditioner(Conditioner):
    """The caption's length as a vector.

    Args:
        width: width of the backbone.
        dropout: probability that a training sample sees no caption.
    """

    def __init__(self, width: int, *, dropout: float = 0.1) -> None:
        super().__init__(dropout=dropout)
        self.table = nn.Embedding(32, width)

    def forward(self, batch: MediaBatch) -> Conditioning:
        """Look up the number of words, at most 31."""
        lengths = [min(len(caption.split()), 31) for caption in batch.captions]
        return Conditioning(modulation=self.table(torch.tensor(lengths, device=self.table.weight.device)))

    def null(self, batch: MediaBatch) -> Conditioning:
        """No words."""
        return Conditioning(modulation=self.table(torch.zeros(len(batch), dtype=torch.long, device=self.table.weight.device)))


class HelloLatents(LightningDataModule):
    """Random latents with a caption.

    Args:
        num_samples: how many.
        batch_size: samples in a batch.
        caption: the caption of them all.
    """

    def __init__(self, *, num_samples: int = 8, batch_size: int = 2, caption: str = "hello world") -> None:
        super().__init__()
        self.num_samples, self.batch_size, self.caption = num_samples, batch_size, caption

    def train_dataloader(self) -> DataLoader:
        """All samples."""
        return DataLoader(_Numbers(self.num_samples), batch_size=self.batch_size, collate_fn=self._collate)

    def val_dataloader(self) -> DataLoader:
        """The same."""
        return self.train_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """The same."""
        return self.train_dataloader()

    def _collate(self, numbers: list[int]) -> MediaBatch:
        latents = torch.stack([torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(n)) for n in numbers])
        return MediaBatch(captions=[self.caption] * len(numbers), keys=[f"hello-{n}" for n in numbers], latents=latents)


class _Numbers(Dataset):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


class HelloBrightness(ClipStage):
    """Drops dark clips.

    Args:
        least: mean of the middle frame at least, 0 to 255.
    """

    def __init__(self, *, least: float = 40.0) -> None:
        self.least = least

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Look at the middle frame."""
        end_s = clip.end_s if clip.end_s is not None else media.extent[1]
        brightness = float(media.stills(clip.start_s, end_s).mean())
        clip = clip.scored(brightness=brightness)
        if brightness >= self.least:
            return clip
        return clip.dropped("too dark", measured=f"{brightness:.0f}", wanted=f"{self.least:g} or more")


def halves(clip: Clip, media: Media, *, count: int = 2) -> list[Clip]:
    """Equal parts of a clip."""
    duration_s = media.extent[1]
    return [clip.part(n, duration_s * n / count, duration_s * (n + 1) / count) for n in range(count)]


def greet(name: str, *, times: int = 1, loud: bool = False) -> None:
    """Greet somebody.

    Args:
        name: whom.
        times: how often.
        loud: in capitals.
    """
    for _ in range(times):
        print(f"HELLO {name.upper()}" if loud else f"hello {name}")


@hookimpl
def moviegen_components() -> Iterator[Component]:
    """Offer the three classes."""
    yield Component("backbone", "moviegen_hello.HelloBackbone", "three convolutions")
    yield Component("conditioner", "moviegen_hello.HelloConditioner", "the caption's length")
    yield Component("data", "moviegen_hello.HelloLatents", "random latents")


@hookimpl
def moviegen_curation_stages() -> Iterator[CurationStage]:
    """Offer the stage."""
    yield CurationStage("moviegen_hello.HelloBrightness", "drops dark clips")


@hookimpl
def moviegen_commands() -> Iterator[Command]:
    """Offer `moviegen hello greet`."""
    yield Command("hello", "greet", "moviegen_hello:greet", "greet somebody")
