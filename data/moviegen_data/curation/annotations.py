"""Clips told apart by what earlier stages annotated, e.g. `{humans: true}`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import TAKEN, Clip


def has(clip: Clip, wanted: Mapping[str, Any]) -> bool:
    """Whether a clip has all of these annotations, with these values."""
    return all(name in clip.annotations and clip.annotations[name] == value for name, value in wanted.items())


def require_own_names(names: Iterable[str], *, given: str, others: Iterable[str] = ()) -> None:
    """Refuse names of annotations that have another meaning.

    Args:
        names: the names.
        given: the setting that has them, for the error.
        others: further names that are not free.

    Raises:
        UsageError: one is empty, or means something else in the shards' json.
    """
    taken = TAKEN.union(others)
    for name in names:
        if not name or name in taken:
            exists = f"a name is a text, and in shards {', '.join(sorted(taken))} mean something else"
            raise UsageError(f"the annotation {name!r} of {given} was given", exists, "give another name")


def require_known(clips: Sequence[Clip], wanted: Mapping[str, Any], *, given: str) -> None:
    """Refuse annotations that nothing made.

    Args:
        clips: all that are left; where there are none, nothing is refused.
        wanted: the annotations.
        given: the setting that names them, for the error.

    Raises:
        UsageError: no clip has an annotation of that name.
    """
    known = {name for clip in clips for name in clip.annotations}
    for name in sorted(set(wanted) - known if clips else ()):
        exists = f"no clip has the annotation {name!r}; there are {', '.join(sorted(known)) or 'none'}"
        raise UsageError(f"{given} was given", exists, "put the stage that annotates it before")
