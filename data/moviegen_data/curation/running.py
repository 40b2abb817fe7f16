"""How clips pass through stages: what goes wrong with one medium drops its clips and ends no run."""

import errno
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import torch

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import PART, Clip
from moviegen_data.curation.engine import Tally
from moviegen_data.curation.media import Media
from moviegen_data.curation.pipeline import Named
from moviegen_data.curation.stage import ClipStage
from moviegen_data.curation.tries import DIED, KILLED, Watch
from moviegen_data.faults import SampleError, SourceError, logger

FAILED = "the stage failed"
_OF_THE_MACHINE = (UsageError, SourceError, MemoryError, ImportError, FileNotFoundError, torch.OutOfMemoryError, torch.AcceleratorError)
_OUT_OF = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_SYSTEM_CALLS = (*_OUT_OF, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOTCONN)


class ClipRun:
    """Passes the clips of one part through stages that look at clips one by one; what is dropped stays in the list and goes no further.

    Args:
        stages: the stages.
        root: folder that the clips' sources are relative to.
        watch: where it is written down what is begun, and what killed workers before.
    """

    def __init__(self, stages: Sequence[Named], root: Path, watch: Watch | None = None) -> None:
        self.stages, self.root, self.watch = stages, root, watch or Watch()
        self.tallies = {named.name: Tally() for named in stages}
        self._media = Media(root)

    def __call__(self, clips: Sequence[Clip]) -> list[Clip]:
        """The clips afterwards.

        Args:
            clips: clips of one part; those of one medium next to each other.
        """
        clips = [self._spared(clip) for clip in clips]
        for size, group in groupby(self.stages, key=lambda named: _batch_size(named)):
            members = list(group)
            if size > 1:
                for named in members:
                    clips = self._in_batches(named, clips, size)
            else:  # medium by medium, so that what one stage decoded serves the next
                clips = [made for _, own in groupby(clips, key=lambda clip: clip.source) for made in self._one_medium(members, list(own))]
        return clips

    def _spared(self, clip: Clip) -> Clip:
        stage = self.watch.killer(clip.source) if clip.drop is None else None
        if stage is None:
            return clip
        for named in self.stages:  # it was seen to come as far as there
            own = named.name == stage
            self.tallies[named.name].add(Tally(1, seconds([clip]), 0 if own else 1, 0.0 if own else seconds([clip])))
            if own:
                break
        return clip.dropped(KILLED, measured=DIED, stage=stage)

    def medium_of(self, clip: Clip) -> Media:
        """A clip's medium; only the last is kept."""
        path = self.root / clip.source
        if self._media.path != path:
            self._media = Media(path)
        return self._media

    def _one_medium(self, stages: Sequence[Named], clips: list[Clip]) -> list[Clip]:
        for named in stages:
            given = [clip for clip in clips if clip.drop is None]
            start = time.perf_counter()
            for clip in given[:1]:
                self.watch.begin(clip.source, named.name)
            made = {clip.key: applied(named, clip, self.medium_of(clip)) for clip in given}
            clips = self._joined(named, clips, given, made, time.perf_counter() - start)
        return clips

    def _in_batches(self, named: Named, clips: list[Clip], size: int) -> list[Clip]:
        given = [clip for clip in clips if clip.drop is None]
        start = time.perf_counter()
        made: dict[str, list[Clip]] = {}
        for first in range(0, len(given), size):
            batch = given[first : first + size]
            media = [self.medium_of(clip) for clip in batch]
            if not self.watch.is_first:  # one by one, to see which it is
                made |= {clip.key: self._alone(named, clip, medium) for clip, medium in zip(batch, media, strict=True)}
                continue
            self.watch.begin(batch[0].source, named.name)
            try:
                answers = named.stage.apply_batch(batch, media)
                made |= {clip.key: checked(named, clip, answer) for clip, answer in zip(batch, answers, strict=True)}
            except Exception as error:  # noqa: BLE001 - whose fault it was is looked for clip by clip
                if ends_the_run(error):
                    raise
                logger.warning("stage %s failed for a batch, clip by clip now: %s: %s", named.name, type(error).__name__, error)
                made |= {clip.key: applied(named, clip, medium) for clip, medium in zip(batch, media, strict=True)}
        return self._joined(named, clips, given, made, time.perf_counter() - start)

    def _alone(self, named: Named, clip: Clip, medium: Media) -> list[Clip]:
        self.watch.begin(clip.source, named.name)
        return applied(named, clip, medium)

    def _joined(
        self, named: Named, clips: Iterable[Clip], given: Sequence[Clip], made: Mapping[str, list[Clip]], spent_s: float
    ) -> list[Clip]:
        """The clips with the stage's answers in their places; what it did is counted."""
        self.tallies[named.name].add(tally_of(given, made, spent_s))
        return [one for clip in clips for one in ([clip] if clip.drop else made[clip.key])]


def run_set_stage(named: Named, clips: Sequence[Clip]) -> tuple[dict[str, Clip], Tally]:
    """Let a stage compare clips; return them by key, and what was done.

    Args:
        named: a stage that compares clips.
        clips: those that are left, in any order.

    Raises:
        UsageError: the stage gives back other clips than it was given.
    """
    start = time.perf_counter()
    given = sorted(clips, key=lambda clip: clip.key)
    made = list(named.stage.apply(given)) if given else []
    if [clip.key for clip in made] != [clip.key for clip in given]:
        raise UsageError(
            f"the stage '{named.name}' ({type(named.stage).__name__}) gave {len(made)} clips for {len(given)}",
            "a stage that compares clips returns the same ones in the same order, some of them dropped",
            "correct the stage",
        )
    for clip, one in zip(given, made, strict=True):
        if one is not clip:
            _require_kept(named, one)
    tally = tally_of(given, {clip.key: [clip] for clip in made}, time.perf_counter() - start)
    return {clip.key: _signed(clip, named.name) for clip in made}, tally


def _require_kept(named: Named, clip: Clip) -> None:
    try:
        clip.to_json().encode()
    except (ValueError, TypeError) as error:
        given = f"the stage '{named.name}' ({type(named.stage).__name__}) gave the clip {clip.key!r}"
        raise UsageError(given, f"it cannot be kept ({error})", "correct the stage") from error


def tally_of(given: Sequence[Clip], made: Mapping[str, list[Clip]], spent_s: float) -> Tally:
    """What a stage did: clips and seconds before and behind it, and the scores that are its own.

    Args:
        given: clips that it looked at.
        made: its answer for each of them, by key.
        spent_s: how long it took.
    """
    tally = Tally(len(given), seconds(given), spent_s=spent_s)
    for clip in given:
        for one in made[clip.key]:
            if one.drop is None:
                tally.left += 1
                tally.left_s += seconds([one])
            seen = tally.kept_scores if one.drop is None else tally.dropped_scores
            for name, score in one.scores.items():
                if clip.scores.get(name) != score:
                    seen.setdefault(name, []).append(score)
    return tally


def applied(named: Named, clip: Clip, media: Media) -> list[Clip]:
    """What a stage makes of a clip; where that fails, the clip, dropped with the cause.

    Raises:
        UsageError: the stage's settings cannot be used, so that no clip could pass.
    """
    try:
        return checked(named, clip, named.stage.apply(clip, media))
    except SampleError as error:
        return [_signed(clip.dropped(error.cause, measured=error.detail), named.name)]
    except Exception as error:  # noqa: BLE001 - a stranger's stage and the media's codecs may raise anything
        if ends_the_run(error):
            raise
        logger.warning("stage %s failed for %s: %s: %s", named.name, clip.key, type(error).__name__, error)
        return [_signed(clip.dropped(FAILED, measured=f"{type(error).__name__}: {error}"), named.name)]


def ends_the_run(error: Exception) -> bool:
    """Whether an error is the settings' or the machine's fault, not the medium's: what would be kept of it would be false for ever."""
    if isinstance(error, av.FFmpegError):  # whose lack of memory may be a damaged file's doing
        return isinstance(error, FileNotFoundError)
    return isinstance(error, _OF_THE_MACHINE) or isinstance(error, OSError) and error.errno in _SYSTEM_CALLS


def checked(named: Named, clip: Clip, answer: Any) -> list[Clip]:
    """A stage's answer about a clip as a list.

    Raises:
        TypeError: it is none that a stage may give.
    """
    made = [answer] if isinstance(answer, Clip) else list(answer)
    if not made or not all(isinstance(one, Clip) and _is_of(one, clip) for one in made):
        raise TypeError(f"it gave {answer!r}; a stage gives the clip, or parts of it, or the clip dropped")
    if len({one.key for one in made}) < len(made):
        raise TypeError("it gave two parts of one name; number them")
    for one in made:
        if one is not clip:
            one.to_json().encode()  # what cannot be kept is told here, by clip and stage
    return [_signed(one, named.name) for one in made]


def _is_of(one: Clip, clip: Clip) -> bool:
    return one.source == clip.source and (one.key == clip.key or one.key.startswith(clip.key + PART))


def seconds(clips: Iterable[Clip]) -> float:
    """How long clips are together; those of unknown length count nothing."""
    return sum(clip.duration_s for clip in clips if clip.duration_s < float("inf"))


def _signed(clip: Clip, name: str) -> Clip:
    if clip.drop is None or clip.drop.stage:
        return clip
    return replace(clip, drop=replace(clip.drop, stage=name))


def _batch_size(named: Named) -> int:
    return max(1, named.stage.batch_size) if isinstance(named.stage, ClipStage) else 1
