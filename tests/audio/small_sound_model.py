"""A small model of sounds for videos, whose autoencoder is a few lines, and media to give to it."""

from functools import partial

import torch

from moviegen_audio.conditioners import AudioContext, VideoFrames
from moviegen_audio.frames import EmbeddedFrameEncoder
from moviegen_audio.model import AudioTransformer
from moviegen_audio.training import VideoToAudio
from moviegen_core.autoencoder import AudioAutoencoder
from moviegen_core.batch import MediaBatch
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.flow.solvers import MidpointSolver
from moviegen_core.sampler import FlowSampler
from moviegen_text.embedded import HashedWordConditioner

HZ, HOP = 1000, 40


class MeansAutoencoder(AudioAutoencoder):
    """Four means per latent frame, which lose most of a sound."""

    def __init__(self, *, audio_channels=1):
        super().__init__(latent_channels=4 * audio_channels, sample_rate=HZ, hop_length=HOP, audio_channels=audio_channels)

    def encode_raw(self, media, *, sample=False):
        return media.unflatten(2, (-1, 4, HOP // 4)).mean(4).permute(0, 1, 3, 2).flatten(1, 2)

    def decode_raw(self, latent):
        means = latent.unflatten(1, (-1, 4)).permute(0, 1, 3, 2).flatten(2)
        return means.repeat_interleave(HOP // 4, dim=2)


def make_model(*, max_frames=30, audio_channels=1, latent_hz=25.0, **settings):
    channels = 4 * audio_channels
    sizes = {"num_layers": 1, "width": 16, "ffn_width": 32, "num_heads": 2, "in_channels": channels, "extra_channels": channels}
    encoder = partial(EmbeddedFrameEncoder, feature_width=4, size_px=8, channels=[4, 4, 4])
    model = VideoToAudio(
        backbone=partial(AudioTransformer, **sizes, max_frames=max_frames),
        conditioners={
            "video": partial(VideoFrames, encoder=encoder, latent_hz=latent_hz),
            "context": AudioContext,
            "caption": partial(HashedWordConditioner, width_text=8, num_layers=0, num_heads=2, num_buckets=64),
        },
        autoencoder=partial(MeansAutoencoder, audio_channels=audio_channels),
        **{"duration_s": 0.5, **settings},
    )
    model.configure_model()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.normal_(std=0.3)
    model.log = lambda *args, **kwargs: None
    model.sampler = FlowSampler(steps=3, guidance_scale=3.0, schedule=LinearSchedule(), solver=MidpointSolver())
    return model.eval()


def a_video(size=2, num_frames=5, seed=0):
    return torch.rand(size, 3, num_frames, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def a_sound(size=2, num_samples=500, channels=1):
    return torch.rand(size, channels, num_samples, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8


def a_batch(**given):
    given = {"captions": ["a dog", "a bell"], "keys": ["x", "y"]} | given
    return MediaBatch(**given)
