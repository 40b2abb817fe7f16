"""Clips whose caption names something (4.2.1: human-related concepts)."""

import re
from functools import cached_property
from unicodedata import normalize

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage
from moviegen_data.curation.texts import read_texts


class Mentions(ClipStage):
    """Keeps clips whose caption holds one of some words or phrases, and annotates which as `mentions`.

    The data of personalisation begins with the captions that tell of people (4.2.1); the words the paper looks for are not published.
    Words count whole and in either case: `man` is in "A man's hat", not in "man-made" or "woman". So nothing is found in languages
    without spaces.

    Args:
        terms: words and phrases: a list, the path of a file with one a line (`#` begins a comment), or `people`.

    Raises:
        UsageError: there are none; on use: a clip has no caption.
    """

    def __init__(self, *, terms: list[str] | str = "people") -> None:
        self.terms = read_texts(terms, name="terms", stage="Mentions")

    def fingerprint(self) -> str:
        return "\n".join(self.terms)

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Look for the terms in the caption."""
        if not clip.caption:
            raise UsageError("Mentions looks at captions", f"the clip {clip.key} has none", "put a stage that captions before Mentions")
        matches = self._pattern.finditer(normalize("NFC", clip.caption))
        found = list(dict.fromkeys(" ".join(match.group().lower().split()) for match in matches))
        if not found:
            return clip.dropped("mentions none", measured=clip.caption[:80], wanted=f"one of {len(self.terms)} terms")
        return clip.annotated(mentions=found)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted((normalize("NFC", term) for term in self.terms), key=len, reverse=True)
        phrases = (r"\s+".join(map(re.escape, term.split())) for term in longest_first)
        return re.compile(rf"(?<![\w-])(?:{'|'.join(phrases)})(?![\w-])", re.IGNORECASE)
