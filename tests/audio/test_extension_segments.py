"""What a model knows about a segment: the sampler asks, the encoders see one segment at a time (6.1.5)."""

import pytest
import torch
from torch import nn

from moviegen_audio import MultiDiffusion, SegmentAutoregressive, SegmentConditionings
from moviegen_audio.segments import cut
from moviegen_core.backbone import Backbone
from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_core.conditioner import Conditioner, Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow.windows import Window
from moviegen_core.generator import FlowModel


def make_batch(frames=60, fps=(10.0, 24.0), length=50):
    video = torch.arange(frames, dtype=torch.float32).view(1, 1, -1, 1, 1).expand(2, 3, -1, 2, 2).clone()
    features = torch.arange(frames, dtype=torch.float32).view(1, -1, 1).expand(2, -1, 4).clone()
    extras = {
        "context_mask": torch.arange(length).expand(2, -1) < 7,
        "visual_features": features,
        "visual_fps": torch.tensor(fps),
        "faces": torch.ones(2, 3),
    }
    latents = torch.arange(length, dtype=torch.float32).expand(2, 5, -1).clone()
    text = {"t5": TextEmbedding(torch.zeros(2, 1, 4), torch.ones(2, 1, dtype=torch.bool))}
    return MediaBatch(captions=["a", "b"], keys=["x", "y"], video=video, latents=latents, fps=torch.tensor(fps), extras=extras, text=text)


def test_segments_see_the_frames_that_they_see_within_the_whole():
    batch = make_batch()
    whole, pieces = cut(batch, Window(0, 50)), [cut(batch, Window(start, start + 10)) for start in range(0, 50, 10)]
    for read in (lambda part: part.video, lambda part: part.latents):
        torch.testing.assert_close(torch.cat([read(part) for part in pieces], dim=2), read(whole))
    for name in ("visual_features", "context_mask"):
        torch.testing.assert_close(torch.cat([part.extras[name] for part in pieces], dim=1), whole.extras[name])
    # The frame shown in the middle of latent frame k: 10 a second change every two and a half latent frames, and the last one stays.
    expected = torch.stack([((torch.arange(50) + 0.5) * fps / 25).floor().clamp(max=59) for fps in (10.0, 24.0)])
    torch.testing.assert_close(whole.extras["visual_features"][..., 0], expected)
    torch.testing.assert_close(whole.video[:, 0, :, 0, 0], expected)
    for part in (whole, *pieces):
        assert part.fps.tolist() == [25.0, 25.0] == part.extras["visual_fps"].tolist()
        assert part.extras["faces"] is batch.extras["faces"] and part.captions == batch.captions
    assert batch.fps.tolist() == [10.0, 24.0] and batch.video.shape[2] == 60, "the batch itself was changed"


def test_other_rates_of_latent_frames():
    part = cut(make_batch(), Window(10, 20), latent_hz=12.5)
    expected = torch.stack([((torch.arange(10, 20) + 0.5) * fps / 12.5).floor() for fps in (10.0, 24.0)])
    torch.testing.assert_close(part.video[:, 0, :, 0, 0], expected)
    assert part.fps.tolist() == [12.5, 12.5]


def test_a_film_that_is_too_short_keeps_its_last_frame():
    part = cut(make_batch(frames=5), Window(40, 50))
    assert part.video.shape[2] == 10 and (part.video == 4.0).all()


def test_a_batch_of_prompts_has_nothing_to_cut():
    batch = MediaBatch(captions=["a"], keys=["x"])
    assert cut(batch, Window(3, 9)) == batch


def test_every_segment_has_its_own_caption():
    windows, asked = [Window(0, 20), Window(10, 50)], []

    def condition(batch, dropped):
        asked.append((batch.captions, batch.text, batch.latents.shape[2], dropped))
        return Conditioning()

    variants = [frozenset(), frozenset({"text"})]
    make = SegmentConditionings(make_batch(), variants, condition, windows, captions=[["rain", "sun"], ["dog", "cat"]])
    assert len(make(1, windows[1])) == 2
    assert asked == [(["sun", "cat"], {}, 40, variant) for variant in variants]
    shared = SegmentConditionings(make_batch(), variants, condition, windows)
    shared(0, windows[0])
    assert asked[-1][0] == ["a", "b"] and asked[-1][1].keys() == {"t5"}


def test_captions_that_do_not_match_the_segments_are_refused():
    with pytest.raises(UsageError, match=r"3 captions were given for the segments of 'y'; .*2 segments, which end at 0.8, 2 s"):
        windows = [Window(0, 20), Window(10, 50)]
        SegmentConditionings(make_batch(), [frozenset()], None, windows, captions=[["a", "b"], ["a", "b", "c"]])


class CaptionLength(Conditioner):
    """One context token: the length of the caption."""

    def __init__(self, width: int) -> None:
        super().__init__(dropout=0.0)
        self.seen = []

    def forward(self, batch):
        self.seen.append((batch.captions, batch.latents.shape[2]))
        return self.tokens([float(len(caption)) for caption in batch.captions])

    def null(self, batch):
        return self.tokens([0.0] * len(batch))

    def tokens(self, values):
        return Conditioning(context=torch.tensor(values).view(-1, 1, 1), context_mask=torch.ones(len(values), 1, dtype=torch.bool))


class Shift(Backbone):
    """The velocity is the caption's length."""

    def __init__(self) -> None:
        super().__init__(in_channels=3, width=1)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x_t, t, conditioning):
        return torch.zeros_like(x_t) + conditioning.context.view(-1, 1, 1)


class Captioned(FlowModel):
    """Takes a caption for every segment, as a model of sound does."""

    def conditionings(self, batch, variants, length):
        return SegmentConditionings(
            batch, variants, self._variant, self.sampler.segments(length), captions=[m["captions"] for m in batch.metadata]
        )


@pytest.mark.parametrize(
    "sampler",
    [
        SegmentAutoregressive(window=6, hop=4, context=False, trajectory=True, steps=2, guidance_scale=2.0),
        MultiDiffusion(window=6, hop=4, windows_per_batch=3, steps=2, guidance_scale=2.0),
    ],
)
def test_a_model_gives_every_segment_its_conditions(sampler):
    model = Captioned(backbone=Shift, conditioners={"text": CaptionLength})
    model.configure_model()
    model.sampler = sampler
    metadata = [{"captions": ["a", "aaa", "aa"]}, {"captions": ["", "aaaa", "a"]}]
    batch = MediaBatch(captions=["", ""], keys=["x", "y"], latents=torch.zeros(2, 3, 12), metadata=metadata)
    sample = model.sample_latents(batch, (3, 12))
    silent = model.sample_latents(batch, (3, 12), drop=True)
    shift = (sample - silent)[:, 0]
    own = {0: (0, 2), 1: (4, 6), 2: (8, 12)}  # the frames that no later segment shares
    for index, (start, stop) in own.items():
        expected = torch.tensor([[2.0 * len(captions["captions"][index])] for captions in metadata])
        torch.testing.assert_close(shift[:, start:stop], expected.expand(2, stop - start))
    assert [frames for _, frames in model.conditioners["text"].seen] == [4, 6, 6]
