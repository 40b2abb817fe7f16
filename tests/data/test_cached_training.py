"""Training from cached latents is training from pixels: the same losses, step by step."""

import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from moviegen_data.datamodule import ShardData
from moviegen_data.latents import LatentShardWriter
from moviegen_data.shards import ShardWriter
from moviegen_t2v.model import VideoTransformer
from moviegen_t2v.training import TextToVideo
from moviegen_tae.training import TemporalAutoencoder
from moviegen_text.embedded import HashedWordConditioner

STEPS = 9


class MeanAutoencoder(TemporalAutoencoder):
    """Gives the posterior's mean in training too, as a cache does, and has statistics that are not trivial."""

    def __init__(self):
        super().__init__(base_channels=8, channel_multipliers=[1, 1, 2, 2], num_res_blocks=1, latent_channels=4, norm_groups=4)
        self.set_latent_statistics(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.5, 0.6, 0.7, 0.8]))

    def encode_raw(self, media, *, sample=False):
        return super().encode_raw(media, sample=False)


class Losses(Callback):
    def __init__(self):
        self.losses, self.keys = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.keys.append(batch.keys)


@pytest.fixture
def clips(tmp_path, media_maker):
    random = np.random.default_rng(0)
    with ShardWriter(tmp_path / "clips", max_samples=4) as writer:
        for number in range(10):
            frames = random.integers(0, 256, (16, 4, 4, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
            record = {"caption": f"film number {number}", "fps": 8.0, "frames": 16, "height": 16, "width": 16, "duration_s": 2.0}
            writer.write(f"film{number}", {"json": record, "mp4": media_maker.encode_clip(frames, fps=8)})
    return str(tmp_path / "clips")


def model():
    seed_everything(3, verbose=False)
    made = TextToVideo(
        backbone=lambda: VideoTransformer(
            num_layers=2, width=32, ffn_width=64, num_heads=2, in_channels=4, max_frames=4, max_height=4, max_width=4
        ),
        conditioners={"prompt": lambda width: HashedWordConditioner(width, width_text=16, num_layers=1, num_heads=2, dropout=0.3)},
        autoencoder=MeanAutoencoder,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
        num_frames=16,
        height=16,
        width=16,
    )
    made.configure_model()
    return made


def pixels(clips):
    return ShardData(urls=clips, num_frames=16, height=16, width=16, fps=8.0, batch_size=3, fps_prefix=True, clip_position="middle")


def trainer(*callbacks):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", max_steps=STEPS, callbacks=list(callbacks), **quiet)


def train(data):
    watcher = Losses()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(watcher).fit(model(), data)
    return watcher


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_losses_are_those_of_pixels(clips, tmp_path, dtype, tolerance):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(LatentShardWriter(output=str(tmp_path / "cache"), dtype=dtype, max_samples=4)).predict(
            model().autoencoder, pixels(clips), return_predictions=False
        )
    cached = train(ShardData(urls=str(tmp_path / "cache"), latents=True, batch_size=3, fps_prefix=True))
    plain = train(pixels(clips))
    assert cached.keys == plain.keys and len(plain.losses) == STEPS
    assert cached.losses == pytest.approx(plain.losses, abs=tolerance)
    assert plain.losses[0] != plain.losses[1] and np.isfinite(plain.losses).all()
    if dtype == "bf16":
        assert cached.losses != pytest.approx(plain.losses, abs=1e-5), "what bf16 rounds can be seen"
