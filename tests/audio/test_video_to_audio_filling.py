"""VideoToAudio fills in: spans within sounds, before and after them, and by a mask; and what it refuses."""

import pytest
import torch
from small_sound_model import HZ, a_batch, a_sound, a_video, make_model

from moviegen_core.errors import UsageError


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_outside_of_the_spans_every_bit_is_kept(model):
    sound = a_sound()
    made = model.infill(sound, spans_s=[(0.103, 0.251), (0.4, 0.5)], captions=["a dog", ""])
    kept = torch.ones(500, dtype=torch.bool)
    kept[103:251] = kept[400:] = False
    assert made.shape == sound.shape and torch.equal(made[:, :, kept], sound[:, :, kept])
    assert not torch.isclose(made[:, :, ~kept], sound[:, :, ~kept]).float().mean() > 0.1


def test_what_the_spans_hold_is_never_looked_at(model):
    sound, other = a_sound(), a_sound()
    other[:, :, 100:300] = float("nan")
    spans = {"spans_s": [(0.1, 0.3)], "video": a_video(), "fps": 10.0}
    assert torch.equal(model.infill(sound, **spans), model.infill(other, **spans))
    other[1, 0, 99] = float("nan")
    with pytest.raises(UsageError, match="'1' holds NaN"):
        model.infill(other, **spans)


def test_the_context_matters_and_differs_by_sample(model):
    kept = torch.ones(2, 500, dtype=torch.bool)
    kept[0, 200:] = False
    kept[1, :333] = False
    made = model.infill(a_sound(), kept=kept)
    assert torch.equal(made.masked_select(kept[:, None]), a_sound().masked_select(kept[:, None]))
    louder = model.infill(a_sound() * 0.3, kept=kept)
    assert not torch.allclose(made[0, :, 300:], louder[0, :, 300:], atol=1e-3)


def test_out_filling_in_both_directions(model):
    sound = a_sound()
    made = model.outfill(sound, before_s=0.2, after_s=0.33, captions=["a dog", "a bell"])
    assert made.shape == (2, 1, 200 + 500 + 330) and torch.equal(made[:, :, 200:700], sound)
    assert made[:, :, :200].any() and made[:, :, 700:].any()
    assert torch.equal(model.outfill(sound, after_s=0.1)[:, :, :500], sound)


def test_stereo_is_filled_in():
    model = make_model(audio_channels=2)
    sound = a_sound(channels=2)
    made = model.infill(sound, spans_s=[(0.2, 0.3)])
    assert torch.equal(made[:, :, :200], sound[:, :, :200]) and torch.equal(made[:, :, 300:], sound[:, :, 300:])
    with pytest.raises(UsageError, match=r"sound of shape \(2, 1, 500\)"):
        model.infill(a_sound(), spans_s=[(0.2, 0.3)])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "both or neither"),
        ({"spans_s": [(0.1, 0.2)], "kept": torch.ones(2, 500, dtype=torch.bool)}, "both or neither"),
        ({"kept": torch.ones(2, 500, dtype=torch.bool)}, "leaves some out"),
        ({"kept": torch.zeros(2, 13, dtype=torch.bool)}, r"mask of shape \(2, 13\)"),
        ({"spans_s": [(0.3, 0.9)]}, "lasts 0.5 s"),
    ],
)
def test_nothing_to_fill_in_is_refused(model, given, told):
    with pytest.raises(UsageError, match=told):
        model.infill(a_sound(), **given)


@pytest.mark.parametrize("sound", [a_sound()[0], a_sound()[0, 0], (a_sound() * 100).to(torch.int16)])
def test_sounds_of_another_form_are_not_filled_in(model, sound):
    with pytest.raises(UsageError, match="a sound of shape"):
        model.infill(sound, spans_s=[(0.1, 0.2)])
    with pytest.raises(UsageError, match="a sound of shape"):
        model.outfill(sound, after_s=0.1)


def test_sounds_and_captions_are_equally_many(model):
    for captions in (["a"], ["a"] * 3):
        with pytest.raises(UsageError, match="audio of shape"):
            model.infill(a_sound(), spans_s=[(0.1, 0.2)], captions=captions)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_sound_grows_by_a_day_at_most(model, wrong):
    for given in ({"before_s": wrong, "after_s": 2.0}, {"after_s": wrong}):
        with pytest.raises(UsageError, match="a sound grows by them"):
            model.outfill(a_sound(), **given)


def test_prediction_fills_in_where_a_mask_is_given(model):
    mask = torch.zeros(2, 13, dtype=torch.bool)
    mask[:, :5] = True
    given = {"audio": a_sound(), "audio_hz": HZ, "captions": ["", ""]}
    made = model.predict_step(a_batch(**given, extras={"context_mask": mask}), 0)
    assert torch.equal(made["audio"][:, :, :200], a_sound()[:, :, :200]) and not torch.equal(made["audio"], a_sound())
    with pytest.raises(UsageError, match="context_mask of 12 latent frames.*have 13"):
        model.predict_step(a_batch(**given, extras={"context_mask": mask[:, 1:]}), 0)
    with pytest.raises(UsageError, match="without a sound"):
        model.predict_step(a_batch(extras={"context_mask": mask}), 0)
