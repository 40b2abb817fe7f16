"""Which stages run, and in which order."""

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

from moviegen_core import __version__
from moviegen_core.errors import UsageError, what_exists
from moviegen_core.plugins import plugin_host
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.sources import digest_of_sources, source_of
from moviegen_data.curation.stage import Resources, SetStage, Stage


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


def steps_of(stages: Sequence[Named]) -> list[Step]:
    """Cut the stages into steps, before and behind every one that compares clips."""
    steps: list[Step] = []
    kinds = [number if isinstance(named.stage, SetStage) else -1 for number, named in enumerate(stages)]
    start = 0
    for _, group in groupby(kinds):
        members = tuple(stages[start : start + len(list(group))])
        start += len(members)
        told = [(named.name, dict(named.settings), _text(type(named.stage)), named.stage.fingerprint()) for named in members]
        digest = hashlib.sha256(repr((told, __version__)).encode()).hexdigest()[:16]  # by repr: 1, 1.0 and "1" are not the same
        steps.append(Step(len(steps), members, digest))
    return steps


def _text(kind: type[Stage]) -> str:
    """The program of a stage: what it imports changes more often than a version. Of a notebook's, which has no file, the class alone."""
    own = source_of(kind) or "".join(source_of(part) for part in vars(kind).values() if inspect.isfunction(part))
    return own + digest_of_sources(kind.__module__)


def _named(name: str, entry: Any) -> Named:
    if (
        not isinstance(entry, Mapping)
        or not isinstance(entry.get("class_path"), str)
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

    path = _class_path(name, entry["class_path"])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Stage, "stage", fail_untyped=True)
    try:
        return parser.instantiate(
            parser.parse_object({"stage": {"class_path": path, "init_args": dict(entry.get("init_args") or {})}})
        ).stage
    except (ArgumentError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        if isinstance(error.__cause__, UsageError):  # raised by the stage, wrapped by the parser
            raise error.__cause__ from error
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
        raise UsageError(f"the stage '{name}' was given as {dict(entry)}", "; ".join(lines), f"see the arguments of {path}") from error


def _class_path(name: str, given: str) -> str:
    if "." in given:
        return given
    host = plugin_host()
    found = host.curation_stages.get(given, [])
    if len(found) == 1:
        return found[0][0].class_path
    if found:
        owners = " and ".join(f"{stage.class_path} ({plugin.package})" for stage, plugin in found)
        raise UsageError(f"the stage '{name}' is of class '{given}'", f"it is offered twice: {owners}", "write the full class path")
    exists = what_exists(given, host.curation_stages, noun="stage")
    raise UsageError(f"the stage '{name}' is of class '{given}'", exists, "correct it, or write a full class path")


def alive(clips: Sequence[Clip]) -> Iterator[Clip]:
    """The clips that no stage has dropped."""
    return (clip for clip in clips if clip.drop is None)
