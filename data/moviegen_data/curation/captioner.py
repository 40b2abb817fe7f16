"""What stages that caption have in common: whose turn a clip is, and what counts as a caption."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.prompts import parse
from moviegen_core.randomness import keyed_share
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage, Stage
from moviegen_data.faults import SampleError

PROMPT = (
    "Describe this {kind} in about {words} words: who and what is seen, what they do and how they move, the place, the light, the colours "
    "and the style. Say only what can be seen, in plain sentences, and nothing about the {kind} itself."
)
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
    leave no clip out: captioners that together cover less than [0, 1] are refused before anything runs.

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
        """Refuse portions that leave clips without a caption."""
        captioners = [stage for stage in stages if isinstance(stage, Captioner)]
        parts = sorted(captioner.portion for captioner in captioners if not captioner.leaves_some)
        given = f"the captioners have the portions {', '.join(str(list(captioner.portion)) for captioner in captioners)}"
        if any(part != (0.0, 1.0) for part in parts) and len({captioner.seed for captioner in captioners}) > 1:
            raise UsageError(given, "their seeds differ, so that the same place is another clip for each", "give all of them one seed")
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


@dataclass(frozen=True)
class Shown:
    """What a model is shown of a clip.

    Args:
        pictures: frames in RGB.
        kind: `video` or `picture`.
    """

    pictures: UInt8[np.ndarray, "n h w 3"]
    kind: str


class PromptedCaptioner(Captioner):
    """Shows a model a few frames of each clip, and asks it for a caption of about so many words.

    Args:
        prompt: what it is asked; `{words}` and `{kind}` (video or picture) are put in.
        words: words asked for.
        max_tokens: tokens at most; of a caption that reaches them the whole sentences are kept. Three for each word unless given.
        num_frames: frames shown, evenly spread over the clip.
        max_side: pixels of their longer side at most.
        portion: the clips whose turn it is, see `Captioner`.
        keep_existing: leave clips alone that have a caption.
        min_words: words below which a caption says too little.
        seed: of the clips' places.

    Raises:
        UsageError: a number is out of its range, or the prompt asks for something else to be put in.
    """

    def __init__(
        self,
        *,
        prompt: str,
        words: int,
        max_tokens: int | None,
        num_frames: int,
        max_side: int,
        portion: tuple[float, float],
        keep_existing: bool,
        min_words: int,
        seed: int,
    ) -> None:
        super().__init__(portion=portion, keep_existing=keep_existing, min_words=min_words, seed=seed)
        self.max_tokens = 3 * words if max_tokens is None else max_tokens
        require_at_least(1, words=words, max_tokens=self.max_tokens, num_frames=num_frames, max_side=max_side)
        filled(prompt, words=words)
        self.prompt, self.words, self.num_frames, self.max_side = prompt, words, num_frames, max_side

    @abstractmethod
    def ask(self, shown: Sequence[Shown]) -> Sequence[Said | SampleError]:
        """What the model says of each clip.

        Args:
            shown: one clip or more.
        """

    def say(self, clips: Sequence[Clip], media: Sequence[Media]) -> list[Said | SampleError]:
        """What the model says, or why a clip cannot be shown."""
        shown = [self._show(clip, medium) for clip, medium in zip(clips, media, strict=True)]
        good = [one for one in shown if isinstance(one, Shown)]
        answers = iter(self.ask(good) if good else ())
        return [next(answers) if isinstance(one, Shown) else one for one in shown]

    def question(self, kind: str) -> str:
        """The prompt for a kind of medium."""
        return filled(self.prompt, words=self.words, kind=kind)

    def _show(self, clip: Clip, media: Media) -> Shown | SampleError:
        try:
            return Shown(look(clip, media, count=self.num_frames, max_side=self.max_side), media.kind)
        except SampleError as error:
            return error


def tidy(text: str, *, is_cut: bool = False) -> str:
    """One line without prefixes; of one that was cut off the whole sentences, where there is any."""
    line = " ".join(text.replace("\ufffd", " ").replace("\x00", " ").split())
    line = parse(re.sub(r"^(caption|description)\s*:\s*", "", line, flags=re.IGNORECASE)).caption.strip()
    end = max((match.end() for match in re.finditer(r"[.!?。！？][\"'”’)]*(?=\s|$)", line)), default=0) if is_cut else 0
    return line[:end] if end else line


def filled(prompt: str, *, words: int, kind: str = "video") -> str:
    """A prompt with the number of words and the kind of medium put in.

    Raises:
        UsageError: it asks for something else.
    """
    try:
        return prompt.format(words=words, kind=kind)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        exists = f"it may hold {{words}} and {{kind}} ({type(error).__name__}: {error})"
        raise UsageError(f"the prompt {prompt[:80]!r} was given", exists, "write other braces twice") from error
