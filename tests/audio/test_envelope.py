"""The term that makes a frame encoder tell when something is heard."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from moviegen_audio.conditioners import AudioContext, VideoFrames
from moviegen_audio.envelope import latent_envelope
from moviegen_audio.frames import EmbeddedFrameEncoder
from moviegen_audio.model import AudioTransformer
from moviegen_audio.training import VideoToAudio
from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError

ENCODER = partial(EmbeddedFrameEncoder, feature_width=16, size_px=8, channels=[8, 8, 8])


def flashes(seed: int, size: int = 16) -> MediaBatch:
    """Black frames with a white one here and there, and latents that are loud while it is shown."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.rand(size, 8, generator=generator) < 0.25
    video = torch.where(white[:, None, :, None, None], 1.0, -1.0).expand(size, 3, 8, 8, 8)
    shown = ((torch.arange(25) + 0.5) * 8 / 25).long()
    latents = torch.randn(size, 4, 25, generator=generator) * torch.where(white[:, shown], 3.0, 0.1)[:, None]
    return MediaBatch(captions=[""] * size, keys=[str(i) for i in range(size)], video=video, fps=torch.full((size,), 8.0), latents=latents)


def a_model(**video):
    model = VideoToAudio(
        backbone=partial(
            AudioTransformer, num_layers=1, width=16, ffn_width=32, num_heads=2, in_channels=4, extra_channels=4, max_frames=25
        ),
        conditioners={"video": partial(VideoFrames, encoder=ENCODER, **video), "context": AudioContext},
    )
    model.configure_model()
    logged = {}
    model.log = lambda name, value, **kwargs: logged.update({name: value.item()})
    return model, logged


def test_the_envelope_is_the_mean_square_of_a_frame():
    latents = torch.tensor([[[0.0, 3.0], [0.0, 1.0]]])
    torch.testing.assert_close(latent_envelope(latents), torch.tensor([[1.0, 6.0]]).log())


def test_frames_learn_to_tell_when_something_is_heard():
    torch.manual_seed(0)
    conditioner = VideoFrames(16, encoder=ENCODER, envelope_weight=1.0)
    optimizer = torch.optim.AdamW(conditioner.parameters(), lr=1e-2)
    held_out = flashes(1000)
    unexplained = latent_envelope(held_out.latents).var()
    for step in range(60):
        batch = flashes(step)
        optimizer.zero_grad()
        conditioner.auxiliary_loss(batch, conditioner(batch)).backward()
        optimizer.step()
    with torch.no_grad():
        assert conditioner.auxiliary_loss(held_out, conditioner(held_out)) < 0.2 * unexplained


def test_training_adds_the_weighted_term_to_the_velocity_loss():
    batch = flashes(0)
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(0)
        model, logged = a_model(envelope_weight=weight)
        torch.manual_seed(0)
        total = model.training_step(batch, 0).item()
        losses[weight] = logged | {"total": total}
    assert "train_video_loss" not in losses[0.0] and losses[0.0]["total"] == losses[0.0]["train_loss"]
    assert losses[3.0]["train_video_loss"] == pytest.approx(3.0 * losses[1.0]["train_video_loss"])
    for logged in (losses[1.0], losses[3.0]):
        assert logged["total"] == pytest.approx(logged["train_loss"] + logged["train_video_loss"])


def test_validation_tells_the_term_apart():
    model, logged = a_model(envelope_weight=1.0)
    model.eval().validation_step(flashes(0), 0)
    assert set(logged) == {"val_loss", "val_video_loss"}


def test_a_batch_without_video_has_no_term_but_gradients_for_every_weight():
    model, logged = a_model(envelope_weight=1.0)
    loss = model.training_step(replace(flashes(0), video=None, fps=None), 0)
    assert logged["train_video_loss"] == 0.0
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.conditioners["video"].parameters())


@pytest.mark.parametrize("given", [flashes(0), replace(flashes(0), video=None, fps=None)], ids=["video", "none"])
def test_every_method_uses_the_same_weights_with_and_without_video(given):
    """Sharded processes exchange gradients after each method: of other weights than the others', they would wait for ever."""
    conditioner = VideoFrames(16, encoder=ENCODER, envelope_weight=1.0)
    told = conditioner(given)
    conditioner.auxiliary_loss(given, Conditioning(aligned=told.aligned.detach())).backward()
    head = {name for name, parameter in conditioner.named_parameters() if parameter.grad is not None}
    assert head == {name for name, _ in conditioner.named_parameters() if name.startswith("envelope.")}
    conditioner.zero_grad()
    told.aligned.sum().backward()
    used = {name for name, parameter in conditioner.named_parameters() if parameter.grad is not None}
    assert used == {name for name, _ in conditioner.named_parameters()} - head


def test_without_it_there_are_no_weights_for_it():
    assert not any("envelope" in name for name, _ in VideoFrames(16, encoder=ENCODER).named_parameters())


@pytest.mark.parametrize("weights", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_the_next_stage_may_begin_or_end_with_it(weights, tmp_path, caplog):
    (earlier, _), (later, _) = (a_model(envelope_weight=weight) for weight in weights)
    torch.save({"state_dict": earlier.state_dict()}, tmp_path / "stage.ckpt")
    own, given = ({name: tensor.clone() for name, tensor in model.state_dict().items()} for model in (later, earlier))
    later.load_stage(tmp_path / "stage.ckpt")
    for name, tensor in later.state_dict().items():
        assert torch.equal(tensor, given.get(name, own[name])), name
    assert ("conditioners.video.envelope." in caplog.text) == (weights[0] != weights[1])


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(UsageError, match="envelope_weight"):
        VideoFrames(16, encoder=ENCODER, envelope_weight=weight)
