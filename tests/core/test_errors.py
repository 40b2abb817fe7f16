"""Limits of settings."""

import math

import pytest

from moviegen_core.errors import UsageError, require_at_least


def test_what_is_below_the_least_or_no_number_is_refused():
    require_at_least(1, frames=1, seconds=math.inf)
    for wrong in (0, -1, math.nan):
        with pytest.raises(UsageError, match=f"frames={wrong} was given; it is at least 1"):
            require_at_least(1, seconds=2.0, frames=wrong)
