"""Training, validation, prediction and checkpoints of the DAC-VAE."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as si_sdr
from transformers import DacConfig, DacModel

from moviegen_audio.dac_vae import DacVae
from moviegen_audio.discriminator import SoundDiscriminator
from moviegen_audio.loss import SoundLossWeights
from moviegen_audio.synthetic import SyntheticSounds
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError
from moviegen_core.optimizers import MuonAdamW
from moviegen_core.testing import check_autoencoder, check_component_typed
from moviegen_core.weights import load_into, load_state_dict

SIZES = {
    "sample_rate": 8000,
    "strides": (2, 4),
    "patch_size": 4,
    "encoder_width": 8,
    "decoder_width": 32,
    "latent_channels": 6,
    "mel_windows": (64, 256),
    "mel_bands": (5, 20),
    "stft_windows": (128,),
}
LOSS = SoundLossWeights(mel=1.0, stft=1.0, waveform=10.0)


def model(**changes) -> DacVae:
    torch.manual_seed(0)
    settings = {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=2e-3), "loss": LOSS, "gradient_clip_norm": 1.0}
    return DacVae(**(SIZES | settings | changes))


def adversarial_model(**changes) -> DacVae:
    def judge(audio_channels: int) -> SoundDiscriminator:
        return SoundDiscriminator(audio_channels, periods=(2, 3), windows=(128,), period_channels=2, band_channels=4)

    loss = SoundLossWeights(mel=1.0, stft=1.0, waveform=10.0, adversarial_start_step=1)
    return model(**({"discriminator": judge, "loss": loss} | changes))


def batches(count: int, *, channels: int = 1, samples: int = 2001) -> DataLoader:
    data = SyntheticSounds(
        duration_s=samples / 8000, audio_hz=8000, audio_channels=channels, batch_size=2, num_train=2 * count, num_val=2 * count
    )
    return DataLoader(list(data.val_dataloader()), batch_size=None)


def trainer(tmp_path, steps: int, **changes) -> pl.Trainer:
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": steps,
        "max_epochs": -1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
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


@pytest.mark.parametrize(
    "changes", [{}, {"audio_channels": 2}, {"chunk_frames": 2}, {"patch_size": 1, "strides": (3, 5), "weight_norm": False}]
)
def test_plugin_authors_checks(changes):
    check_autoencoder(lambda: model(**changes), num_frames=9)
    check_component_typed(DacVae)


def test_the_papers_geometry():
    with torch.device("meta"):
        vae = DacVae()
    assert vae.hop_length == 1920 and vae.latent_rate == 25.0 and vae.latent_shape(48001) == (128, 26)
    assert vae.network.encoder.out_channels == 2048


@pytest.mark.parametrize("make", [model, adversarial_model])
def test_two_steps_lower_the_loss(make, tmp_path):
    losses = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            metrics = trainer.callback_metrics
            losses.append(float(metrics["train_mel"] + metrics["train_stft"] + metrics["train_waveform"]))

    (batch,) = batches(1)
    trainer(tmp_path, 4, callbacks=[Watch()]).fit(make(), DataLoader([batch] * 4, batch_size=None))
    assert losses[2] < losses[0]


def test_one_batch_is_learnt_and_latents_measured(tmp_path):
    vae = model(optimizer=lambda parameters: MuonAdamW(parameters, lr=5e-3), loss=SoundLossWeights(mel=0.3, stft=0.3, waveform=50.0))
    data = SyntheticSounds(duration_s=0.25, audio_hz=8000, kinds=["chord"], batch_size=2, num_train=2, num_val=2)
    (batch,) = data.val_dataloader()
    run = trainer(tmp_path, 60, val_check_interval=60, check_val_every_n_epoch=None)
    run.validate(vae, DataLoader([batch], batch_size=None), verbose=False)
    before = run.callback_metrics
    run.fit(vae, DataLoader([batch] * 60, batch_size=None), DataLoader([batch], batch_size=None))
    after = run.callback_metrics
    assert after["val_si_sdr"] > before["val_si_sdr"] + 10.0 and after["val_si_sdr"] > 3.0, (before, after)
    assert after["val_mel_distance"] < before["val_mel_distance"]
    assert {"val_loss", "val_stft_distance", "val_kl", "val_bits_per_second"} <= after.keys()
    with torch.no_grad():
        decoded = vae(batch.audio)
        latents = vae.encode(batch.audio).transpose(0, 1).flatten(1)
    assert float(si_sdr(decoded, batch.audio).mean()) == pytest.approx(float(after["val_si_sdr"]), abs=0.5)
    torch.testing.assert_close(latents.mean(1), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std(1, correction=0), torch.ones(6), atol=1e-2, rtol=0)


def test_statistics_follow_training_without_validation(tmp_path):
    vae = model(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trainer(tmp_path, 20).fit(vae, batches(20, samples=2048))
    latents = torch.cat([vae.encode_raw(batch.audio).transpose(0, 1).flatten(1) for batch in batches(20, samples=2048)], dim=1)
    assert ((vae.latent_mean - latents.mean(1)).abs() < 0.5 * latents.std(1)).all()
    assert ((vae.latent_std / latents.std(1) - 1.0).abs() < 0.5).all()


def test_stereo_trains_with_a_discriminator_and_the_checkpoint_leaves_it_beside(tmp_path):
    vae = adversarial_model(audio_channels=2, lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5))
    run = trainer(tmp_path, 3)
    run.fit(vae, batches(3, channels=2))
    assert run.global_step == 3, "a step of training counts once, whatever the discriminator does"
    assert [round(optimizer.param_groups[0]["lr"] / 2e-3, 4) for optimizer in run.optimizers] == [0.125, 0.25]
    assert {"train_adversarial", "train_feature_matching", "train_discriminator"} <= run.callback_metrics.keys()
    run.save_checkpoint(tmp_path / "dac.ckpt")
    state = load_state_dict(tmp_path / "dac.ckpt")
    assert not [key for key in state if "discriminator" in key]
    frozen = model(audio_channels=2)
    load_into(frozen, state, source="dac.ckpt")
    audio = torch.rand(1, 2, 500) - 0.5
    torch.testing.assert_close(frozen(audio), vae(audio))


def test_the_discriminator_learns_only_from_its_start(tmp_path):
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            seen.append((set(trainer.callback_metrics), [p.detach().clone() for p in module.discriminator.parameters()]))

    trainer(tmp_path, 3, callbacks=[Watch()]).fit(adversarial_model(), batches(3))
    assert "train_adversarial" not in seen[0][0] and "train_adversarial" in seen[1][0]
    assert any(not torch.equal(a, b) for a, b in zip(seen[1][1], seen[2][1], strict=True))


@pytest.mark.parametrize("make", [model, adversarial_model])
def test_resuming_equals_going_on(make, tmp_path):
    whole = make()
    pl.seed_everything(3, verbose=False)
    trainer(tmp_path, 4).fit(whole, batches(4))
    first = make()
    pl.seed_everything(3, verbose=False)
    run = trainer(tmp_path, 2)
    run.fit(first, batches(4))
    run.save_checkpoint(tmp_path / "half.ckpt")
    second = make()
    rest = list(batches(4))[2:]  # Lightning counts on from batch 2 and does not skip by itself
    trainer(tmp_path, 4).fit(second, DataLoader(rest + rest, batch_size=None), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name, parameter in whole.named_parameters():
        if "discriminator" not in name or make is adversarial_model:
            torch.testing.assert_close(second.get_parameter(name), parameter, msg=name)


def test_prediction_gives_normalised_latents(tmp_path):
    vae = model()
    vae.set_latent_statistics(torch.ones(6), torch.full((6,), 2.0))
    data = batches(2, samples=2048)
    result, _ = trainer(tmp_path, 1).predict(vae, data)
    batch = next(iter(data))
    assert result["keys"] == batch.keys and result["captions"] == batch.captions
    torch.testing.assert_close(result["latents"], (vae.encode_raw(batch.audio) - 1.0) / 2.0)


def test_a_codecs_weights_are_taken_at_the_start_of_fit(tmp_path):
    torch.manual_seed(1)
    codec = DacModel(DacConfig(encoder_hidden_size=8, decoder_hidden_size=32, downsampling_ratios=[2, 4]))
    codec.save_pretrained(tmp_path / "dac")
    vae = model(patch_size=1, dac_checkpoint=str(tmp_path / "dac"), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trainer(tmp_path, 1).fit(vae, batches(1))
    audio = torch.randn(1, 1, 64)
    torch.testing.assert_close(vae.network.encoder(audio).squeeze(2), codec.encoder(audio), atol=1e-5, rtol=1e-5)


def test_sound_of_any_type_goes_into_half_precision():
    vae = model().bfloat16()
    with torch.no_grad():
        latents = vae.encode(torch.rand(1, 1, 100))
        audio = vae.decode(latents.float(), num_frames=100)
    assert latents.dtype == audio.dtype == torch.bfloat16 and audio.isfinite().all()


def one_batch(**changes) -> DataLoader:
    fields = {"captions": ["a"], "keys": ["k"], "audio": torch.zeros(1, 1, 100), "audio_hz": 8000}
    return DataLoader([MediaBatch(**(fields | changes))], batch_size=None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"audio": None}, "holds no sound; .* point `data` at sounds"),
        ({"audio_hz": 44100}, "holds sound of 44100 Hz; this autoencoder was built for 8000 Hz"),
        ({"audio_hz": None}, "holds sound of an unknown rate; this autoencoder was built for 8000 Hz"),
        ({"audio": torch.zeros(1, 2, 100)}, r"\(1, 2, 100\); \(b, 1, s\) .* audio_channels"),
        ({"audio": torch.zeros(1, 1, 0)}, "at least one sample"),
        ({"audio": torch.full((1, 1, 100), float("nan"))}, "the sound 'k' holds NaN or infinite samples"),
    ],
)
def test_batches_that_cannot_be_learnt_from_are_refused(changes, told, tmp_path):
    for stage in ("fit", "validate", "predict"):
        with pytest.raises(UsageError, match=told):
            run = trainer(tmp_path, 1)
            options = {} if stage != "validate" else {"verbose": False}
            getattr(run, stage)(model(), one_batch(**changes), **options)


def test_silence_trains_and_is_validated(tmp_path):
    run = trainer(tmp_path, 2)
    vae = model()
    run.fit(vae, one_batch(), one_batch())
    assert "val_si_sdr" not in run.callback_metrics
    assert all(parameter.isfinite().all() for parameter in vae.parameters())


def test_settings_that_cannot_be_honoured_are_refused(tmp_path):
    with pytest.raises(UsageError, match="set trainer.precision to bf16-mixed"):
        run = trainer(tmp_path, 1)
        vae = adversarial_model()
        run.strategy.precision_plugin.precision = "16-mixed"
        run.fit(vae, batches(1))
    with pytest.raises(UsageError, match="chunk_frames=0"):
        model(chunk_frames=0)
    with pytest.raises(UsageError, match="there is no discriminator to train"):
        model(discriminator_optimizer=torch.optim.AdamW)
    with pytest.raises(UsageError, match="there is no file"):
        trainer(tmp_path, 1).fit(model(dac_checkpoint="absent"), batches(1))


@pytest.mark.parametrize("name", ["sample_rate", "latent_channels", "audio_channels", "encoder_width", "decoder_width"])
def test_sizes_below_one_are_refused(name):
    for wrong in (0, -1):
        with pytest.raises(UsageError, match=f"{name}={wrong} was given"):
            model(**{name: wrong})


@pytest.mark.parametrize("name", ["gradient_clip_norm", "discriminator_clip_norm"])
@pytest.mark.parametrize("wrong", [-1.0, 0.0, float("nan")])
def test_norms_that_would_turn_gradients_round_are_refused(name, wrong):
    with pytest.raises(UsageError, match=f"{name}={wrong} was given"):
        model(**{name: wrong})


@pytest.mark.parametrize("wrong", [{"duration_s": float("nan")}, {"duration_s": float("inf")}, {"batch_size": 0}, {"num_workers": -1}])
def test_synthetic_sounds_that_cannot_be_drawn_are_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}|sounds of"):
        SyntheticSounds(**wrong)


def test_synthetic_sounds_are_a_function_of_their_number():
    def made(**changes) -> list[MediaBatch]:
        return list(SyntheticSounds(**({"duration_s": 0.2, "batch_size": 3, "num_train": 6, "num_val": 3} | changes)).train_dataloader())

    first, again, other = made(), made(), made(seed=1)
    assert [batch.keys for batch in first] == [batch.keys for batch in again]
    assert all(torch.equal(a.audio, b.audio) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].audio, other[0].audio) and not torch.equal(first[0].audio[0], first[0].audio[1])
    assert first[0].audio.shape == (3, 1, 9600) and first[0].audio.abs().max() <= 1.0 and first[0].audio_hz == 48000
    stereo = made(audio_channels=2)[0].audio
    assert stereo.shape == (3, 2, 9600) and not torch.equal(stereo[:, 0], stereo[:, 1])
    for broken in ({"kinds": ["drum"]}, {"duration_s": 0.0}, {"audio_channels": 0}):
        with pytest.raises(UsageError):
            made(**broken)
    with pytest.raises(UsageError, match="raise num_train or lower batch_size"):
        made(batch_size=7)


def test_clicks_are_where_the_truth_says():
    for batch in SyntheticSounds(kinds=["clicks"], batch_size=4, num_val=4, num_train=4).val_dataloader():
        for sound, truth in zip(batch.audio[:, 0], batch.metadata, strict=True):
            for time in truth["clicks_s"]:
                start = round(time * 48000)
                before, after = sound[start - 480 : start - 1], sound[start : start + 240]
                assert after.abs().max() > 0.02
                if all(abs(time - other) > 0.06 for other in truth["clicks_s"] if other != time):
                    assert after.square().mean() > 10.0 * before.square().mean()
