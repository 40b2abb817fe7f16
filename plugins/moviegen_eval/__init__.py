"""Evaluation: the toy world's oracle. Importing this package does not import torch."""

from collections.abc import Iterable

from moviegen_core.hookspecs import Command, hookimpl

_LAZY = {
    "ObjectReading": "moviegen_eval.oracle",
    "Oracle": "moviegen_eval.oracle",
    "OracleAccuracy": "moviegen_eval.metrics",
    "OracleScore": "moviegen_eval.oracle",
    "Reading": "moviegen_eval.oracle",
    "chance": "moviegen_eval.oracle",
}

__all__ = ["ObjectReading", "Oracle", "OracleAccuracy", "OracleScore", "Reading", "chance"]


@hookimpl
def moviegen_commands() -> Iterable[Command]:
    """`moviegen eval oracle FOLDER`."""
    yield Command("eval", "oracle", "moviegen_eval.commands:oracle", "read toy clips in a folder and score them against their ground truth")


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
