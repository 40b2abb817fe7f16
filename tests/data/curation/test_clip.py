"""The record of a clip."""

import numpy as np
import pytest

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip


def test_a_clip_comes_back_from_its_line():
    clip = Clip("a/b", "b c.mp4", 1.5, 4.0, caption="größe ☂").described(width=3, codec="h264").scored(motion=1 / 3)
    clip = clip.annotated(words=["x"]).embedded(hash=np.array([1.0, -1.0, 0.5])).dropped("too dark", measured="3", wanted="4", stage="s")
    again = Clip.from_json(clip.to_json())
    assert again.to_json() == clip.to_json()
    assert again.drop == clip.drop and again.scores == {"motion": 0.333333} and again.vectors["hash"].tolist() == [1.0, -1.0, 0.5]
    assert str(again.drop) == "s: too dark (3, wanted 4)"


def test_durations():
    assert Clip("a", "a").duration_s == float("inf")
    assert Clip("a", "a", facts={"duration_s": 5}).duration_s == 5.0 and Clip("a", "a").is_whole
    part = Clip("a", "a", facts={"duration_s": 5}).scored(x=1.0).part(2, 1.0, 3.5)
    assert (part.key, part.duration_s, part.is_whole, dict(part.scores)) == ("a+002", 2.5, False, {})


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_are_numbers(score):
    with pytest.raises(ValueError, match="is not finite"):
        Clip("a", "a").scored(motion=score)


@pytest.mark.parametrize("vector", [[float("nan")], [1e6], [[1.0, 2.0]]])
def test_embeddings_are_vectors_of_numbers(vector):
    with pytest.raises(ValueError, match="embeddings are vectors"):
        Clip("a", "a").embedded(x=np.array(vector))


@pytest.mark.parametrize("name", ["fps", "caption", "key", "place"])
def test_annotations_have_names_of_their_own(name):
    clip = Clip("a", "a").described(place="here")
    with pytest.raises(UsageError, match=f"the annotation '{name}' of 'a' was given; .* means something else; let the stage call it"):
        clip.annotated(humans=True, **{name: "x"})
    with pytest.raises(UsageError, match="the annotation 'humans' of 'a' was given"):
        clip.annotated(humans=True).described(humans=2)
    assert clip.annotated(humans=True).annotated(humans=False).annotations == {"humans": False}
