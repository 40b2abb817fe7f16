"""Errors a user reads: what was given, what exists or is nearest, what to do next."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """A mistake of the user's, told in three parts; the command line prints it without a trace.

    Args:
        given: what was given, and where.
        exists: what exists, or what is nearest.
        advice: what to type or do next.
    """

    def __init__(self, given: str, exists: str, advice: str) -> None:
        super().__init__(f"{given}; {exists}; {advice}")
        self.given = given
        self.exists = exists
        self.advice = advice

    def __reduce__(self) -> tuple[type["UsageError"], tuple[str, str, str]]:
        """Pickled by its parts, so that it comes back from worker processes."""
        return type(self), (self.given, self.exists, self.advice)


def require_at_least(least: float, **given: float) -> None:
    """Refuse the first of the named numbers that is below `least`.

    Raises:
        UsageError: one is.
    """
    for name, number in given.items():
        if not number >= least:  # NaN is neither
            raise UsageError(f"{name}={number} was given", f"it is at least {least}", f"give a number from {least} on")


def nearest(name: str, options: Iterable[str], *, count: int = 1) -> list[str]:
    """Return at most `count` of the options that look most like the name, upper and lower case being one."""
    by_lower: dict[str, str] = {}
    for option in options:
        by_lower.setdefault(option.lower(), option)
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=count, cutoff=0.5)
    return [by_lower[match] for match in found]


def what_exists(name: str, options: Iterable[str], *, noun: str, limit: int = 12) -> str:
    """Say which option is nearest to the name, or list what exists where nothing is near."""
    known = sorted(set(options))
    if not known:
        return f"there is no {noun}"
    close = nearest(name, known)
    if close:
        return f"the nearest {noun} is '{close[0]}'"
    shown = ", ".join(known[:limit])
    return f"known are {shown}" + (f" and {len(known) - limit} more" if len(known) > limit else "")
