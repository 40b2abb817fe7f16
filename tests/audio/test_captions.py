"""Captions in the sentences of Table 27."""

import json

import pytest

from moviegen_audio.captions import AudioCaption, sound_effects, sound_effects_and_music
from moviegen_core.errors import UsageError

WAVES = (
    'This audio has quality: 8.0. This audio does not contain speech. This audio does not contain vocal singing. This audio has a '
    'description: "gentle waves lapping against the shore, and music plays in the background.". This audio contains music with a 0.90 '
    'likelihood. This audio has a music description (if applicable): "A beautiful, romantic, and sentimental jazz piano solo.".'
)  # fmt: skip
FIREWORKS = (
    'This audio has quality: 7.0. This audio does not contain speech. This audio does not contain vocal singing. This audio has a '
    'description: "fireworks exploding with loud booms and crackles.". This audio contains music with a 0.01 likelihood. This audio has '
    'a music description (if applicable): "A grand, majestic, and thrilling orchestral piece featuring a massive symphony orchestra with '
    'a soaring melody and pounding percussion, evoking a sense of awe and wonder.".'
)  # fmt: skip


@pytest.mark.parametrize("text", [WAVES, FIREWORKS], ids=["waves", "fireworks"])
def test_the_two_examples_of_table_27(text):
    caption = AudioCaption.parse(text)
    assert caption.format() == str(caption) == text
    assert AudioCaption.parse(f" {text}\n") == caption


def test_presets_build_them():
    jazz = "A beautiful, romantic, and sentimental jazz piano solo."
    assert sound_effects_and_music("gentle waves lapping against the shore.", jazz).format() == WAVES
    assert sound_effects_and_music("gentle waves lapping against the shore, and music plays in the background.", jazz).format() == WAVES
    fireworks = AudioCaption.parse(FIREWORKS)
    assert sound_effects(fireworks.description, music_description=fireworks.music_description) == fireworks


def test_presence_is_told_and_read():
    text = AudioCaption(description="a choir", speech=True, singing=True, quality=9.26, music_likelihood=0.125).format()
    assert "quality: 9.3. This audio contains speech. This audio contains vocal singing." in text
    assert "music with a 0.12 likelihood" in text


@pytest.mark.parametrize(
    "caption",
    [
        AudioCaption(description=""),
        AudioCaption(description='he says "stop.". and stops', music_description='the so-called ".". hit'),
        AudioCaption(description="two\nlines, ünï 東京", speech=True, quality=1.0, music_likelihood=1.0),
        AudioCaption(description="x", quality=10, music_likelihood=0, music_description=WAVES),
        AudioCaption(description="x", quality=3.14159, music_likelihood=0.33333),
        AudioCaption(description="x", music_likelihood=-0.0),
    ],
    ids=["empty", "quotes", "lines", "caption within", "rounded", "minus zero"],
)
def test_parsing_is_the_inverse_of_formatting(caption):
    assert AudioCaption.parse(caption.format()) == caption


@pytest.mark.parametrize(
    "given", [{"quality": 0.5}, {"quality": 11}, {"quality": float("nan")}, {"music_likelihood": -0.1}, {"music_likelihood": 90}]
)
def test_values_out_of_range_are_refused(given):
    with pytest.raises(UsageError, match=next(iter(given))):
        AudioCaption(description="x", **given)


@pytest.mark.parametrize("text", ["", "a dog barks", WAVES[:-1], WAVES.replace("quality: 8.0", "quality: high"), WAVES + " More."])
def test_what_is_no_such_caption_is_refused(text):
    with pytest.raises(UsageError, match="sentences of Table 27"):
        AudioCaption.parse(text)


def test_a_description_that_would_end_itself_is_refused():
    with pytest.raises(UsageError, match="ends a description"):
        AudioCaption(description=WAVES)


@pytest.mark.media
@pytest.mark.parametrize("name", ["sfx", "sfx_music"])
def test_the_papers_benchmark(media, name):
    lines = (media / "prompts" / f"movie_gen_audio_bench_{name}.jsonl").read_text().splitlines()
    assert len(lines) == 527
    for line in map(json.loads, lines):
        description = line["audio_prompt"]
        made = sound_effects_and_music(description, line["music_prompt"]) if "music_prompt" in line else sound_effects(description)
        assert AudioCaption.parse(made.format()) == made
        assert (made.quality, made.music_likelihood) == ((8.0, 0.9) if "music_prompt" in line else (7.0, 0.01))
        if name == "sfx":
            assert made.description == description


@pytest.mark.parametrize(
    "given", [{"speech": "no"}, {"singing": None}, {"description": None}, {"music_description": 3}, {"quality": "high"}, {"quality": None}]
)
def test_fields_of_another_type_are_refused(given):
    (name,) = given
    with pytest.raises(UsageError, match=f"{name}=.* was given"):
        AudioCaption(**{"description": "x", **given})


@pytest.mark.parametrize("text", [None, b"", 7])
def test_what_is_no_text_is_not_parsed(text):
    with pytest.raises(UsageError, match="it does not hold the sentences"):
        AudioCaption.parse(text)
