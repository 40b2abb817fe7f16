"""Which stages run, and in which order."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from moviegen_core import __version__
from moviegen_core.errors import UsageError, what_exists
from moviegen_core.plugins import plugin_host
from moviegen_core.presets import find_presets
from moviegen_core.refusals import Mistake, arguments_of, class_at, find_mistake, lines_told, shown_type, takes_none
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.sources import program_of
from moviegen_data.curation.stage import Resources, SetStage, Stage

_ADVICE = "see `moviegen data stage {}`"


@dataclass(frozen=True)
class Named:
    """A stage and what the configuration calls it.

    Args:
        name: its name in the configuration.
        stage: the stage.
        settings: what it was built from; runs with equal settings may share results.
        resources: what one worker takes, where the configuration says so; the stage's own otherwise.
    """

    name: str
    stage: Stage
    settings: Mapping[str, Any]
    resources: Resources | None = None

    @property
    def share(self) -> tuple[Resources, bool]:
        """What one worker takes, and whether a GPU is of use to it."""
        return self.resources or self.stage.resources, self.stage.uses_gpu


@dataclass(frozen=True)
class Step:
    """Stages that run without looking at other parts of the data: clip stages, or one set stage alone.

    Args:
        number: its place, from 0.
        stages: the stages.
        digest: hash of the stages' settings, programs and files; names the folder of the results.
    """

    number: int
    stages: tuple[Named, ...]
    digest: str

    @property
    def compares(self) -> bool:
        """Whether it needs all clips at once."""
        return isinstance(self.stages[0].stage, SetStage)


def build_stages(config: Mapping[str, Any]) -> list[Named]:
    """The stages of a configuration, in its order.

    Args:
        config: for each name `{class_path: ..., init_args: {...}}`; None leaves a stage of an included file out.

    Raises:
        UsageError: there are none, or one cannot be built.
    """
    stages = [_named(name, entry) for name, entry in config.items() if entry is not None]
    if not stages:
        raise UsageError("no stage was given", "curation is made of stages", "give `stages: {name: {class_path: ..., init_args: ...}}`")
    for named in stages:
        named.stage.check_among([each.stage for each in stages])
    return stages


def refuse_strange_nulls(path: Path, below: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a file that leaves out a stage which nothing below it names. Presets, and what lies under all others, may hold places.

    Args:
        path: the file.
        below: what it is laid over.
        own: its own values.

    Raises:
        UsageError: there is no such stage.
    """
    known, stages = below.get("stages"), own.get("stages")
    if not known or not isinstance(known, Mapping) or not isinstance(stages, Mapping):
        return
    strange = [name for name, entry in stages.items() if entry is None and name not in known]
    if strange and path not in {preset.path.resolve() for preset in find_presets()}:
        exists = what_exists(strange[0], known, noun="stage")
        raise UsageError(f"{path} leaves out `{strange[0]}: null`", exists, "correct the name, or take the line away")


def steps_of(stages: Sequence[Named]) -> list[Step]:
    """Cut the stages into steps, before and behind every one that compares clips."""
    steps: list[Step] = []
    kinds = [number if isinstance(named.stage, SetStage) else -1 for number, named in enumerate(stages)]
    start = 0
    for _, group in groupby(kinds):
        members = tuple(stages[start : start + len(list(group))])
        start += len(members)
        told = [(named.name, dict(named.settings), _program(named.stage), named.stage.fingerprint()) for named in members]
        digest = hashlib.sha256(repr((told, __version__)).encode()).hexdigest()[:16]  # by repr: 1, 1.0 and "1" are not the same
        steps.append(Step(len(steps), members, digest))
    return steps


def _program(stage: Stage) -> str:
    return program_of(type(stage), type(stage).__module__)  # it changes more often than a version


def _named(name: str, entry: Any) -> Named:
    if (
        not isinstance(entry, Mapping)
        or not isinstance(entry.get("class_path"), str)
        or not isinstance(entry.get("init_args") or {}, Mapping)
        or set(entry) - {"class_path", "init_args", "resources"}
    ):
        raise UsageError(
            f"the stage '{name}' is {entry!r}",
            "a stage is `{class_path: ..., init_args: {...}}`, and on a cluster `resources: {...}` beside them",
            "correct it, or give null to leave it out",
        )
    settings = {key: value for key, value in entry.items() if key != "resources"}
    return Named(name, _build(name, entry), settings, _resources(name, entry.get("resources")))


def _resources(name: str, given: Any) -> Resources | None:
    if given is None:
        return None
    try:
        return Resources(**given)
    except TypeError as error:
        known = ", ".join(field.name for field in fields(Resources))
        raise UsageError(f"the stage '{name}' was given the resources {given!r}", f"there are {known}", "give some of these") from error


def _build(name: str, entry: Mapping[str, Any]) -> Stage:
    from jsonargparse import ArgumentError, ArgumentParser

    path, arguments = class_path_of(entry["class_path"], told=f"the stage '{name}' is of class"), dict(entry.get("init_args") or {})
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Stage, "stage", fail_untyped=True)
    try:
        config = parser.parse_object({"stage": {"class_path": path, "init_args": arguments}})
        _refuse_nulls(name, entry["class_path"], class_at(path), arguments)
        return parser.instantiate(config).stage
    except (ArgumentError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        if isinstance(error.__cause__, UsageError):  # raised by the stage, wrapped by the parser
            raise error.__cause__ from error
        raise _refusal(name, entry, str(error)) from error


def _refuse_nulls(name: str, given: str, cls: type, arguments: Mapping[str, Any]) -> None:
    """Refuse null where an argument does not take it, which the parser lets pass."""
    for argument, parameter in (arguments_of(cls) or {}).items():
        if argument in arguments and arguments[argument] is None and not takes_none(parameter.annotation):
            exists = f"it takes {shown_type(parameter.annotation)}"
            raise UsageError(f"the stage '{name}' was given {argument}=null", exists, _ADVICE.format(given))


def _refusal(name: str, entry: Mapping[str, Any], message: str) -> UsageError:
    """What the parser refused, in three parts."""
    advice = _ADVICE.format(entry["class_path"])
    mistake = find_mistake(message, {"stage": Stage})
    if mistake is None or len(mistake.path) < 2:
        if "." in entry["class_path"]:
            advice = "correct it, or see `moviegen data stages`"
        return UsageError(f"the stage '{name}' was given as {dict(entry)}", lines_told(message), advice)
    argument = ".".join(mistake.path[1:])
    given = f"the argument '{argument}'" if mistake.value is None else f"{argument}={_value(entry, mistake)}"
    return UsageError(f"the stage '{name}' was given {given}", mistake.exists, advice)


def _value(entry: Mapping[str, Any], mistake: Mistake) -> str:
    """The whole value of a wrong argument; the parser tells of the part of a list that is wrong."""
    value: Any = entry
    for key in mistake.path[1:]:
        value = (value.get("init_args") or {}).get(key) if isinstance(value, Mapping) else None
    return repr(value) if value is not None else str(mistake.value)


def class_path_of(given: str, *, told: str) -> str:
    """The full class path of a stage, which may be given by its short name.

    Args:
        given: either of them.
        told: how an error begins, before the name.

    Raises:
        UsageError: no plugin, or more than one, offers the name.
    """
    if "." in given:
        return given
    host = plugin_host()
    found = host.curation_stages.get(given, [])
    if len(found) == 1:
        return found[0][0].class_path
    if found:
        owners = " and ".join(f"{stage.class_path} ({plugin.package})" for stage, plugin in found)
        raise UsageError(f"{told} '{given}'", f"it is offered twice: {owners}", "write the full class path")
    exists = what_exists(given, host.curation_stages, noun="stage")
    raise UsageError(f"{told} '{given}'", exists, "correct it, or write a full class path, see `moviegen data stages`")


def alive(clips: Sequence[Clip]) -> Iterator[Clip]:
    """The clips that no stage has dropped."""
    return (clip for clip in clips if clip.drop is None)
