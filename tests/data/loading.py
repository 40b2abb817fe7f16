"""Data modules over small shards, and shards of small latents."""

import torch

from moviegen_data.datamodule import ShardData
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_bytes, text_bytes


def data_of(urls, **settings):
    return ShardData(urls=str(urls), **{"num_frames": 4, "height": 16, "width": 16, "fps": 8.0, "batch_size": 4, **settings})


def latent_shards(folder, shapes, *, dtype=torch.float16, nan=()):
    generator = torch.Generator().manual_seed(0)
    latents = []
    with ShardWriter(folder, max_samples=3) as writer:
        for number, shape in enumerate(shapes):
            latents.append(torch.randn(shape, generator=generator).to(dtype))
            if number in nan:
                latents[-1][0, 0, 0, 0] = torch.nan
            text = {"t5": (torch.full((number % 3 + 1, 5), float(number)), torch.ones(number % 3 + 1, dtype=torch.bool))}
            record = {"caption": "x", "fps": 30.0, "encoded": {"frames": 8 * shape[1], "height": 24, "width": 24, "fps": 8.0}}
            packed = latent_bytes(latents[-1], {"encoder": "abc"})
            writer.write(f"k{number}", {"json": record, "latent.safetensors": packed, "text.safetensors": text_bytes(text)})
    return latents
