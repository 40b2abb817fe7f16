"""The plugin host: finds plugins by entry point, keeps a broken one from harming the others, and validates what they offer."""

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Literal, get_args

import pluggy

from moviegen_core import hookspecs
from moviegen_core.errors import UsageError, nearest, what_exists
from moviegen_core.hookspecs import Command, Component, CurationStage, Kind, PresetDirectory

GROUP = "moviegen"
BLOCK_VARIABLE = "MOVIEGEN_BLOCK_PLUGINS"
TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
_HOOKS = {
    "moviegen_components": Component,
    "moviegen_commands": Command,
    "moviegen_presets": PresetDirectory,
    "moviegen_curation_stages": CurationStage,
}
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_FUNCTION_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_COMMAND_NAME = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True)
class Problem:
    """What is wrong with one plugin, whom it belongs to, and how to go on without it."""

    plugin: str
    package: str
    version: str
    cause: str

    def __str__(self) -> str:
        return (
            f"plugin '{self.plugin}' of package {self.package} {self.version}: {self.cause}; everything else goes on working; "
            f"repair or uninstall {self.package}, or silence this with {BLOCK_VARIABLE}={self.plugin}"
        )


@dataclass(frozen=True)
class Plugin:
    """One entry point: where it comes from, whether it works, and what it offers."""

    name: str
    package: str
    version: str
    module: str
    status: Literal["loaded", "blocked", "failed"]
    hooks: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    commands: tuple[Command, ...] = ()
    presets: tuple[PresetDirectory, ...] = ()
    curation_stages: tuple[CurationStage, ...] = ()
    problem: Problem | None = None


class PluginHost:
    """Loads plugins and answers who offers what.

    Args:
        points: entry points to load, of the group `moviegen` in an ordinary run.
        blocked: names of plugins or packages to leave out.
    """

    def __init__(self, points: Iterable[EntryPoint], *, blocked: Iterable[str] = ()) -> None:
        self.blocked = frozenset(blocked)
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        seen: dict[str, Plugin] = {}
        for point in sorted(points, key=lambda point: (_package(point)[0] != GROUP, _package(point)[0], point.name)):
            plugin = self._load(point, seen)
            seen[plugin.name if plugin.name not in seen else f"{plugin.package}:{plugin.name}"] = plugin
        self.plugins: tuple[Plugin, ...] = tuple(seen.values())
        self._report_clashes()

    @property
    def loaded(self) -> tuple[Plugin, ...]:
        """The plugins that work."""
        return tuple(plugin for plugin in self.plugins if plugin.status == "loaded")

    @property
    def components(self) -> dict[str, list[tuple[Component, Plugin]]]:
        """Every offered class by its short name; more than one entry is a clash."""
        return _group(self.loaded, "components", lambda component: component.class_path.rpartition(".")[2])

    @property
    def commands(self) -> dict[tuple[str, str], Command]:
        """Every offered command by (group, name)."""
        offers = _group(self.loaded, "commands", lambda command: (command.group, command.name))
        return {key: found[0][0] for key, found in sorted(offers.items())}

    @property
    def preset_directories(self) -> list[tuple[PresetDirectory, Plugin]]:
        """Every offered folder of presets."""
        return [(directory, plugin) for plugin in self.loaded for directory in plugin.presets]

    @property
    def curation_stages(self) -> dict[str, list[tuple[CurationStage, Plugin]]]:
        """Every offered stage of curation by its short name; more than one entry is a clash."""
        return _group(self.loaded, "curation_stages", lambda stage: stage.class_path.rpartition(".")[2])

    def component(self, name: str) -> Component:
        """Find an offered class by its short name.

        Raises:
            UsageError: nobody or more than one plugin offers the name.
        """
        found = self.components.get(name, [])
        if len(found) == 1:
            return found[0][0]
        if found:
            owners = " and ".join(f"{component.class_path} ({plugin.package} {plugin.version})" for component, plugin in found)
            raise UsageError(f"class name '{name}' was given", f"it is offered twice: {owners}", "write the full class path instead")
        raise UsageError(
            f"class name '{name}' was given", what_exists(name, self.components, noun="class"), "see `moviegen plugins list` for all"
        )

    def _load(self, point: EntryPoint, seen: dict[str, Plugin]) -> Plugin:
        package, version = _package(point)
        plugin = Plugin(point.name, package, version, point.value, "loaded")
        if self.blocked & {point.name, package}:
            return replace(plugin, status="blocked")
        try:
            if point.name in seen:
                raise UsageError(
                    f"the plugin name '{point.name}' was given",
                    f"package {seen[point.name].package} has it already",
                    "rename one of the two entry points",
                )
            hooks = _hook_functions(point.load(), self._manager)
            holder = ModuleType(point.name)  # the hooks alone: pluggy looks at every attribute, which would set off lazy imports
            vars(holder).update(hooks)
            self._manager.register(holder, point.name)
            offers = {name: tuple(_validated(name, function)) for name, function in hooks.items()}
        except (Exception, SystemExit) as error:  # a stranger's module may raise anything, and must harm nobody else
            if self._manager.has_plugin(point.name) and point.name not in seen:
                self._manager.unregister(name=point.name)
            cause = " ".join((str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}").split())
            problem = Problem(point.name, package, version, cause)
            self.problems.append(problem)
            return replace(plugin, status="failed", problem=problem)
        return replace(
            plugin,
            hooks=tuple(sorted(hooks)),
            components=offers.get("moviegen_components", ()),
            commands=offers.get("moviegen_commands", ()),
            presets=offers.get("moviegen_presets", ()),
            curation_stages=offers.get("moviegen_curation_stages", ()),
        )

    def _report_clashes(self) -> None:
        commands = _group(self.loaded, "commands", lambda command: (command.group, command.name))
        clashes = [(f"class name {name}", found) for name, found in self.components.items() if len(found) > 1]
        clashes += [(f"stage name {name}", found) for name, found in self.curation_stages.items() if len(found) > 1]
        clashes += [(f"command {' '.join(filter(None, key))}", found) for key, found in commands.items() if len(found) > 1]
        for what, found in clashes:
            owners = " and ".join(f"plugin '{plugin.name}' of package {plugin.package} {plugin.version}" for _, plugin in found)
            last = found[-1][1]
            cause = f"the {what} is offered by {owners}; names must be unique, so rename one of them"
            self.problems.append(Problem(last.name, last.package, last.version, cause))


@functools.cache
def plugin_host() -> PluginHost:
    """The host of the installed plugins; loaded once."""
    return load_host(entry_points(group=GROUP), os.environ.get(BLOCK_VARIABLE, ""))


def load_host(points: Iterable[EntryPoint], block_list: str = "") -> PluginHost:
    """Load plugins except those in a comma-separated block list."""
    points = list(points)
    blocked = [name.strip() for name in block_list.split(",") if name.strip()]
    known = {point.name for point in points} | {_package(point)[0] for point in points}
    host = PluginHost(points, blocked=blocked)
    for name in blocked:
        if name not in known:
            exists = what_exists(name, known, noun="plugin or package")
            host.notes.append(f"{BLOCK_VARIABLE} has '{name}', which blocks nothing; {exists}; correct or unset the variable")
    return host


def _package(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist is not None else ("(unknown package)", "(unknown version)")


def _group(plugins: Iterable[Plugin], field: str, key: Callable[[Any], Any]) -> dict[Any, list[tuple[Any, Plugin]]]:
    offers: dict[Any, list[tuple[Any, Plugin]]] = {}
    for plugin in plugins:
        for record in getattr(plugin, field):
            offers.setdefault(key(record), []).append((record, plugin))
    return offers


def _hook_functions(module: object, manager: pluggy.PluginManager) -> dict[str, Callable[[], Iterable[Any]]]:
    """Pick the hook implementations; `vars`, because `dir` would set off the lazy imports of the module."""
    if not isinstance(module, ModuleType):
        raise UsageError(f"its entry point gives a {type(module).__name__}", "a module is expected", "name the module alone")
    hooks = {}
    for name, value in vars(module).items():
        marked = inspect.isroutine(value) and manager.parse_hookimpl_opts(module, name) is not None
        ours = inspect.isfunction(value) and name.startswith("moviegen_") and value.__module__ == module.__name__
        if not marked and not ours:
            continue
        if name not in _HOOKS:
            close = nearest(name, _HOOKS) or sorted(_HOOKS)
            raise UsageError(f"it implements the unknown hook '{name}'", f"the nearest hook is '{close[0]}'", "rename the function")
        if not marked:
            raise UsageError(f"its function '{name}' is not marked", "hooks are marked with @moviegen_core.hookimpl", "add the decorator")
        hooks[name] = value
    return hooks


def _validated(hook: str, function: Callable[[], Iterable[Any]]) -> Iterable[Any]:
    expected = _HOOKS[hook]
    for record in function() or ():
        if not isinstance(record, expected):
            raise UsageError(f"{hook} yields {record!r}", f"{expected.__name__} records are expected", "yield those")
        if isinstance(record, Component):
            _check(record.kind in get_args(Kind), record, f"kinds are {', '.join(get_args(Kind))}")
            _check(_CLASS_PATH.fullmatch(record.class_path), record, "a class path reads package.module.ClassName")
        elif isinstance(record, CurationStage):
            _check(_CLASS_PATH.fullmatch(record.class_path), record, "a class path reads package.module.ClassName")
        elif isinstance(record, Command):
            _check(_FUNCTION_PATH.fullmatch(record.function_path), record, "a function path reads package.module:function")
            _check(_COMMAND_NAME.fullmatch(record.name), record, "a name is lower-case letters, digits and dashes")
            _check(not record.group or _COMMAND_NAME.fullmatch(record.group), record, "a group is lower-case letters, digits and dashes")
            taken = (record.group or record.name) in TRAINER_COMMANDS
            _check(not taken, record, f"{', '.join(TRAINER_COMMANDS)} are taken")
        elif isinstance(record, PresetDirectory):
            _check(record.path.is_dir(), record, "the path must be a folder that exists")
        yield record


def _check(condition: Any, record: object, expected: str) -> None:
    if not condition:
        raise UsageError(f"it offers {record!r}", expected, "correct the record")
