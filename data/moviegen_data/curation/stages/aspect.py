"""The mix of landscape and portrait (3.2.1, Table 39)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from moviegen_core.errors import UsageError
from moviegen_core.randomness import keyed_share
from moviegen_data.curation.annotations import has, require_known
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.stage import SetStage

Shape = Literal["landscape", "portrait", "square"]
_SHAPES: tuple[Shape, ...] = ("landscape", "portrait", "square")


class AspectMix(SetStage):
    """Drops the fewest clips of the shapes there are too many of until the shapes come in the wanted shares.

    Put it behind the other filters, for what they drop changes the mix. Which clips are dropped is decided by their keys and the seed. A
    square counts as landscape, whose width is at least its height (Table 39), unless the mix names squares.

    Args:
        mix: shares of `landscape`, `portrait` and, where wanted, `square`, that sum to 1; a shape that is not named is dropped. The
            low-resolution set has 60 % landscape, the high-resolution set 80 % (3.2.1).
        only: the one shape wanted, in place of a mix: `landscape` is Table 39's width >= height.
        tolerance: how far a share may be from the wanted one, in [0, 1).
        square_ratio: ratio of the longer to the shorter side up to which a clip is square, at least 1, where the mix names squares.
        absent: what becomes of a mix of which a shape has no clip: `error`, since nothing else reaches the mix but dropping all, or
            `keep`, which leaves the mix as it is.
        prefer: annotations of clips that are dropped last of their shape, e.g. `{humans: true}`. The share that `LeastShare` gave them
            falls only where the mix takes fewer clips of a shape than have them.
        seed: of the choice.

    Raises:
        UsageError: shares do not sum to 1, or a number is out of its range; on use: no clip has an annotation that is preferred.
    """

    def __init__(
        self,
        *,
        mix: Mapping[Shape, float] | None = None,
        only: Shape | None = None,
        tolerance: float = 0.0,
        square_ratio: float = 1.05,
        absent: Literal["error", "keep"] = "error",
        prefer: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if mix is not None and only is not None:
            raise UsageError(f"mix={dict(mix)} and only={only} were given to AspectMix", "they contradict each other", "give one of them")
        wanted: Mapping[Shape, float] = {only: 1.0} if only else {"landscape": 0.6, "portrait": 0.4} if mix is None else mix
        if (
            not wanted
            or set(wanted) - set(_SHAPES)
            or min(wanted.values()) < 0
            or not math.isclose(sum(wanted.values()), 1.0, abs_tol=1e-6)
        ):
            exists = f"shares of {', '.join(_SHAPES)} are 0 or more and sum to 1"
            raise UsageError(f"the mix {dict(wanted)} was given to AspectMix", exists, "give e.g. {landscape: 0.6, portrait: 0.4}")
        if not 0 <= tolerance < 1 or not 1 <= square_ratio < math.inf:
            given = f"tolerance={tolerance}, square_ratio={square_ratio} were given to AspectMix"
            raise UsageError(given, "a tolerance is in [0, 1), a ratio at least 1", "give e.g. 0.02 and 1.05")
        self.mix = {shape: float(share) for shape, share in wanted.items() if share > 0}
        self.tolerance, self.square_ratio, self.absent, self.seed = tolerance, square_ratio, absent, seed
        self.prefer = dict(prefer or {})

    def apply(self, clips: Sequence[Clip]) -> Sequence[Clip]:
        """Drop what there is too much of; sounds have no shape and pass."""
        require_known(clips, self.prefer, given=f"prefer={self.prefer} of AspectMix")
        shapes = {clip.key: self.shape(clip) for clip in clips if clip.facts.get("width") or "audio_hz" not in clip.facts}
        ranked = [clip.key for clip in sorted(clips, key=self._place) if clip.key in shapes]
        groups = {shape: [key for key in ranked if shapes[key] == shape] for shape in self.mix}
        counts = {shape: len(keys) for shape, keys in groups.items()}
        quotas = self._without_absent(counts) if counts and not all(counts.values()) else quotas_of(counts, self.mix, self.tolerance)
        kept = {key for shape, keys in groups.items() for key in keys[: quotas[shape]]}
        kept |= {clip.key for clip in clips} - set(shapes)
        return [clip if clip.key in kept else self._drop(clip, shapes[clip.key], counts, quotas) for clip in clips]

    def shape(self, clip: Clip) -> Shape:
        """What a clip is.

        Raises:
            UsageError: its size is not known.
        """
        width, height = (clip.facts.get(name) for name in ("width", "height"))
        if not width or not height:
            exists = f"of the clip {clip.key} are known: {', '.join(sorted(clip.facts)) or 'nothing'}"
            raise UsageError("AspectMix looks at width and height", exists, "put the stage Probe before AspectMix")
        if "square" in self.mix and max(width, height) <= self.square_ratio * min(width, height):
            return "square"
        return "landscape" if width >= height else "portrait"

    def _place(self, clip: Clip) -> tuple[bool, float, str]:
        draw = keyed_share(f"aspect/{self.seed}/{clip.key}")  # of its own: no other stage prefers the same clips
        return not has(clip, self.prefer), draw, clip.key

    def _without_absent(self, counts: Mapping[Shape, int]) -> dict[Shape, int]:
        if any(counts.values()) and self.absent == "error" and len(self.mix) > 1:
            told = ", ".join(f"{count} {shape}" for shape, count in counts.items())
            raise UsageError(
                f"the mix {self.mix} was given to AspectMix", f"there are {told}", "add such clips, give `only`, or `absent: keep`"
            )
        return dict(counts)

    def _drop(self, clip: Clip, shape: Shape, counts: Mapping[Shape, int], quotas: Mapping[Shape, int]) -> Clip:
        measured = f"{clip.facts['width']} x {clip.facts['height']} px"
        if shape not in self.mix:
            return clip.dropped(f"{shape} not wanted", measured=measured, wanted=" or ".join(self.mix))
        return clip.dropped(f"too many {shape}", measured=measured, wanted=f"{quotas[shape]} of {counts[shape]}")


def quotas_of(counts: Mapping[Shape, int], mix: Mapping[Shape, float], tolerance: float) -> dict[Shape, int]:
    """The most clips of each shape that make the mix, to a clip.

    Args:
        counts: clips there are.
        mix: wanted shares, which sum to 1.
        tolerance: how far a share may be off.
    """
    bounds = [math.floor((counts[shape] + 0.5) / (share - tolerance)) + 1 for shape, share in mix.items() if share > tolerance]
    for total in range(min([sum(counts.values()), *bounds]), 0, -1):
        # A total is reached where whole numbers of clips, the nearest to the shares, can fill it.
        least = {shape: math.ceil((share - tolerance) * total - 0.5 - 1e-9) for shape, share in mix.items()}
        most = {shape: min(counts[shape], math.floor((share + tolerance) * total + 0.5 + 1e-9)) for shape, share in mix.items()}
        if all(least[shape] <= counts[shape] for shape in mix) and sum(least.values()) <= total <= sum(most.values()):
            return _filled({shape: max(0, least[shape]) for shape in mix}, most, mix, total)
    return dict.fromkeys(mix, 0)


def _filled(least: dict[Shape, int], most: dict[Shape, int], mix: Mapping[Shape, float], total: int) -> dict[Shape, int]:
    """Whole numbers between the bounds that sum to the total, near the mix."""
    quotas = {shape: min(most[shape], max(least[shape], math.floor(share * total + 1e-9))) for shape, share in mix.items()}
    while sum(quotas.values()) > total:  # a least share was rounded up
        shape = max((shape for shape in mix if quotas[shape] > least[shape]), key=lambda name: (quotas[name] - mix[name] * total, name))
        quotas[shape] -= 1
    while sum(quotas.values()) < total:
        shape = max((shape for shape in mix if quotas[shape] < most[shape]), key=lambda name: (mix[name] * total - quotas[name], name))
        quotas[shape] += 1
    return quotas
