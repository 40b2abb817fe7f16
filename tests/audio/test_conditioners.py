"""What a sound is conditioned on: the frames of a video, and what is known of the sound."""

from functools import partial

import pytest
import torch

from moviegen_audio.conditioners import AudioContext, VideoFrames
from moviegen_audio.frames import EmbeddedFrameEncoder, FrameEncoder
from moviegen_audio.masking import ContextMask
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError
from moviegen_core.testing import check_component_typed, check_conditioner

SMALL = partial(EmbeddedFrameEncoder, feature_width=6, size_px=8, channels=[4, 4, 4])


class MeanColour(FrameEncoder):
    """A frame's mean colour: known numbers."""

    def __init__(self):
        super().__init__(feature_width=3)

    def forward(self, video):
        return video.mean((3, 4)).transpose(1, 2)


def batch(num_latent_frames=19, fps=(8.0, 15.0), **given):
    torch.manual_seed(0)
    given = {"video": torch.rand(2, 3, 6, 8, 8) * 2 - 1, "fps": None if fps is None else torch.tensor(fps)} | given
    return MediaBatch(captions=["a", "b"], keys=["x", "y"], latents=torch.randn(2, 4, num_latent_frames), **given)


def test_both_keep_the_contract_of_conditioners():
    for weight in (0.0, 1.0):
        check_conditioner(partial(VideoFrames, encoder=SMALL, envelope_weight=weight), batch=batch())
    check_conditioner(AudioContext, batch=batch())
    for cls in (VideoFrames, AudioContext):
        check_component_typed(cls)


# -- video -------------------------------------------------------------------------------------------------------------------------


def test_frames_come_nearest_through_a_gated_projection():
    conditioner, given = VideoFrames(5, encoder=MeanColour), batch()
    aligned = conditioner(given).aligned
    assert aligned.shape == (2, 19, 5)
    weight, bias = conditioner.projection.weight, conditioner.projection.bias
    for sample, fps in enumerate((8.0, 15.0)):
        for place in range(19):
            frame = min(int((place + 0.5) * fps / 25.0), 5)
            colour = given.video[sample, :, frame].mean((1, 2))
            linear, gate = (weight @ colour + bias).split(5)
            torch.testing.assert_close(aligned[sample, place], linear * torch.sigmoid(gate))


def test_a_frame_rate_of_its_own_for_every_sample():
    conditioner = VideoFrames(5, encoder=MeanColour)
    both, slow = conditioner(batch()).aligned, conditioner(batch(fps=(8.0, 8.0))).aligned
    assert torch.equal(both[0], slow[0]) and not torch.equal(both[1], slow[1])


def test_precomputed_features_are_those_of_the_encoder():
    conditioner, given = VideoFrames(5, encoder=SMALL), batch()
    features = conditioner.encoder(given.video)
    cached = batch(video=None, fps=None, extras={"visual_features": features, "visual_fps": torch.tensor([8.0, 15.0])})
    torch.testing.assert_close(conditioner(cached).aligned, conditioner(given).aligned)
    alone = VideoFrames(5, feature_width=6)
    assert alone.encoder is None and alone(cached).aligned.shape == (2, 19, 5)
    assert VideoFrames(5).feature_width == 1024


def test_no_video_is_nothing_and_gives_every_weight_a_gradient_of_zero():
    conditioner = VideoFrames(5, encoder=SMALL)
    nothing = conditioner(batch(video=None, fps=None)).aligned
    assert nothing.shape == (2, 19, 5) and not nothing.any()
    assert not conditioner.null(batch()).aligned.any()
    nothing.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in conditioner.parameters())


@pytest.mark.parametrize(
    ("build", "given", "told"),
    [
        (partial(VideoFrames, encoder=MeanColour), {"fps": None}, "without a frame rate"),
        (VideoFrames, {}, "VideoFrames without `encoder`"),
        (VideoFrames, {"extras": {"visual_features": torch.zeros(2, 3, 7), "visual_fps": torch.ones(2)}}, "width 7 were.*takes 1024"),
        (partial(VideoFrames, feature_width=7), {"extras": {"visual_features": torch.zeros(2, 3, 7)}}, "no visual_fps"),
        (partial(VideoFrames, encoder=MeanColour), {"latents": None}, "without latents was given to VideoFrames"),
        (AudioContext, {"latents": None}, "without latents was given to AudioContext"),
    ],
)
def test_what_cannot_be_used_is_refused(build, given, told):
    wrong = batch(fps=given.get("fps", (8.0, 15.0)), **{name: value for name, value in given.items() if name == "extras"})
    if "latents" in given:
        wrong.latents = None
    with pytest.raises(UsageError, match=told):
        build(5)(wrong)


def test_two_widths_of_features_are_refused():
    with pytest.raises(UsageError, match="feature_width=7 was given.*MeanColour gives 3"):
        VideoFrames(5, encoder=MeanColour, feature_width=7)


# -- context -----------------------------------------------------------------------------------------------------------------------


def test_masks_are_contiguous_and_cover_75_to_100_per_cent():
    torch.manual_seed(0)
    num_frames = 200
    given = ContextMask().given(torch.rand(20000, 3), num_frames)
    masked = (~given).sum(1)
    assert masked.min() == 150 and masked.max() == 200
    assert (masked.float().mean() / num_frames).item() == pytest.approx(0.875, abs=0.005)
    edges = (~given).int().diff(dim=1, prepend=torch.zeros(20000, 1), append=torch.zeros(20000, 1)).abs().sum(1)
    assert (edges == 2).all()


def test_masks_reach_either_end_as_often_as_told():
    torch.manual_seed(0)
    masks = ContextMask(masked_min=0.75, masked_max=0.9, at_end=0.5)
    given = masks.given(torch.rand(20000, 3), 200)
    first, last = (~given[:, 0]).float().mean().item(), (~given[:, -1]).float().mean().item()
    # A quarter by intent; of the other half the one in 21 to 51 places that is at the end.
    assert first == pytest.approx(last, abs=0.01) and 0.25 < first < 0.285
    anywhere = ContextMask(at_end=0.0).given(torch.rand(20000, 3), 200)
    middles = ((~anywhere).float() * torch.arange(200)).sum(1) / (~anywhere).sum(1)
    assert middles.mean().item() == pytest.approx(99.5, abs=0.5)


def test_short_sounds_are_masked_too():
    for num_frames in (1, 2, 3):
        given = ContextMask().given(torch.rand(100, 3), num_frames)
        assert given.shape == (100, num_frames) and (~given).any(1).all()


def test_training_masks_are_random_and_latents_are_zero_there():
    conditioner, given = AudioContext(8), batch(200)
    torch.manual_seed(0)
    first = conditioner(given).channels
    assert not torch.equal(first, conditioner(given).channels)
    torch.manual_seed(0)
    assert torch.equal(first, conditioner(given).channels)
    known = first.any(1)
    assert torch.equal(first, torch.where(known[:, None], given.latents, 0.0))
    assert conditioner.dropout == 0.5 and VideoFrames(8).dropout == 0.1
    assert not conditioner.null(given).channels.any() and conditioner.null(given).channels.shape == given.latents.shape


def test_validation_masks_depend_on_the_key_alone():
    conditioner = AudioContext(8).eval()
    both = batch(200)
    first = conditioner(both).channels
    torch.manual_seed(5)
    alone = MediaBatch(captions=["b"], keys=["y"], latents=both.latents[1:])
    assert torch.equal(conditioner(alone).channels, first[1:])
    assert not torch.equal(conditioner.given(both)[0], conditioner.given(both)[1])


@pytest.mark.parametrize("training", [True, False])
def test_a_given_mask_is_used(training):
    mask = torch.zeros(2, 19, dtype=torch.bool)
    mask[0, :4] = True
    given = batch(extras={"context_mask": mask})
    channels = AudioContext(8).train(training)(given).channels
    assert torch.equal(channels[0, :, :4], given.latents[0, :, :4]) and not channels[0, :, 4:].any() and not channels[1].any()


@pytest.mark.parametrize("given", [{"masked_min": 0.9, "masked_max": 0.8}, {"masked_max": 1.5}, {"at_end": -1.0}, {"dropout": 2.0}])
def test_shares_out_of_range_are_refused(given):
    with pytest.raises(ValueError, match="0"):
        AudioContext(8, **given)
