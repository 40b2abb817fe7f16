"""Sorting sounds for pre-training: voice, music and sound by tags, and diegetic or not by likeness to the video (6.2.1, 6.2.2)."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Literal

from moviegen_audio.audioset import MUSIC, SILENCE, VOICE
from moviegen_core.errors import UsageError

AudioType = Literal["voice", "music", "sound"]
Diegesis = Literal["diegetic", "non-diegetic", "mixed"]

# Table 24. In the printed table the limits of "diegetic" stand beside the middle of three rows each: 0.2 where there is no music (sound;
# voice; voice + sound) and 0.3 where there is (music; music + sound; voice + music + sound). Types that the table does not name (voice +
# music without other sound) and likenesses between its limits belong to no category.
_DIEGETIC_WITHOUT_MUSIC, _DIEGETIC_WITH_MUSIC = 0.2, 0.3
_NON_DIEGETIC_MUSIC = 0.1
_MIXED = (0.1, 0.25)
_WITHOUT_MUSIC = ({"sound"}, {"voice"}, {"voice", "sound"})
_WITH_MUSIC = ({"music"}, {"music", "sound"}, {"voice", "music", "sound"})


@dataclass(frozen=True)
class Category:
    """What a sound is.

    Args:
        types: any of `voice`, `music`, `sound`.
        diegesis: whether it belongs to the scene; None where the table has no place for it.
    """

    types: frozenset[AudioType]
    diegesis: Diegesis | None


def audio_types(tags: Mapping[str, float], *, threshold: float = 0.2) -> frozenset[AudioType] | None:
    """Map the tags of an audio event detector to types; None where silence is the dominant class, for such samples are dropped (6.2.2).

    Labels are spelt as in AudioSet. The paper does not tell its threshold. Nothing at all above it gives an empty set.

    Args:
        tags: likelihood of each AudioSet label, 0 to 1.
        threshold: from where on a tag is taken for detected.
    """
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"threshold={threshold} was given", "tags have likelihoods of 0 to 1", "give a threshold between")
    if not tags or max(tags, key=tags.__getitem__) == SILENCE:
        return None
    detected = {label for label, likelihood in tags.items() if likelihood >= threshold} - {SILENCE}
    found: set[AudioType] = set()
    if detected & VOICE:
        found.add("voice")
    if detected & MUSIC:
        found.add("music")
    if detected - VOICE - MUSIC:
        found.add("sound")
    return frozenset(found)


def diegesis(types: Set[AudioType], similarity: float) -> Diegesis | None:
    """Category of Table 24 of a sound of some types whose likeness to its video (CAVTP cosine) is known; None where it has none."""
    if not -1.001 <= similarity <= 1.001:
        raise ValueError(
            f"a similarity of {similarity} was given; it is a cosine, -1 to 1; give that of the sound's and the video's embeddings"
        )
    if types in _WITHOUT_MUSIC:
        return "diegetic" if similarity > _DIEGETIC_WITHOUT_MUSIC else None
    if types not in _WITH_MUSIC:
        return None
    if similarity > _DIEGETIC_WITH_MUSIC:
        return "diegetic"
    if types == {"music"}:
        return "non-diegetic" if similarity < _NON_DIEGETIC_MUSIC else None
    return "mixed" if _MIXED[0] < similarity < _MIXED[1] else None


def categorize(tags: Mapping[str, float], similarity: float, *, threshold: float = 0.2) -> Category | None:
    """Category of a sound by its tags and its likeness to its video; None where silence dominates."""
    types = audio_types(tags, threshold=threshold)
    return None if types is None else Category(types, diegesis(types, similarity))
