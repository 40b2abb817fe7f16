"""The core of moviegen: interfaces, flow matching, and the plugin host. Importing it does not import torch."""

from moviegen_core.hookspecs import Command, Component, CurationStage, PresetDirectory, hookimpl

__version__ = "0.1.0"
__all__ = ["Command", "Component", "CurationStage", "PresetDirectory", "__version__", "hookimpl"]
