"""`moviegen plugins list|show` and `moviegen presets list|show`. Only `presets show --params` imports torch."""

import json as json_module
import os
from dataclasses import asdict
from typing import Any

import yaml

from moviegen_core.errors import UsageError, what_exists
from moviegen_core.plugins import Plugin, plugin_host
from moviegen_core.presets import compose, find_presets


def list_plugins(*, json: bool = False) -> None:
    """Print the installed plugins, the packages they come from and the hooks they implement.

    Args:
        json: print a JSON list for scripts.
    """
    plugins = plugin_host().plugins
    if json:
        print(json_module.dumps([_plugin_record(plugin) for plugin in plugins], indent=2))
        return
    for plugin in plugins:
        offers = f"{len(plugin.components)} classes, {len(plugin.commands)} commands, {len(plugin.presets)} preset folders"
        note = str(plugin.problem) if plugin.problem else offers
        print(f"{plugin.name:<12} {plugin.package} {plugin.version:<10} {plugin.status:<8} {note}")


def show_plugin(name: str, *, json: bool = False) -> None:
    """Print what one plugin offers.

    Args:
        name: the plugin's name, as `moviegen plugins list` shows it.
        json: print a JSON object for scripts.
    """
    known = {plugin.name: plugin for plugin in plugin_host().plugins}
    if name not in known:
        raise UsageError(f"plugin '{name}' was given", what_exists(name, known, noun="plugin"), "see `moviegen plugins list`")
    plugin = known[name]
    if json:
        print(json_module.dumps(_plugin_record(plugin), indent=2))
        return
    print(f"{plugin.name}: module {plugin.module} of package {plugin.package} {plugin.version}, {plugin.status}")
    if plugin.problem:
        print(f"  {plugin.problem}")
    for component in plugin.components:
        print(f"  {component.kind:<12} {component.class_path:<44} {component.summary}")
    for command in plugin.commands:
        print(f"  {'command':<12} {f'moviegen {command.group} {command.name}':<44} {command.summary}")
    for stage in plugin.curation_stages:
        print(f"  {'curation':<12} {stage.class_path:<44} {stage.summary}")
    for directory in plugin.presets:
        print(f"  {'presets':<12} {directory.path}")


def list_presets(*, json: bool = False) -> None:
    """Print the presets that `--config NAME` finds.

    Args:
        json: print a JSON list for scripts.
    """
    presets = find_presets()
    if json:
        print(json_module.dumps([{**asdict(preset), "path": str(preset.path)} for preset in presets], indent=2))
        return
    for preset in presets:
        print(f"{preset.name:<28} {preset.package:<12} {preset.summary}")


def show_preset(name: str, *, params: bool = False, json: bool = False) -> None:
    """Print a preset with all that it includes, or the sizes of its model.

    Args:
        name: the preset's name, or a YAML file.
        params: count parameters by component, and tokens per sample, without allocating weights or reading data.
        json: print a JSON object for scripts.
    """
    if not params:
        config = compose([name])
        print(json_module.dumps(config, indent=2) if json else yaml.safe_dump(config, sort_keys=False).rstrip())
        return
    # Counting waits for no download: an encoder that is not on this machine is told of as unknown, at once.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from moviegen_core.sizes import measure

    sizes = measure(name)
    if json:
        print(json_module.dumps(sizes, indent=2))
        return
    for component, size in sizes["components"].items():
        print(f"{component:<36} {_shown(size['total'])}" + (f"  {size['note']}" if "note" in size else ""))
        for part, count in size["parts"].items():
            print(f"  {part:<34} {_shown(count)}")
    print(f"{'total':<36} {_shown(sizes['total'])}")
    if sizes["num_tokens"] is not None:
        print(f"{'tokens per sample':<36} {sizes['num_tokens']:>16,} at latent shape {tuple(sizes['latent_shape'])}")


def _shown(count: int | None) -> str:
    return f"{'unknown' if count is None else format(count, ','):>16}"


def _plugin_record(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "package": plugin.package,
        "version": plugin.version,
        "module": plugin.module,
        "status": plugin.status,
        "hooks": list(plugin.hooks),
        "components": [asdict(c) | {"name": c.class_path.rpartition(".")[2]} for c in plugin.components],
        "commands": [asdict(command) for command in plugin.commands],
        "presets": [str(directory.path) for directory in plugin.presets],
        "problem": str(plugin.problem) if plugin.problem else None,
    }
