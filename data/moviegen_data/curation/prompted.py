"""What captioners that ask a model have in common: the prompt, and what the model is shown."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.captioner import Captioner, Said
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.faults import SampleError

PROMPT = (
    "Describe this {kind} in about {words} words: who and what is seen, what they do and how they move, the place, the light, the colours "
    "and the style. Say only what can be seen, in plain sentences, and nothing about the {kind} itself."
)


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
