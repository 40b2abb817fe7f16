"""The structured caption of Movie Gen Audio (6.2.4, Table 27): built from typed fields, and read back. Imports no torch."""

import re
from dataclasses import dataclass, fields
from typing import Any

from moviegen_core.errors import UsageError

_DESCRIPTION = 'This audio has a description: "'
_LIKELIHOOD = '". This audio contains music with a '
_MUSIC = 'This audio has a music description (if applicable): "'
_SENTENCES = re.compile(
    r"This audio has quality: (?P<quality>\d+(?:\.\d+)?)\. "
    r"This audio (?P<speech>contains|does not contain) speech\. "
    r"This audio (?P<singing>contains|does not contain) vocal singing\. "
    + re.escape(_DESCRIPTION)
    + r"(?P<description>.*?)"
    + re.escape(_LIKELIHOOD)
    + r"(?P<music_likelihood>\d+(?:\.\d+)?) likelihood\. "
    + re.escape(_MUSIC)
    + r'(?P<music_description>.*)"\.',
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class AudioCaption:
    """What a sound shall be, in the fields that captions of the training data have.

    Args:
        description: the sound in free words, as the example of Table 27: "fireworks exploding with loud booms and crackles."
        quality: from 1 to 10, kept to one decimal; 7.0 for effects, 8.0 for effects with music (6.1.6).
        speech: whether somebody speaks.
        singing: whether somebody sings.
        music_likelihood: probability of music in [0, 1], kept to two decimals; Table 27 has 0.01 without and 0.90 with it.
        music_description: style and mood of the music; given whether or not there is any (6.2.4), and may be empty.
    """

    description: str
    quality: float = 7.0
    speech: bool = False
    singing: bool = False
    music_likelihood: float = 0.01
    music_description: str = ""

    def __post_init__(self) -> None:
        for name, kind, noun in (("description", str, "a text"), ("music_description", str, "a text"),
                                 ("speech", (bool, int), "true or false"), ("singing", (bool, int), "true or false")):  # fmt: skip
            if not isinstance(getattr(self, name), kind):
                raise UsageError(f"{name}={getattr(self, name)!r} was given", f"it is {noun}", "correct it")
        for name, low, high, digits in (("quality", 1.0, 10.0, 1), ("music_likelihood", 0.0, 1.0, 2)):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not low <= value <= high:
                raise UsageError(f"{name}={value!r} was given", f"it lies from {low:g} to {high:g}", "give a number between")
            object.__setattr__(self, name, round(float(value), digits) + 0.0)  # of -0.0 the sign would be written
        if _LIKELIHOOD in self.description:
            raise UsageError(
                f"the description {self.description[:60]!r} was given",
                f"it holds {_LIKELIHOOD!r}, which ends a description",
                "leave that sentence out; `AudioCaption.parse` reads a whole caption",
            )

    def format(self) -> str:
        """The caption in the sentences of Table 27."""
        return (
            f"This audio has quality: {self.quality:.1f}. "
            f"This audio {_contains(self.speech)} speech. "
            f"This audio {_contains(self.singing)} vocal singing. "
            f"{_DESCRIPTION}{self.description}{_LIKELIHOOD}{self.music_likelihood:.2f} likelihood. "
            f'{_MUSIC}{self.music_description}".'
        )

    def __str__(self) -> str:
        return self.format()

    @classmethod
    def parse(cls, text: str) -> "AudioCaption":
        """Read a caption that `format` wrote; white space around it is no matter.

        Raises:
            UsageError: it is no such caption.
        """
        found = _SENTENCES.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            names = ", ".join(field.name for field in fields(cls))
            raise UsageError(
                f"the caption {str(text)[:80]!r} was given",
                "it does not hold the sentences of Table 27, in their order",
                f"build it from its fields, AudioCaption({names}).format()",
            )
        read: dict[str, Any] = found.groupdict()
        read |= {name: read[name] == "contains" for name in ("speech", "singing")}
        read |= {name: float(read[name]) for name in ("quality", "music_likelihood")}
        return cls(**read)


def sound_effects(description: str, *, music_description: str = "", quality: float = 7.0) -> AudioCaption:
    """A caption for sounds without music: quality 7.0 and music likelihood 0.01 (6.1.6, Table 27)."""
    return AudioCaption(description=description, quality=quality, music_likelihood=0.01, music_description=music_description)


def sound_effects_and_music(description: str, music_description: str, *, quality: float = 8.0) -> AudioCaption:
    """A caption for sounds with music: quality 8.0 and music likelihood 0.90 (6.1.6, Table 27).

    A description that does not speak of music gets ", and music plays in the background.", as those of the paper's benchmark have.
    """
    if "music" not in description.lower():
        description = f"{description.rstrip().rstrip('.')}, and music plays in the background."
    return AudioCaption(description=description, quality=quality, music_likelihood=0.90, music_description=music_description)


def _contains(present: bool) -> str:
    return "contains" if present else "does not contain"
