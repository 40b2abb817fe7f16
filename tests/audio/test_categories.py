"""Tables 23 and 24: types by tags, categories by types and likeness."""

import itertools

import pytest

from moviegen_audio.audioset import MUSIC, SILENCE, VOICE
from moviegen_audio.categories import Category, audio_types, categorize, diegesis
from moviegen_core.errors import UsageError

VOICE_ONLY, SOUND_ONLY, MUSIC_ONLY = {"voice"}, {"sound"}, {"music"}


def test_label_sets_are_apart():
    assert not VOICE & MUSIC and SILENCE not in VOICE | MUSIC
    assert {"Speech", "Rapping", "Choir"} <= VOICE and {"Piano", "Jazz", "Scary music", "Theremin"} <= MUSIC
    assert not {"Dog", "Laughter", "Whispering", "Shout", "Humming", "Cowbell"} & (VOICE | MUSIC), (
        "human voices are not all speech or singing"
    )


@pytest.mark.parametrize(
    ("tags", "types"),
    [
        ({"Speech": 0.9, "Dog": 0.01}, {"voice"}),
        ({"Child singing": 0.3, "Piano": 0.4}, {"voice", "music"}),
        ({"Dog": 0.5, "Music": 0.25, "Conversation": 0.2}, {"voice", "music", "sound"}),
        ({"Dog": 0.5, "Silence": 0.4}, {"sound"}),
        ({"Dog": 0.1, "Silence": 0.05}, set()),
    ],
)
def test_types_of_tags(tags, types):
    assert audio_types(tags) == types


def test_samples_that_are_mostly_silent_are_dropped():
    assert audio_types({"Silence": 0.5, "Speech": 0.4}) is None
    assert categorize({"Silence": 0.5, "Speech": 0.4}, 0.9) is None and audio_types({}) is None
    with pytest.raises(UsageError, match="likelihoods of 0 to 1"):
        audio_types({"Dog": 1.0}, threshold=2.0)


def test_the_threshold_is_the_users():
    assert audio_types({"Dog": 0.5, "Music": 0.05}, threshold=0.05) == {"sound", "music"}


@pytest.mark.parametrize(
    ("types", "limits"),
    [
        (SOUND_ONLY, {0.25: "diegetic", 0.2: None, 0.0: None}),
        (VOICE_ONLY, {0.21: "diegetic", 0.19: None, -0.5: None}),
        ({"voice", "sound"}, {0.21: "diegetic", 0.05: None}),
        (MUSIC_ONLY, {0.31: "diegetic", 0.3: None, 0.2: None, 0.1: None, 0.09: "non-diegetic", -1.0: "non-diegetic"}),
        ({"music", "sound"}, {0.31: "diegetic", 0.28: None, 0.25: None, 0.2: "mixed", 0.1: None, 0.05: None}),
        ({"music", "sound", "voice"}, {0.31: "diegetic", 0.28: None, 0.2: "mixed", 0.05: None}),
        ({"music", "voice"}, {0.9: None, 0.2: None, 0.0: None}),
        (set(), {0.9: None}),
    ],
)
def test_table_24(types, limits):
    assert {similarity: diegesis(types, similarity) for similarity in limits} == limits


def test_no_likeness_has_two_categories_and_all_are_reached():
    found = {
        diegesis(set(types), step / 100)
        for count in range(4)
        for types in itertools.combinations(("voice", "music", "sound"), count)
        for step in range(-100, 101)
    }
    assert found == {"diegetic", "non-diegetic", "mixed", None}
    assert categorize({"Music": 0.9}, 0.05) == Category(frozenset({"music"}), "non-diegetic")
    for wrong in (2.0, float("nan")):
        with pytest.raises(ValueError, match="it is a cosine"):
            diegesis({"sound"}, wrong)
