"""Presets: finds YAML files by name in any plugin's folder, and composes files through `include:` lists."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moviegen_core.errors import UsageError, nearest, what_exists
from moviegen_core.plugins import PluginHost, plugin_host

Config = dict[str, Any]
Check = Callable[[Path, Config, Config], None]


@dataclass(frozen=True)
class Preset:
    """A YAML file that is known by name; its first comment line is the summary."""

    name: str
    path: Path
    package: str
    summary: str


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers: `1e-4` is a float, which PyYAML alone reads as text."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)


def core_preset_directory() -> Path:
    """The folder of the presets that ship with moviegen: in the wheel beside this file, in a checkout at its root."""
    shipped = Path(__file__).parent / "configs" / "experiment"
    return shipped if shipped.is_dir() else Path(__file__).parents[1] / "configs" / "experiment"


def find_presets(host: PluginHost | None = None) -> list[Preset]:
    """All presets of all plugins, by name."""
    presets = []
    for directory, plugin in (host or plugin_host()).preset_directories:
        for path in sorted(directory.path.rglob("*.y*ml")):
            name = path.relative_to(directory.path).with_suffix("").as_posix()
            presets.append(Preset(name, path, plugin.package, _summary(path)))
    return sorted(presets, key=lambda preset: (preset.name, preset.package))


def resolve(name: str, host: PluginHost | None = None) -> Path:
    """Find the file that `--config NAME` means: an existing file, or else a preset.

    Raises:
        UsageError: neither a file nor a preset has the name, or two packages offer the preset.
    """
    if Path(name).is_file():
        return Path(name)
    presets = find_presets(host)
    found = [preset for preset in presets if preset.name == name]
    if len(found) == 1:
        return found[0].path
    if found:
        owners = " and ".join(f"{preset.path} ({preset.package})" for preset in found)
        raise UsageError(f"preset '{name}' was given", f"two packages offer it: {owners}", "give one of the files instead")
    folder = Path(name).parent
    beside = nearest(Path(name).name, [path.name for path in folder.glob("*.y*ml")]) if folder.is_dir() else []
    is_file_name = name.startswith((".", "/", "~")) or (name.endswith((".yaml", ".yml")) and bool(beside))
    if is_file_name:
        exists = f"the nearest file there is '{folder / beside[0]}'" if beside else f"{folder.absolute()} has no such file"
    else:
        exists = what_exists(name, [preset.name for preset in presets], noun="preset")
    what = "file" if is_file_name else "preset or file"
    raise UsageError(f"--config {name} was given, and there is no such {what}", exists, "see `moviegen presets list` for all presets")


def compose(names: Iterable[str], host: PluginHost | None = None, *, check: Check | None = None) -> Config:
    """Merge the named presets or files in order, later ones over earlier ones, each with what it includes.

    Args:
        names: presets or files.
        host: the plugins; the installed ones unless given.
        check: called with each file, as `load` does.
    """
    config: Config = {}
    for name in names:
        config = merge(config, load(resolve(name, host), below=config, check=check))
    return config


def load(path: Path, *, within: tuple[Path, ...] = (), below: Mapping[str, Any] | None = None, check: Check | None = None) -> Config:
    """Read one YAML file: what its `include:` list names, merged in order, then the file's own values on top.

    Args:
        path: the file.
        within: the files that are being read, outermost first, by which circles are noticed.
        below: what the file will be laid over; only `check` looks at it.
        check: called with the file, all that lies below it, included files too, and its own values; raises where they do not fit.

    Raises:
        UsageError: the file is absent, is not a YAML mapping, or includes itself by some way.
    """
    path = path.resolve()
    if path in within:
        circle = " -> ".join(str(file) for file in (*within[within.index(path) :], path))
        raise UsageError(f"{path} was included", f"it includes itself: {circle}", "take one of these out of its `include:` list")
    if not path.is_file():
        by = f" by {within[-1]}" if within else ""
        here = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        exists = what_exists(path.name, here, noun=f"file in {path.parent}")
        raise UsageError(f"{path} was asked for{by}", exists, "paths in `include:` are relative to the file they stand in")
    try:
        own = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise UsageError(f"{path} was given", f"it is not YAML: {problem}", "correct the file") from error
    own = {} if own is None else own
    if not isinstance(own, dict):
        raise UsageError(f"{path} was given", f"it holds a {type(own).__name__}", "a config is a mapping such as `trainer: {...}`")
    included = own.pop("include", [])
    if not isinstance(included, list) or not all(isinstance(item, str) for item in included):
        raise UsageError(f"{path} has `include: {included!r}`", "a list of file names is expected", "write `include: [a.yaml, b.yaml]`")
    config: Config = {}
    for item in included:
        config = merge(config, load(path.parent / item, within=(*within, path), below=merge(below or {}, config), check=check))
    if check is not None:
        check(path, merge(below or {}, config), own)
    return merge(config, own)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Config:
    """Lay one mapping over another, key by key, all the way down.

    Lists replace; `key+` appends to the list `key`. Another `class_path` drops the earlier class's `init_args`.
    """
    if _is_other_class(base, over):
        base = {key: value for key, value in base.items() if key not in ("init_args", "dict_kwargs")}
    merged = dict(base)
    for key, value in over.items():
        plain = key.removesuffix("+")
        if key != plain:
            target = plain if isinstance(merged.get(plain), list) else key
            merged[target] = [*(merged.get(target) or []), *(value if isinstance(value, list) else [value])]
        else:
            merged.pop(key + "+", None)
            both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
            merged[key] = merge(merged[key] if both else {}, value) if isinstance(value, Mapping) else value
    return merged


def _is_other_class(base: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    names = [str(mapping.get("class_path", "")).rpartition(".")[2] for mapping in (base, over)]
    return all(names) and names[0] != names[1]


def _summary(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return first.lstrip("# ").strip() if first.startswith("#") else ""
