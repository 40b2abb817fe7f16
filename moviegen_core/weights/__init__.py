"""Weights on disk: read them safely, load them into modules, average, export, import and inspect them.

Reading never runs code from a file: torch files are read weights-only, sharded checkpoints with an unpickler that knows nothing but
torch's own records, and safetensors hold no code.
"""

from moviegen_core.weights.averaging import average
from moviegen_core.weights.building import build_from_checkpoint
from moviegen_core.weights.exporting import export, import_
from moviegen_core.weights.inspecting import describe, inspect
from moviegen_core.weights.loading import load_into
from moviegen_core.weights.reading import (
    TensorInfo,
    WeightsFile,
    load_checkpoint,
    load_state_dict,
    open_weights,
)
from moviegen_core.weights.writing import save_checkpoint, save_safetensors

__all__ = [
    "TensorInfo",
    "WeightsFile",
    "average",
    "build_from_checkpoint",
    "describe",
    "export",
    "import_",
    "inspect",
    "load_checkpoint",
    "load_into",
    "load_state_dict",
    "open_weights",
    "save_checkpoint",
    "save_safetensors",
]
