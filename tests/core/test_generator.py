"""FlowModel with parts small enough to know everything about them."""

import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.backbone import Backbone
from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioner, Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.generator import FlowModel
from moviegen_core.sampler import FlowSampler


class LengthConditioner(Conditioner):
    """One context token: the length of the caption; nothing is a zero."""

    def __init__(self, width: int, *, dropout: float = 0.0) -> None:
        super().__init__(dropout=dropout)
        self.width = width

    def forward(self, batch):
        lengths = torch.tensor([float(len(caption)) for caption in batch.captions])
        return self._tokens(lengths)

    def null(self, batch):
        return self._tokens(torch.zeros(len(batch)))

    def _tokens(self, values):
        mask = torch.ones(len(values), 1, dtype=torch.bool)
        return Conditioning(context=values.view(-1, 1, 1).expand(-1, 1, self.width), context_mask=mask)


class ShiftBackbone(Backbone):
    """Predicts the context plus a learned number."""

    def __init__(self) -> None:
        super().__init__(in_channels=3, width=2)
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x_t, t, conditioning):
        self.seen.append(conditioning.context[:, 0, 0].tolist())
        return torch.zeros_like(x_t) + self.weight + conditioning.context.mean((1, 2)).view(-1, 1, 1, 1, 1)


class IdentityAutoencoder(Autoencoder):
    """Latents are the pixels."""

    def __init__(self) -> None:
        super().__init__(latent_channels=3, temporal_factor=1, spatial_factor=1)

    def encode_raw(self, video, *, sample=False):
        return video

    def decode_raw(self, latent):
        return latent


def make_model(dropout=0.0, **settings):
    model = FlowModel(
        backbone=ShiftBackbone,
        conditioners={"text": lambda width: LengthConditioner(width, dropout=dropout)},
        autoencoder=IdentityAutoencoder,
        num_frames=2,
        height=4,
        width=4,
        **settings,
    )
    model.configure_model()
    model.log = lambda *args, **kwargs: None
    return model


def make_batch(size=4):
    return MediaBatch(captions=["abc"] * size, keys=[str(i) for i in range(size)], video=torch.randn(size, 3, 2, 4, 4))


def test_validation_loss_depends_on_weights_alone():
    model = make_model()
    losses = []
    model.log = lambda name, value, **kwargs: losses.append(value.item())
    batch = make_batch()
    torch.manual_seed(0)
    model.validation_step(batch, 0)
    torch.manual_seed(1)
    model.validation_step(batch, 0)
    assert losses[0] == losses[1]


def test_validation_loss_does_not_depend_on_the_batch_size():
    model = make_model()
    model.backbone.forward = lambda x_t, t, conditioning: x_t * t.view(-1, 1, 1, 1, 1)
    losses = []
    model.log = lambda name, value, **kwargs: losses.append(value.item())
    batch = make_batch(4)
    model.validation_step(batch, 0)
    for i in range(4):
        single = MediaBatch(captions=batch.captions[i : i + 1], keys=batch.keys[i : i + 1], video=batch.video[i : i + 1])
        model.validation_step(single, i)
    assert losses[0] == pytest.approx(sum(losses[1:]) / 4, rel=1e-5)


@pytest.mark.parametrize(("dropout", "joint", "share"), [(0.0, 0.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.3, 0.5, 0.65)])
def test_conditions_are_dropped_at_the_configured_rate(dropout, joint, share):
    model = make_model(dropout, joint_dropout=joint)
    torch.manual_seed(0)
    model.training_step(make_batch(2000), 0)
    dropped = sum(value == 0.0 for value in model.backbone.seen[-1]) / 2000
    assert dropped == pytest.approx(share, abs=0.04)


def test_noise_depends_on_seed_and_key_not_on_the_batch():
    model = make_model()
    model.sampler = FlowSampler(steps=2, guidance_scale=1.0)
    together = model.generate(["ab", "cd"], keys=["x", "y"])
    alone = model.generate(["cd"], keys=["y"])
    torch.testing.assert_close(together[1:], alone)
    model.seed = 1
    assert not torch.allclose(model.generate(["cd"], keys=["y"]), alone)


def test_guidance_runs_given_and_null_and_drop_runs_null_alone():
    model = make_model()
    model.sampler = FlowSampler(steps=2, guidance_scale=2.0)
    model.generate(["abcd"], keys=["x"])
    assert model.backbone.seen[-1] == [4.0, 0.0]
    model.generate(["abcd"], keys=["x"], drop=True)
    assert model.backbone.seen[-1] == [0.0, 0.0]


def test_samples_take_their_size_from_the_prompts_metadata():
    model = make_model()
    model.sampler = FlowSampler(steps=2)
    batch = MediaBatch(captions=["a"], keys=["k"], metadata=[{"num_frames": 1, "height": 6, "width": 8}])
    made = model.predict_step(batch, 0)
    assert made["video"].shape == (1, 3, 1, 6, 8)
    assert model.predict_step(MediaBatch(captions=["a"], keys=["k"]), 0)["video"].shape == (1, 3, 2, 4, 4)


def test_samples_of_shards_take_the_size_of_the_clip_not_of_its_source():
    model = make_model()
    model.sampler = FlowSampler(steps=2)
    source = {"num_frames": 300, "height": 1080, "width": 1920}
    pixels = MediaBatch(captions=["a"], keys=["k"], video=torch.zeros(1, 3, 3, 6, 8), metadata=[source])
    assert model.predict_step(pixels, 0)["video"].shape == (1, 3, 3, 6, 8)
    encoded = source | {"encoded": {"frames": 1, "height": 4, "width": 2}}
    cached = MediaBatch(captions=["a"], keys=["k"], latents=torch.zeros(1, 3, 1, 4, 2), metadata=[encoded])
    assert model.predict_step(cached, 0)["video"].shape == (1, 3, 1, 4, 2)


def test_frozen_autoencoder_is_neither_trained_nor_set_to_training():
    model = make_model().train()
    assert not model.autoencoder.training
    optimizer = model.configure_optimizers()
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 1


def test_errors_say_what_to_do():
    model = make_model()
    with pytest.raises(ValueError, match="neither pixels nor latents"):
        model.latents(MediaBatch(captions=["a"], keys=["k"]))
    with pytest.raises(ValueError, match="add the callback HalveOnPlateau"):
        make_model(lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val_loss")).configure_optimizers()
    model.autoencoder = None
    with pytest.raises(ValueError, match="this model has no autoencoder"):
        model.generate(["a"])


@pytest.mark.parametrize("wrong", [2.0, -1.0, float("nan")])
def test_a_joint_dropout_that_is_no_probability_is_refused(wrong):
    with pytest.raises(UsageError, match="joint_dropout=.* was given"):
        make_model(joint_dropout=wrong)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_no_numbers_are_told_of(bad):
    model = make_model()
    model.backbone.weight.data.fill_(bad)
    with pytest.raises(UsageError, match="sampled latents with NaN"):
        model.generate(["a"])
    model = make_model()
    model.autoencoder.latent_mean.fill_(bad)
    with pytest.raises(UsageError, match="decoded media with NaN"):
        model.generate(["a"])


def test_cached_latents_of_another_autoencoder_are_refused(tmp_path):
    other = IdentityAutoencoder()
    other.set_latent_statistics(torch.zeros(3), torch.full((3,), 2.0))
    torch.save({"state_dict": IdentityAutoencoder().state_dict()}, tmp_path / "tae.ckpt")
    model = make_model(autoencoder_checkpoint=str(tmp_path / "tae.ckpt"))

    def batch(encoder):
        metadata = [{"latent": {"encoder": encoder}}] * 2
        return MediaBatch(captions=["a", "b"], keys=["x", "y"], latents=torch.zeros(2, 3, 2, 4, 4), metadata=metadata)

    model.latents(batch(IdentityAutoencoder().checksum()))
    model.latents(batch(None))
    with pytest.raises(ValueError, match=rf"'x' come from the encoder {other.checksum()[:12]}; .*tae.ckpt holds .*; give `model.auto"):
        model.latents(batch(other.checksum()))
    model = make_model()  # without a checkpoint the weights are its own, and decode nothing of another's
    model.latents(batch(IdentityAutoencoder().checksum()))
    with pytest.raises(UsageError, match="model.autoencoder has weights of its own"):
        model.latents(batch(other.checksum()))
