"""Shards, data modules and the toy world. Importing this module imports neither torch nor av."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from moviegen_core import Command, Component, hookimpl

_PUBLIC = {
    "AudioData": "audio_data",
    "AudioDecoder": "audio",
    "AudioSampleDecoder": "audio_decoding",
    "BatchStream": "plan",
    "Bucket": "buckets",
    "CaptionData": "caption_data",
    "ImageMix": "mixing",
    "LatentShardWriter": "latents",
    "MediaLimits": "limits",
    "PlanSampler": "plan",
    "PromptData": "prompts",
    "SampleDecoder": "decoding",
    "SampleError": "faults",
    "SampleOrder": "order",
    "ShardData": "datamodule",
    "ShardReader": "reader",
    "ShardWriter": "shards",
    "SkipReport": "faults",
    "Source": "mixing",
    "SourceError": "faults",
    "TextShardWriter": "texts",
    "ToyWorldData": "toyworld",
    "VideoDecoder": "video",
    "aspect_sizes": "buckets",
    "latent_bytes": "tensors",
    "paper_buckets": "buckets",
    "read_audio": "audio",
    "text_bytes": "tensors",
    "visual_bytes": "tensors",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """The data modules and the latent cache, by name."""
    yield Component("data", "moviegen_data.ShardData", "videos, images or cached latents from shards")
    yield Component("data", "moviegen_data.AudioData", "sounds, or videos with sound, or their cached latents, from shards")
    yield Component("data", "moviegen_data.PromptData", "prompts from a list or a file, with fps and camera motion as controls")
    yield Component("data", "moviegen_data.ToyWorldData", "moving shapes with captions and ground truth, rendered while training")
    yield Component("data", "moviegen_data.CaptionData", "captions of shards with all parts as they are, for caching text embeddings")
    yield Component("callback", "moviegen_data.LatentShardWriter", "the latent cache: what an autoencoder makes of shards, as shards")
    yield Component("callback", "moviegen_data.TextShardWriter", "the text cache: shards with what text encoders make of their captions")


@hookimpl
def moviegen_commands() -> Iterable[Command]:
    """Making shards, and looking at them."""
    yield Command("data", "pack", "moviegen_data.pack:pack", "pack a folder of media and captions into shards")
    yield Command("data", "inspect", "moviegen_data.inspect:inspect", "what shards hold, what is bad, which batches come of them")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
