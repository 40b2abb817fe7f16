"""Stages that ask a model about several clips at once."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from moviegen_core.errors import require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage
from moviegen_data.faults import SampleError


class BatchedStage(ClipStage):
    """Shows a model several clips at once and judges each by its answer. What is wrong with one of them drops that one alone.

    Who shares its batch must not change a clip's answer; see `in_equal_batches` for networks.

    Args:
        batch: clips at a time.

    Raises:
        UsageError: it is below 1.
    """

    def __init__(self, *, batch: int) -> None:
        require_at_least(1, batch=batch)
        self.batch = batch

    @abstractmethod
    def look(self, clip: Clip, media: Media) -> Any:
        """What the model is shown of a clip.

        Raises:
            SampleError: the clip cannot be looked at, and is dropped.
        """

    @abstractmethod
    def answer(self, shown: Sequence[Any]) -> Sequence[Any]:
        """What the model says, one answer for each.

        Args:
            shown: what `look` gave, of one clip or more.
        """

    @abstractmethod
    def judge(self, clip: Clip, answer: Any) -> Clip:
        """The clip with its answer.

        Raises:
            SampleError: the answer is none, and the clip is dropped.
        """

    @property
    def batch_size(self) -> int:
        return self.batch

    def apply(self, clip: Clip, media: Media) -> Clip | Iterable[Clip]:
        """Ask about one clip."""
        return self.apply_batch([clip], [media])[0]

    def apply_batch(self, clips: Sequence[Clip], media: Sequence[Media]) -> list[Clip | Iterable[Clip]]:
        """Ask about several clips."""
        shown = [_tried(self.look, clip, medium) for clip, medium in zip(clips, media, strict=True)]
        good = [number for number, one in enumerate(shown) if not isinstance(one, SampleError)]
        answers = self.answer([shown[number] for number in good]) if good else []
        found = shown
        for number, answer in zip(good, answers, strict=True):
            found[number] = _tried(self.judge, clips[number], answer)
        return [
            clip.dropped(one.cause, measured=one.detail) if isinstance(one, SampleError) else one
            for clip, one in zip(clips, found, strict=True)
        ]


def _tried(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except SampleError as error:
        return error
