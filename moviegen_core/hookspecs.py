"""Every hook a plugin may implement, and the typed records they yield. One file, so that one read tells all.

A plugin is an installed package that names a module in the entry-point group `moviegen`; the module's functions decorated with
`@moviegen_core.hookimpl` answer the hooks below. Importing this file must not import torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pluggy

hookspec = pluggy.HookspecMarker("moviegen")
hookimpl = pluggy.HookimplMarker("moviegen")

Kind = Literal["model", "backbone", "autoencoder", "conditioner", "sampler", "data", "callback", "strategy"]


@dataclass(frozen=True)
class Component:
    """A class a plugin offers by name to YAML and the command line.

    Args:
        kind: which interface it implements.
        class_path: `package.module.ClassName`; imported only when it is used.
        summary: one line for `moviegen plugins show`.
    """

    kind: Kind
    class_path: str
    summary: str


@dataclass(frozen=True)
class Command:
    """A typed function exposed as `moviegen GROUP NAME` (or `moviegen NAME` where group is empty).

    Args:
        group: `data`, `weights`, `eval`, ... or an empty string.
        name: the sub-command's name.
        function_path: `package.module:function`; imported only when it is called. Its signature is the command line.
        summary: one line for the help.
    """

    group: str
    name: str
    function_path: str
    summary: str


@dataclass(frozen=True)
class PresetDirectory:
    """A folder of YAML presets; `DIR/t2v/toy.yaml` is found as `moviegen fit --config t2v/toy`.

    Args:
        path: the folder.
    """

    path: Path


@dataclass(frozen=True)
class CurationStage:
    """A stage of `moviegen data curate`, offered by name to YAML.

    Args:
        class_path: `package.module.ClassName` of a `moviegen_data.curation.Stage`; imported only when it is used.
        summary: one line for `moviegen plugins show`.
    """

    class_path: str
    summary: str


@hookspec
def moviegen_components() -> Iterable[Component]:
    """Offer classes by name.

    Example:
        @hookimpl
        def moviegen_components():
            yield Component("backbone", "my_package.model.MyBackbone", "a state-space backbone")
    """


@hookspec
def moviegen_commands() -> Iterable[Command]:
    """Offer sub-commands.

    Example:
        @hookimpl
        def moviegen_commands():
            yield Command("eval", "fvd", "my_package.fvd:evaluate", "Frechet video distance of two folders")
    """


@hookspec
def moviegen_presets() -> Iterable[PresetDirectory]:
    """Offer folders of YAML presets.

    Example:
        @hookimpl
        def moviegen_presets():
            yield PresetDirectory(Path(__file__).parent / "configs")
    """


@hookspec
def moviegen_curation_stages() -> Iterable[CurationStage]:
    """Offer stages of data curation.

    Example:
        @hookimpl
        def moviegen_curation_stages():
            yield CurationStage("my_package.blur.Sharpness", "drops clips whose middle frame is blurred")
    """
