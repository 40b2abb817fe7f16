"""A least share of clips that show something (3.2.1: at least 60 % with humans)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from moviegen_core.errors import UsageError
from moviegen_core.randomness import keyed_share
from moviegen_data.curation.annotations import has, require_known
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.stage import SetStage


class LeastShare(SetStage):
    """Drops the fewest clips without an annotation, so that those with it make at least a share of what is left.

    Which ones are dropped is decided by their keys and the seed. Put it before `AspectMix`, whose mix it would change, and give that the
    same annotations as `prefer`.

    Args:
        having: annotations that count, all of them, e.g. `{humans: true}` of `TextRetrieval`.
        share: their least share, above 0 and at most 1. The paper's high-resolution set has at least 60 % clips with humans (3.2.1).
        absent: what becomes of a set in which no clip has them: `error`, since no choice but none reaches the share, or `keep`.
        seed: of the choice.

    Raises:
        UsageError: nothing is to be had, or the share is out of its range; on use: no clip has the annotations.
    """

    def __init__(self, *, having: Mapping[str, Any], share: float = 0.6, absent: Literal["error", "keep"] = "error", seed: int = 0) -> None:
        if not having or not 0 < share <= 1:
            given = f"having={dict(having)} and share={share} were given to LeastShare"
            raise UsageError(given, "it takes one annotation or more and a share above 0, at most 1", "give e.g. {humans: true} and 0.6")
        self.having, self.share, self.absent, self.seed = dict(having), share, absent, seed

    def apply(self, clips: Sequence[Clip]) -> Sequence[Clip]:
        """Drop what there is too much of."""
        require_known(clips, self.having, given=f"having={self.having} of LeastShare")
        others = sorted((clip.key for clip in clips if not has(clip, self.having)), key=self._place)
        count = len(clips) - len(others)
        if clips and not count:
            if self.absent == "error":
                exists = f"none of {len(clips)} clips has {self.having}"
                raise UsageError(f"share={self.share} was given to LeastShare", exists, "add such clips, or give `absent: keep`")
            return clips
        most = math.floor(count / self.share + 1e-9) - count
        dropped = set(others[most:])
        measured, wanted = f"one of {len(others)} without {_named(self.having)}", f"{most} beside {count}"
        return [
            clip.dropped(f"too many without {_named(self.having)}", measured=measured, wanted=wanted) if clip.key in dropped else clip
            for clip in clips
        ]

    def _place(self, key: str) -> tuple[float, str]:
        return keyed_share(f"share/{self.seed}/{key}"), key  # a draw of its own: no other stage prefers the same clips


def _named(having: Mapping[str, Any]) -> str:
    return ", ".join(name if value is True else f"{name}: {value}" for name, value in having.items())
