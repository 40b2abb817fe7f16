"""The least share of clips with an annotation, by dropping as few of the others as possible."""

import pickle
import random

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip
from moviegen_data.curation.stages.aspect import AspectMix
from moviegen_data.curation.stages.share import LeastShare

HUMANS = {"humans": True}


def clips(having, others):
    made = [Clip(key=f"h-{number:05d}", source="a.mp4").annotated(humans=True) for number in range(having)]
    return made + [Clip(key=f"o-{number:05d}", source="a.mp4").annotated(humans=False) for number in range(others)]


def kept(found):
    return [clip for clip in found if clip.drop is None]


@pytest.mark.parametrize("share", [0.6, 1 / 3, 0.9, 1.0])
def test_the_share_is_reached_by_dropping_the_fewest(share):
    for having, others in ((60, 40), (60, 41), (6, 400), (1, 1), (50, 3), (7, 0)):
        found = LeastShare(having=HUMANS, share=share).apply(clips(having, others))
        left = kept(found)
        assert sum(clip.annotations["humans"] for clip in left) == having  # none of them is dropped
        assert having >= share * len(left) - 1e-9
        assert len(left) == having + others or having < share * (len(left) + 1) - 1e-9  # one more would be one too many


def test_the_choice_depends_on_keys_alone():
    given = clips(6, 50)
    shuffled = random.Random(0).sample(given, len(given))
    stage = pickle.loads(pickle.dumps(LeastShare(having=HUMANS)))
    found = stage.apply(shuffled)
    assert [clip.key for clip in found] == [clip.key for clip in shuffled]
    assert {clip.key for clip in kept(found)} == {clip.key for clip in kept(stage.apply(given))}
    assert {clip.key for clip in kept(LeastShare(having=HUMANS, seed=1).apply(given))} != {clip.key for clip in kept(found)}
    drop = next(clip.drop for clip in found if clip.drop)
    assert (drop.reason, drop.measured, drop.wanted) == ("too many without humans", "one of 50 without humans", "4 beside 6")


def test_the_share_outlives_a_mix_that_prefers_it():
    """3.2.1 asks for both: 80 % landscape, and at least 60 % with humans."""
    sizes = {True: {"width": 1280, "height": 720}, False: {"width": 720, "height": 1280}}
    given = [clip.described(**sizes[number % 2 == 0]) for number, clip in enumerate(clips(120, 300))]
    shared = kept(LeastShare(having=HUMANS, share=0.6).apply(given))
    left = kept(AspectMix(mix={"landscape": 0.8, "portrait": 0.2}, prefer=HUMANS).apply(shared))
    landscape = sum(clip.facts["width"] > clip.facts["height"] for clip in left)
    assert landscape == pytest.approx(0.8 * len(left), abs=0.5)
    assert all(clip.annotations["humans"] for clip in left if clip.facts["width"] < clip.facts["height"])  # the others are dropped first
    assert sum(clip.annotations["humans"] for clip in left) >= 0.6 * len(left)


def test_a_mix_that_takes_fewer_of_a_shape_than_have_it_lowers_the_share():
    given = [clip.described(width=16, height=9 if number >= 60 else 25) for number, clip in enumerate(clips(60, 40))]
    left = kept(AspectMix(mix={"landscape": 0.8, "portrait": 0.2}, prefer=HUMANS).apply(LeastShare(having=HUMANS, share=0.6).apply(given)))
    assert (sum(clip.annotations["humans"] for clip in left), len(left)) == (10, 50)


def test_what_cannot_be_reached_is_an_error():
    with pytest.raises(UsageError, match=r"none of 3 clips has \{'humans': True\}"):
        LeastShare(having=HUMANS).apply(clips(0, 3))
    assert len(kept(LeastShare(having=HUMANS, absent="keep").apply(clips(0, 3)))) == 3
    assert LeastShare(having=HUMANS).apply([]) == []
    with pytest.raises(UsageError, match="no clip has the annotation 'people'; there are humans"):
        LeastShare(having={"people": True}).apply(clips(1, 1))
    for settings in ({"having": {}}, {"having": HUMANS, "share": 0.0}, {"having": HUMANS, "share": 1.1}):
        with pytest.raises(UsageError):
            LeastShare(**settings)
