"""The interface of a curation stage. A stage looks at clips and scores, annotates, splits or drops them.

A `ClipStage` looks at one clip and its medium, knows nothing of other clips, and runs wherever the engine puts it. A `SetStage` compares
all clips that are left, and sees records only. Both are pure: the same clips give the same answer on any machine and in any order, so that
what was interrupted or lost can be done again.

A stage is configuration until it runs: its constructor keeps arguments and loads nothing, since it is sent to workers. What is heavy is
loaded on first use and kept (`functools.cached_property`).
"""

import importlib
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.lazy import Lazy
from moviegen_data.curation.media import Media
from moviegen_data.curation.sources import digest_of_sources, source_of


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage takes on a cluster: `resources` beside a stage's `class_path` in the configuration.

    Neighbouring stages that take the same share workers, and so decode a medium once.

    Args:
        num_cpus: cores.
        num_gpus: GPUs; 0.25 puts four workers on one. Unless given, one for a stage with a model where the machines have GPUs, and none
            otherwise.
        num_workers: workers at most; as many as the machines hold unless given.

    Raises:
        UsageError: one of them is no number of its kind.
    """

    num_cpus: float = 1.0
    num_gpus: float | None = None
    num_workers: int | None = None

    def __post_init__(self) -> None:
        shares = [share for share in (self.num_cpus, self.num_gpus) if share is not None]
        whole = self.num_workers is None or (isinstance(self.num_workers, int) and self.num_workers >= 1)
        if not whole or not all(isinstance(share, int | float) and 0 <= share < math.inf for share in shares):
            raise UsageError(f"{self} was given", "shares are numbers from 0 on, workers whole numbers from 1 on", "correct them")


class Stage(Lazy):
    """What both kinds of stages have in common."""

    resources: Resources = Resources()  # unless the configuration says otherwise
    uses_gpu: bool = False  # whether it has a model that is faster on one; it must do without where there is none

    def fingerprint(self) -> str:
        """What the answers depend on besides the arguments, e.g. size and time of a file that one names; another one has all done again."""
        return ""

    @property
    def beside(self) -> str | None:
        """Ending of files that lie beside media and that the answers depend on, e.g. `.txt`; a changed one has its part done again."""
        return None

    def check_among(self, stages: Sequence["Stage"]) -> None:
        """Refuse a configuration that it does not fit into; called before anything runs.

        Args:
            stages: all stages in their order, this one among them.

        Raises:
            UsageError: it does not fit.
        """


class ClipStage(Stage, ABC):
    """Looks at clips one by one."""

    @abstractmethod
    def apply(self, clip: Clip, media: Media) -> Clip | Iterable[Clip]:
        """The clip with what was found out about it, or the clips it becomes.

        A clip is left out by returning `clip.dropped(...)`, never by returning nothing.

        Args:
            clip: a clip that no stage has dropped.
            media: its medium.

        Raises:
            SampleError: the medium cannot be used; the clip is dropped with the error's cause.
        """

    def apply_batch(self, clips: Sequence[Clip], media: Sequence[Media]) -> list[Clip | Iterable[Clip]]:
        """The same for several clips; a stage with a model overrides it. An error here is looked for again clip by clip.

        Args:
            clips: at most `batch_size` clips.
            media: their media, one each.
        """
        return [self.apply(clip, medium) for clip, medium in zip(clips, media, strict=True)]

    @property
    def batch_size(self) -> int:
        """How many clips `apply_batch` wants at once."""
        return 1


class SetStage(Stage, ABC):
    """Compares all clips that are left."""

    @abstractmethod
    def apply(self, clips: Sequence[Clip]) -> Sequence[Clip]:
        """The same clips, in the same order, some of them dropped or annotated.

        Args:
            clips: all that are left, sorted by key.
        """


class Function(ClipStage):
    """A typed pure function as a stage.

    Args:
        path: `package.module:function`, which takes a clip and its medium and returns a clip or several.
        arguments: further arguments of the function.

    Raises:
        UsageError: there is no such function, or it does not take the arguments.
    """

    def __init__(self, *, path: str, arguments: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.arguments = dict(arguments or {})
        try:
            inspect.signature(self._function()).bind(None, None, **self.arguments)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            given = f"the function {path} with {self.arguments} was given"
            raise UsageError(given, f"it cannot be called with a clip, a medium and these ({error})", "give module:function") from error

    def apply(self, clip: Clip, media: Media) -> Clip | Iterable[Clip]:
        """Call the function."""
        return self._function()(clip, media, **self.arguments)

    def fingerprint(self) -> str:
        """The function's program: its text and that of its module, where there is some."""
        return source_of(self._function()) + digest_of_sources(self.path.partition(":")[0])

    def _function(self) -> Any:
        module, _, name = self.path.partition(":")
        return getattr(importlib.import_module(module), name)
