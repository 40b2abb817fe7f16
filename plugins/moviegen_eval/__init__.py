"""Evaluation: the toy world's oracles for pictures and sound, onsets, figures of a sound. Importing this package does not import torch."""

from collections.abc import Iterable

from moviegen_core.hookspecs import Command, hookimpl

_LAZY = {
    "Hearing": "moviegen_eval.hearing",
    "HearingScore": "moviegen_eval.hearing_score",
    "ObjectReading": "moviegen_eval.oracle",
    "OnsetScore": "moviegen_eval.onsets",
    "Oracle": "moviegen_eval.oracle",
    "OracleAccuracy": "moviegen_eval.metrics",
    "OracleScore": "moviegen_eval.oracle",
    "Reading": "moviegen_eval.oracle",
    "SoundOracle": "moviegen_eval.hearing",
    "SoundOracleAccuracy": "moviegen_eval.metrics",
    "boundary_flux": "moviegen_eval.audio_metrics",
    "chance": "moviegen_eval.oracle",
    "clipping_share": "moviegen_eval.audio_metrics",
    "detect_onsets": "moviegen_eval.onsets",
    "hearing_chance": "moviegen_eval.hearing_score",
    "level_range": "moviegen_eval.audio_metrics",
    "log_mel_distance": "moviegen_eval.audio_metrics",
    "onset_f1": "moviegen_eval.onsets",
    "score_sounds": "moviegen_eval.hearing_score",
    "si_sdr": "moviegen_eval.audio_metrics",
}

__all__ = sorted(_LAZY)  # noqa: PLE0605


@hookimpl
def moviegen_commands() -> Iterable[Command]:
    """`moviegen eval oracle FOLDER` and `moviegen eval sound FOLDER`."""
    yield Command("eval", "oracle", "moviegen_eval.commands:oracle", "read toy clips in a folder and score them against their ground truth")
    yield Command("eval", "sound", "moviegen_eval.commands:sound", "hear toy sounds in a folder and score them against their ground truth")


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
