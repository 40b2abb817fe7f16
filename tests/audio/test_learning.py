"""A tiny model learns when it sees and what it is told: jumps of a square are heard at once, a word says how."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from moviegen_audio.conditioners import AudioContext, VideoFrames
from moviegen_audio.frames import EmbeddedFrameEncoder
from moviegen_audio.model import AudioTransformer
from moviegen_audio.training import VideoToAudio
from moviegen_core.autoencoder import AudioAutoencoder
from moviegen_core.batch import MediaBatch
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.flow.solvers import MidpointSolver
from moviegen_core.optimizers import MuonAdamW
from moviegen_core.sampler import FlowSampler
from moviegen_text.embedded import HashedWordConditioner

FPS, NUM_VIDEO_FRAMES, NUM_FRAMES, STEPS = 8, 8, 25, 300


class Straight(AudioAutoencoder):
    """Gives latents as they are, to be looked at."""

    def __init__(self):
        super().__init__(latent_channels=2, sample_rate=1000, hop_length=40)

    def decode_raw(self, latent):
        return latent


def world(size, seed):
    """A square that jumps from side to side; the latents tell the frames in which it did, and whether the word was high or low."""
    generator = torch.Generator().manual_seed(seed)
    jumps = torch.rand(size, NUM_VIDEO_FRAMES, generator=generator) < 0.3
    jumps[:, 0] = False
    right = (jumps.cumsum(1) % 2).bool()[:, None, :, None, None]
    columns = torch.arange(8) >= 4
    video = torch.where(columns == right, 1.0, -1.0).expand(size, 3, NUM_VIDEO_FRAMES, 8, 8)
    high = torch.rand(size, generator=generator) < 0.5
    shown = ((torch.arange(NUM_FRAMES) + 0.5) * FPS / 25).long()
    latents = torch.stack([jumps[:, shown], high[:, None].expand(-1, NUM_FRAMES)], dim=1) * 2.0 - 1.0
    captions = ["high" if is_high else "low" for is_high in high.tolist()]
    keys = [f"{seed}-{i}" for i in range(size)]
    return MediaBatch(captions=captions, keys=keys, video=video, fps=torch.full((size,), float(FPS)), latents=latents)


def train():
    torch.manual_seed(0)
    encoder = partial(EmbeddedFrameEncoder, feature_width=16, size_px=8, channels=[8, 8, 8])
    sizes = {"num_layers": 2, "width": 48, "ffn_width": 192, "num_heads": 4, "in_channels": 2, "extra_channels": 2, "max_frames": 50}
    model = VideoToAudio(
        backbone=partial(AudioTransformer, **sizes),
        conditioners={
            "video": partial(VideoFrames, encoder=encoder),
            "context": AudioContext,
            "caption": partial(HashedWordConditioner, width_text=16, num_layers=0, num_heads=2, num_buckets=256),
        },
        autoencoder=Straight,
    )
    model.configure_model()
    optimizer = MuonAdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=5e-3)
    model.log = lambda *args, **kwargs: None
    for step in range(STEPS):
        batch = world(32, step)
        x_1, t = model.latents(batch), model.timesteps.sample(32)
        loss = model.losses(x_1, torch.randn_like(x_1), t, model.condition(batch, model._draw_dropped(batch))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.sampler = FlowSampler(steps=16, guidance_scale=3.0, schedule=LinearSchedule(), solver=MidpointSolver())
    return model.eval()


@pytest.mark.slow
def test_time_comes_from_the_video_and_pitch_from_the_caption():
    model, held_out = train(), world(64, 10_000)
    truth, silent = held_out.latents, replace(held_out, latents=None)
    right = {}
    for task, batch in {
        "TV2A": silent,
        "V2A": replace(silent, captions=[""] * 64),
        "T2A": replace(silent, video=None, fps=None),
    }.items():
        made = model.make(batch, 1000).latents
        right[task] = ((made > 0) == (truth > 0)).float().mean((0, 2)).tolist()
    assert min(right["TV2A"]) > 0.95 and right["V2A"][0] > 0.95 and right["T2A"][1] > 0.95
    assert right["T2A"][0] < 0.85 and right["V2A"][1] < 0.75, "what is not told cannot be known"
