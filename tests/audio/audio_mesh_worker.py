"""Trains and samples the smallest audio model on meshes of gloo processes, as tests/core/mesh_worker.py does the video model.

python audio_mesh_worker.py FOLDER 1x1x1 2x1x1 ...     (data x context x tensor)
"""

import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
import mesh_worker
from small_sound_model import MeansAutoencoder

from moviegen_audio.conditioners import AudioContext, VideoFrames
from moviegen_audio.frames import EmbeddedFrameEncoder
from moviegen_audio.masking import ContextMask
from moviegen_audio.model import AudioTransformer
from moviegen_audio.multidiffusion import MultiDiffusion
from moviegen_audio.training import VideoToAudio
from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioning
from moviegen_core.parallel.clipping import gradient_norm
from moviegen_core.randomness import keyed_noise, keyed_share
from moviegen_text.embedded import HashedWordConditioner

NUM_FRAMES = 27  # latent frames: no number of processes divides them


class FilmsOfTheLoud(VideoFrames):
    """Leaves the silent samples out of the envelope's term whoever trains on them: alone, or beside others that have a video."""

    def auxiliary_loss(self, batch, conditioning):
        loud = torch.tensor([not silent(key) for key in batch.keys])
        if not loud.any():
            return super().auxiliary_loss(replace(batch, video=None), conditioning)
        part = replace(batch, latents=batch.latents[loud])
        return loud.float().mean() * super().auxiliary_loss(part, Conditioning(aligned=conditioning.aligned[loud]))


class KeyedDraws(VideoToAudio):
    """Draws everything of a training sample from its key, so that it does not depend on who trains on it."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.losses_seen, self.norms_seen = [], []

    def training_step(self, batch, batch_idx):
        x_1 = self.latents(batch)
        noise = torch.stack([keyed_noise(x_1.shape[1:], 1, key) for key in batch.keys])
        t = torch.tensor([keyed_share(key) for key in batch.keys])
        dropped = {name: torch.tensor([keyed_share(key + name) < 0.25 for key in batch.keys]) for name in self.conditioners}
        dropped["video"] = dropped["video"] | torch.tensor([silent(key) for key in batch.keys])
        told = self._told(batch)
        loss = self.losses(x_1, noise, t, self._joined(told, batch, dropped)).mean() + self._auxiliary_losses(batch, told)["video"]
        self.losses_seen.append(loss.item())
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.norms_seen.append(gradient_norm(self).item())

    def predict_step(self, batch, batch_idx):
        made = super().predict_step(batch, batch_idx)
        plain, self.sampler = self.sampler, MultiDiffusion(window=16, hop=12, steps=3)
        long = super().predict_step(batch, batch_idx)
        self.sampler = plain
        return made | {"video": long["audio"]}  # what mesh_worker saves


def silent(key):
    """Two samples of every other micro-batch, all that one of two processes sees of it, have no video."""
    number, place = map(int, key.split("-"))
    return number % 2 == 1 and place >= 2


class Samples(mesh_worker.Samples):
    def _batches(self, count, *, with_latents):
        loader = super()._batches(count, with_latents=with_latents)
        return torch.utils.data.DataLoader([self._sound(batch, with_latents) for batch in loader], batch_size=None, shuffle=False)

    def _sound(self, batch, with_latents):
        keys = batch.keys
        video = torch.stack([keyed_noise((3, 9, 8, 8), 3, key).clamp(-1, 1) for key in keys])
        if with_latents and all(map(silent, keys)):
            video = None
        fps = torch.tensor([8.0 if key.endswith(("0", "2")) else 15.0 for key in keys])
        latents = torch.stack([keyed_noise((4, NUM_FRAMES), 2, key) for key in keys]) if with_latents else None
        draws = torch.tensor([[keyed_share(f"{key}-{i}") for i in range(3)] for key in keys])
        extras = {"context_mask": ContextMask(masked_min=0.3).given(draws, NUM_FRAMES)} if with_latents else {}
        return MediaBatch(captions=batch.captions, keys=keys, video=video, fps=fps, latents=latents, extras=extras)


def build_model(**_):
    encoder = partial(EmbeddedFrameEncoder, feature_width=8, size_px=8, channels=[4, 8, 8])
    sizes = {"num_layers": 2, "width": 32, "ffn_width": 64, "num_heads": 4, "in_channels": 4, "extra_channels": 4}
    return KeyedDraws(
        backbone=partial(AudioTransformer, **sizes, max_frames=40),
        conditioners={
            "video": partial(FilmsOfTheLoud, encoder=encoder, envelope_weight=3.0),
            "context": AudioContext,
            "caption": partial(HashedWordConditioner, width_text=16, num_layers=1, num_buckets=64),
        },
        autoencoder=MeansAutoencoder,
        optimizer=partial(torch.optim.AdamW, lr=1e-2, eps=1e-6),
        lr_scheduler=partial(torch.optim.lr_scheduler.LinearLR, start_factor=0.5, total_iters=4),
    )


if __name__ == "__main__":
    mesh_worker.quiet()
    mesh_worker.build_model, mesh_worker.Samples = build_model, Samples
    folder, *meshes = sys.argv[1:]
    for mesh in meshes:
        mesh_worker.fork(math.prod(mesh_worker.sizes_of(mesh)), mesh_worker.run, mesh, Path(folder))
