"""Libraries that only some stages need, imported where they are used."""

import importlib
from typing import Any

from moviegen_core.errors import UsageError


def optional(module: str, *, what: str) -> Any:
    """Import a library of the extra `curation`.

    Args:
        module: its name in Python, e.g. `faiss`.
        what: what needs it, for the error.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{what} was asked for", f"it needs `{module}`, which cannot be imported ({error})", "run `pip install 'moviegen[curation]'`"
        ) from error
