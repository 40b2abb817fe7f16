"""Libraries that only some stages need, imported where they are used."""

import importlib
from typing import Any

from moviegen_core.errors import UsageError


def optional(module: str, *, what: str) -> Any:
    """Import a library of the extra `curation`.

    Args:
        module: its name in Python, e.g. `faiss`.
        what: what needs it, for the error, e.g. `comparing vectors`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        exists = f"it needs `{module}`, which cannot be imported ({error})"
        raise UsageError(f"{what} was asked for", exists, "run `pip install 'moviegen[curation]'`, or leave the stage out") from error
