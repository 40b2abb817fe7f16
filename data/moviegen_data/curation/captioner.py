"""What stages that caption have in common: whose turn a clip is, and what counts as a caption."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.prompts import parse
from moviegen_core.randomness import keyed_share
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage, Stage
from moviegen_data.faults import SampleError

_HELP = "(assist|help|describe|view|see|watch|process|provide|analy[sz]e|identify)"
_REFUSAL = re.compile(
    r"\W*(i['’]?m (very |so )?(sorry|unable|not able)|i am (very |so )?(sorry|unable|not able)|sorry\b|i apologi[sz]e|as an ai\b"
    rf"|i (can['’]?t|cannot|can not|could not|couldn['’]?t|won['’]?t|will not) {_HELP}|unable to {_HELP})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Said:
    """What a captioner said.

    Args:
        text: its words.
        is_cut: it was stopped by a limit before it was done.
        annotations: what else it knows of the clip.
    """

    text: str
    is_cut: bool = False
    annotations: Mapping[str, Any] = field(default_factory=dict)


class Captioner(ClipStage):
    """Captions clips. What is empty, too short or a refusal drops the clip with a reason.

    The FPS and camera-motion prefixes are put before captions on reading; a caption that begins with one loses it here. Portions must
    leave no clip out, and a later captioner writes over nothing: other configurations are refused before anything runs.

    Args:
        portion: the clips whose turn it is: those whose place in [0, 1), which their keys decide, lies between these two. Two
            captioners with [0, 0.7] and [0.7, 1] share the clips 70 to 30, as the paper's 8B and 70B models do (3.2.1).
        keep_existing: leave clips alone that have a caption.
        min_words: words below which a caption says too little; words are what spaces part, so give 1 for languages without.
        seed: of the clips' places; the same for captioners that share.

    Raises:
        UsageError: the portion is not within [0, 1], or empty.
    """

    def __init__(
        self, *, portion: tuple[float, float] = (0.0, 1.0), keep_existing: bool = False, min_words: int = 3, seed: int = 0
    ) -> None:
        require_at_least(0, min_words=min_words)
        low, high = portion
        if not 0 <= low < high <= 1:
            raise UsageError(f"portion={list(portion)} was given", "it is a stretch of [0, 1]", "give e.g. [0, 0.7] and [0.7, 1] to two")
        self.portion, self.keep_existing, self.min_words, self.seed = (low, high), keep_existing, min_words, seed

    @property
    def name(self) -> str:
        """What the clips' annotation `captioner` says."""
        return type(self).__name__

    @property
    def leaves_some(self) -> bool:
        """Whether it leaves clips for a later captioner, beside those whose turn it is not."""
        return False

    def check_among(self, stages: Sequence[Stage]) -> None:
        """Refuse portions that leave clips without a caption, or by which one captioner writes over what another said."""
        captioners = [stage for stage in stages if isinstance(stage, Captioner)]
        parts = sorted(captioner.portion for captioner in captioners if not captioner.leaves_some)
        given = f"the captioners have the portions {', '.join(str(list(captioner.portion)) for captioner in captioners)}"
        if any(part != (0.0, 1.0) for part in parts) and len({captioner.seed for captioner in captioners}) > 1:
            raise UsageError(given, "their seeds differ, so that the same place is another clip for each", "give all of them one seed")
        for earlier, later in combinations(captioners, 2):
            if max(earlier.portion[0], later.portion[0]) < min(earlier.portion[1], later.portion[1]) and not later.keep_existing:
                advice = "give portions that do not overlap, or the later one keep_existing: true"
                raise UsageError(given, "a later one would write over what an earlier one said", advice)
        covered = 0.0
        for low, high in [*parts, (1.0, 1.0)]:
            if low > covered + 1e-9:
                exists = f"clips from {covered:g} to {low:g} would have no caption"
                raise UsageError(given, exists, "give portions that cover [0, 1], e.g. [0, 0.7] and [0.7, 1] to two")
            covered = max(covered, high)

    @abstractmethod
    def say(self, clips: Sequence[Clip], media: Sequence[Media]) -> Sequence[Said | SampleError | None]:
        """What is to be seen in each clip, or why that cannot be said; None leaves a clip to a later captioner.

        Args:
            clips: clips whose turn it is.
            media: their media.
        """

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Caption it."""
        captioned = self.apply_batch([clip], [media])[0]
        assert isinstance(captioned, Clip)
        return captioned

    def apply_batch(self, clips: Sequence[Clip], media: Sequence[Media]) -> list[Clip | Iterable[Clip]]:
        """Caption those whose turn it is; the others stay as they are."""
        numbers = [number for number, clip in enumerate(clips) if self._is_turn_of(clip)]
        found: list[Clip | Iterable[Clip]] = list(clips)
        said = self.say([clips[number] for number in numbers], [media[number] for number in numbers]) if numbers else []
        for number, what in zip(numbers, said, strict=True):
            found[number] = self._judge(clips[number], what)
        return found

    def _is_turn_of(self, clip: Clip) -> bool:
        low, high = self.portion
        return low <= keyed_share(f"caption/{self.seed}/{clip.key}") < high and not (self.keep_existing and clip.caption)

    def _judge(self, clip: Clip, said: Said | SampleError | None) -> Clip:
        if said is None:
            return clip
        if isinstance(said, SampleError):
            return clip.dropped(said.cause, measured=said.detail)
        text = tidy(said.text, is_cut=said.is_cut)
        words = len(text.split())
        if not text:
            return clip.dropped("empty caption")
        if _REFUSAL.match(text):
            return clip.dropped("refused caption", measured=text[:80])
        if words < self.min_words:
            return clip.dropped("caption too short", measured=f"{words} words: {text[:80]}", wanted=f"{self.min_words} words or more")
        return replace(clip, caption=text).scored(caption_words=words).annotated(**said.annotations, captioner=self.name)


def tidy(text: str, *, is_cut: bool = False) -> str:
    """One line without prefixes; of one that was cut off the whole sentences, where there is any."""
    line = " ".join(text.replace("\ufffd", " ").replace("\x00", " ").split())
    line = parse(re.sub(r"^(caption|description)\s*:\s*", "", line, flags=re.IGNORECASE)).caption.strip()
    end = max((match.end() for match in re.finditer(r"[.!?。！？][\"'”’)]*(?=\s|$)", line)), default=0) if is_cut else 0
    return line[:end] if end else line
