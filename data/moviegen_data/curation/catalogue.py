"""`moviegen data stages` and `moviegen data stage NAME`: the stages of curation and their arguments."""

import inspect
from collections.abc import Mapping

from moviegen_core.errors import UsageError
from moviegen_core.plugins import plugin_host
from moviegen_core.refusals import arguments_of, class_at, shown_type
from moviegen_data.curation.pipeline import class_path_of
from moviegen_data.curation.stage import Stage


def list_stages() -> None:
    """Print the stages that a configuration of `moviegen data curate` may name."""
    for name, found in sorted(plugin_host().curation_stages.items()):
        for stage, _ in found:
            print(f"{name:<20} {stage.summary}")


def show_stage(name: str) -> None:
    """Print what a stage does, and its arguments.

    Args:
        name: its short name, as `moviegen data stages` lists it, or its full class path.

    Raises:
        UsageError: there is no such stage.
    """
    path = class_path_of(name, told="this stage was asked for:")
    try:
        cls = class_at(path)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"the stage '{name}' was given", str(error), "see `moviegen data stages`") from error
    if not isinstance(cls, type) or not issubclass(cls, Stage):
        raise UsageError(f"the stage '{name}' was given", "it is no stage", "see `moviegen data stages`")
    print(f"{path}: {_summary(cls)}")
    told = _told(cls)
    for argument, parameter in (arguments_of(cls) or {}).items():
        default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
        required = "" if default else ", which must be given"
        print(f"  {argument}: {shown_type(parameter.annotation)}{default}{required}")
        print(f"      {told.get(argument, 'no help')}")


def _summary(cls: type) -> str:
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def _told(cls: type) -> Mapping[str, str]:
    """The help of arguments, by the docstrings of a class and of those that it derives from."""
    from docstring_parser import parse  # comes with jsonargparse

    told: dict[str, str] = {}
    for owner in inspect.getmro(cls):
        for param in parse(owner.__doc__ or "").params:
            told.setdefault(param.arg_name, " ".join((param.description or "").split()))
    return told
