"""Training, validation, prediction and checkpoints of the temporal autoencoder."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from moviegen_core.batch import MediaBatch
from moviegen_core.testing import check_autoencoder, check_component_typed
from moviegen_core.weights import load_into, load_state_dict
from moviegen_tae.discriminator import PatchDiscriminator
from moviegen_tae.loss import LossWeights
from moviegen_tae.training import TemporalAutoencoder

SIZES = {"base_channels": 4, "channel_multipliers": (1, 1, 1, 2), "num_res_blocks": 1, "latent_channels": 3, "norm_groups": 2}


def autoencoder(**changes) -> TemporalAutoencoder:
    torch.manual_seed(0)
    return TemporalAutoencoder(**(SIZES | {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3)} | changes))


def batches(count: int, *, frames: int = 9, images_too: bool = False) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    bars = torch.rand(count, 2, 3, 1, 2, 1, generator=generator).mul(2).sub(1).repeat_interleave(8, dim=4).expand(-1, -1, -1, -1, -1, 16)
    lengths = [1 if images_too and index % 2 else frames for index in range(count)]
    made = [
        MediaBatch(
            captions=["a", "b"], keys=[f"{i}-0", f"{i}-1"], video=bars[i].expand(-1, -1, lengths[i], -1, -1).contiguous(), metadata=[{}, {}]
        )
        for i in range(count)
    ]
    return DataLoader(made, batch_size=None, num_workers=0)


def trainer(tmp_path, steps: int, **changes) -> pl.Trainer:
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": steps,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
        "default_root_dir": tmp_path,
    }
    return pl.Trainer(**(settings | changes))


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*ended before the epoch ended.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*"),
]


def adversarial_model(**changes) -> TemporalAutoencoder:
    return autoencoder(
        loss=LossWeights(adversarial=0.1, adversarial_start_step=1, outlier=1.0, gradient=0.1),
        discriminator=lambda: PatchDiscriminator(base_channels=4, num_layers=2, norm_groups=2),
        **changes,
    )


@pytest.mark.parametrize("dimensionality", ["2d", "2.5d", "3d"])
def test_plugin_authors_checks(dimensionality: str) -> None:
    temporal_factor = 1 if dimensionality == "2d" else 8
    check_autoencoder(lambda: autoencoder(dimensionality=dimensionality, temporal_factor=temporal_factor), num_frames=9)
    check_component_typed(TemporalAutoencoder)


PATCHED = {"patch_size": 2, "channel_multipliers": (1, 2, 2)}


@pytest.mark.parametrize("changes", [{}, PATCHED], ids=["pixels", "patches"])
@pytest.mark.parametrize("frames", [1, 7, 8, 9, 17])
def test_any_length(frames: int, changes) -> None:
    model = autoencoder(**changes)
    video = torch.rand(1, 3, frames, 16, 24)
    latent = model.encode(video)
    assert latent.shape == (1, 3, -(-frames // 8), 2, 3)
    assert model.decode(latent).shape[2] == 8 * latent.shape[2]
    assert model(video).shape == video.shape
    with pytest.raises(ValueError, match="multiples of 8"):
        model.encode(torch.rand(1, 3, 1, 12, 16))


def test_pixels_and_latents_of_any_type_go_into_half_precision() -> None:
    model = autoencoder()
    model.configure_model()
    model.bfloat16()
    with torch.no_grad():
        latents = model.encode(torch.rand(1, 3, 9, 16, 16))
        video = model.decode(latents.float(), num_frames=9)
    assert latents.dtype == video.dtype == torch.bfloat16 and video.isfinite().all()


def test_it_learns_and_measures_its_latents(tmp_path) -> None:
    model = autoencoder(base_channels=8, dimensionality="2d", temporal_factor=1, loss=LossWeights(kl=1e-6))
    data = list(batches(2, frames=3, images_too=True))
    loader = DataLoader(data, batch_size=None)
    before = trainer(tmp_path, 1).validate(model, loader, verbose=False)[0]["val_psnr"]
    run = trainer(tmp_path, 40, val_check_interval=40, check_val_every_n_epoch=None)
    run.fit(model, DataLoader(data * 20, batch_size=None), loader)
    assert run.callback_metrics["val_psnr"] > before + 4
    assert {"val_ssim", "val_loss", "val_image_psnr", "val_video_psnr"} <= run.callback_metrics.keys()
    latents = torch.cat([model.encode(batch.video).transpose(0, 1).flatten(1) for batch in data], dim=1)
    torch.testing.assert_close(latents.mean(1), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std(1, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_statistics_follow_training_without_validation(tmp_path) -> None:
    model = autoencoder(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0), loss=LossWeights(kl=0.0))
    trainer(tmp_path, 20).fit(model, batches(20, frames=1))
    latents = torch.cat([model.encode_raw(batch.video).transpose(0, 1).flatten(1) for batch in batches(20, frames=1)], dim=1)
    spread = latents.std(1)
    assert ((model.latent_mean - latents.mean(1)).abs() < 0.5 * spread).all()
    assert ((model.latent_std / spread - 1.0).abs() < 0.3).all()


def test_image_and_video_statistics_travel_in_the_checkpoint(tmp_path) -> None:
    model = adversarial_model()
    run = trainer(tmp_path, 4)
    run.fit(model, batches(4), batches(1))
    assert run.global_step == 4, "a step of training counts once, whatever the discriminator does"
    run.save_checkpoint(tmp_path / "tae.ckpt")
    state = load_state_dict(tmp_path / "tae.ckpt")
    assert not [key for key in state if "discriminator" in key]
    frozen = autoencoder()
    load_into(frozen, state, source="tae.ckpt")
    video = torch.rand(1, 3, 9, 16, 16)
    torch.testing.assert_close(frozen(video), model(video))
    assert not torch.equal(frozen.latent_std, torch.ones(3))


def test_resuming_equals_going_on(tmp_path) -> None:
    whole = adversarial_model()
    run = trainer(tmp_path, 6, max_epochs=-1)
    pl.seed_everything(3, verbose=False)
    run.fit(whole, batches(6), batches(1))

    first = adversarial_model()
    run = trainer(tmp_path, 3, max_epochs=-1)
    pl.seed_everything(3, verbose=False)
    run.fit(first, batches(6))
    state = torch.get_rng_state()
    run.save_checkpoint(tmp_path / "half.ckpt")
    second = adversarial_model()
    run = trainer(tmp_path, 6, max_epochs=-1, num_sanity_val_steps=0)
    torch.manual_seed(99)

    class Restore(pl.Callback):
        def on_train_start(self, trainer, module) -> None:
            torch.set_rng_state(state)

    run.callbacks.append(Restore())
    rest = list(batches(6))[3:]  # Lightning counts on from batch 3 and does not skip by itself
    run.fit(second, DataLoader(rest + rest, batch_size=None), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(second.get_parameter(name), parameter, msg=name)


def test_the_discriminator_learns_only_from_its_start(tmp_path) -> None:
    model = adversarial_model()
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *rest) -> None:
            seen.append((set(trainer.callback_metrics), [p.detach().clone() for p in module.discriminator.parameters()]))

    trainer(tmp_path, 3, callbacks=[Watch()]).fit(model, batches(3))
    assert "train_adversarial" not in seen[0][0] and "train_adversarial" in seen[1][0]
    assert any(not torch.equal(a, b) for a, b in zip(seen[1][1], seen[2][1], strict=True))


def test_prediction_gives_normalised_latents(tmp_path) -> None:
    model = autoencoder()
    model.set_latent_statistics(torch.ones(3), torch.full((3,), 2.0))
    data = batches(2)
    results = trainer(tmp_path, 1).predict(model, data)
    batch = next(iter(data))
    assert results[0]["keys"] == batch.keys and results[0]["captions"] == ["a", "b"]
    torch.testing.assert_close(results[0]["latents"], (model.encode_raw(batch.video) - 1.0) / 2.0)


def test_image_checkpoint_is_inflated_at_the_start_of_fit(tmp_path) -> None:
    image = autoencoder(dimensionality="2d", temporal_factor=1)
    run = trainer(tmp_path, 2)
    run.fit(image, batches(2, frames=1), batches(1, frames=1))
    run.save_checkpoint(tmp_path / "image.ckpt")
    model = autoencoder(image_checkpoint=str(tmp_path / "image.ckpt"), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trainer(tmp_path, 1).fit(model, batches(1, frames=1))
    pixels = torch.rand(1, 3, 1, 16, 16)
    torch.testing.assert_close(model.encode_raw(pixels), image.encode_raw(pixels))


def test_gradient_checkpointing_changes_nothing() -> None:
    video = torch.rand(1, 3, 9, 16, 16)
    gradients = []
    for wanted in (False, True):
        model = autoencoder(gradient_checkpointing=wanted).train()
        model(video).square().mean().backward()
        gradients.append([p.grad for p in model.network.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_settings_that_cannot_be_honoured_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="set norm_groups"):
        autoencoder(norm_groups=3)
    with pytest.raises(ValueError, match=r"offers \[1, 2, 4, 8\]"):
        autoencoder(temporal_factor=16)
    with pytest.raises(ValueError, match=r"offers \[1\]"):
        autoencoder(dimensionality="2d", temporal_factor=8)
    with pytest.raises(ValueError, match="no whole number of latent frames"):
        autoencoder(tile_frames=12)
    with pytest.raises(ValueError, match="at most half"):
        autoencoder(tile_frames=16, tile_overlap_frames=16)
    with pytest.raises(ValueError, match="point `data` at shards"):
        trainer(tmp_path, 1).fit(
            autoencoder(), DataLoader([MediaBatch(captions=["a"], keys=["k"], latents=torch.zeros(1, 3, 1, 2, 2))], batch_size=None)
        )


def test_perceptual_loss_without_weights_says_what_to_do(tmp_path) -> None:
    torchvision_missing = pytest.raises(ValueError, match=r"install torchvision .* set model.loss.perceptual to 0")
    with torchvision_missing:
        trainer(tmp_path, 1).fit(autoencoder(loss=LossWeights(perceptual=1.0)), batches(1))
    with pytest.raises(FileNotFoundError, match="correct the path"):
        trainer(tmp_path, 1).fit(autoencoder(loss=LossWeights(perceptual=1.0), perceptual_weights="absent.pt"), batches(1))
