"""Hand weights on: safetensors with a config out, and the same in again."""

import json
import os
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import yaml

from moviegen_core.errors import UsageError, what_exists
from moviegen_core.files import write_bytes
from moviegen_core.weights.inspecting import component_of, components
from moviegen_core.weights.reading import WeightsFile, open_weights
from moviegen_core.weights.versions import VersionedWeights, lasting_metadata
from moviegen_core.weights.writing import (
    progress,
    refuse_existing,
    save_checkpoint,
    save_safetensors,
)

FORMAT_VERSION = 1


def export(checkpoint: str, output: str, *, component: str | None = None, ema: bool | None = None, config: str | None = None) -> None:
    """Write a checkpoint's weights as a folder of `model.safetensors` and `config.json`.

    The config names the class and its arguments, taken from the checkpoint's hyper-parameters or from the run's own config.

    Args:
        checkpoint: a Lightning checkpoint, file or sharded folder.
        output: the folder to write.
        component: take only this part, e.g. `backbone`, `autoencoder` or `conditioners.text`; its names lose the prefix.
        ema: true takes the moving average, false the weights that were trained beside it; what `state_dict` holds unless given.
        config: the run's `config.yaml`, for checkpoints without hyper-parameters.

    Raises:
        UsageError: there is no such component, or only one version of the weights.
    """
    file = open_weights(checkpoint)
    if ema is not None:
        file = VersionedWeights(file, "averaged" if ema else "trained")
    names = _select(file, component)
    folder = Path(output).expanduser()
    prefix = f"{component}." if component else ""
    infos = {name.removeprefix(prefix): file.infos[name] for name in names}
    described = _describe(file, component, config)
    save_safetensors(folder / "model.safetensors", infos, lambda name: file[prefix + name], metadata={"component": component or ""})
    write_bytes(folder / "config.json", (json.dumps(described, indent=2) + "\n").encode())
    known = described["class_path"] or "a class the checkpoint does not name (give --config)"
    print(f"exported {len(names)} tensors of {known} to {folder}")


def import_(source: str, output: str, *, component: str | None = None, into: str | None = None) -> None:
    """Turn safetensors or any checkpoint into a Lightning checkpoint for `init_checkpoint`, `autoencoder_checkpoint` or `ckpt_path`.

    Args:
        source: a folder that `export` wrote, a safetensors file, or a checkpoint.
        output: the `.ckpt` file to write.
        component: put the weights under this name, e.g. `backbone`; a folder that `export` wrote remembers its own.
            Give an empty string to leave the names as they are.
        into: a checkpoint whose component of that name is replaced; nothing else unless given.

    Raises:
        UsageError: a component is missing, or the one that is replaced is of another shape.
    """
    file = open_weights(source)
    target = Path(output).expanduser()
    if target.suffix != ".ckpt":
        raise UsageError(f"the output {output} was given", "import writes a .ckpt", "give a name that ends so")
    refuse_existing(target, [file.path] + ([Path(into)] if into else []))
    component = file.metadata.get("component") if component is None else component
    prefix = f"{component}." if component else ""
    state = {prefix + name: file[name].clone() for name in progress(file, "read")}
    content: dict[str, Any] = {"epoch": 0, "global_step": 0, "pytorch-lightning_version": packages.version("lightning")}
    if into is not None:
        if not component:
            raise UsageError(f"{into} was given to take {source} in", "no component was named", "give --component, e.g. backbone")
        other = open_weights(into)
        replaced = {name: other.infos[name].shape for name in _select(other, component)}
        new = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if replaced != new:
            differing = sorted(name for name in replaced.keys() | new.keys() if replaced.get(name) != new.get(name))
            raise UsageError(
                f"{source} was given to replace '{component}' of {into}",
                f"{len(differing)} tensors are missing, new or of another shape, e.g. '{differing[0]}'",
                "give weights of the same class and size",
            )
        state = {**{name: other[name].clone() for name in other}, **state}
        content = {**content, **lasting_metadata(other)}
    save_checkpoint(target, {**content, "state_dict": state})
    print(f"imported {len(file)} tensors{f' as {component}' if component else ''} into {target}")


def _select(file: WeightsFile, component: str | None) -> list[str]:
    names = [name for name in file if component is None or name.startswith(f"{component}.")]
    if not names:
        raise UsageError(
            f"component '{component}' of {file.path} was asked for",
            what_exists(str(component), {component_of(name) for name in file}, noun="component"),
            f"give one of {', '.join(components(file))}",
        )
    return names


def _describe(file: WeightsFile, component: str | None, config: str | None) -> dict[str, Any]:
    class_path, init_args = _whole_model(file, config)
    for part in component.split(".") if component else []:
        # A component is an argument of its model, by the same name.
        value = init_args.get(part) if isinstance(init_args, dict) else None
        value = value if isinstance(value, dict) else {}
        class_path, init_args = value.get("class_path"), value.get("init_args", value)
    return {
        "format": "moviegen",
        "format_version": FORMAT_VERSION,
        "moviegen_version": packages.version("moviegen"),
        "class_path": class_path,
        "init_args": _jsonable(init_args),
        "component": component,
        "global_step": file.metadata.get("global_step"),
        "epoch": file.metadata.get("epoch"),
    }


def _whole_model(file: WeightsFile, config: str | None) -> tuple[str | None, dict[str, Any]]:
    if config is not None:
        path = Path(config).expanduser()
        content = yaml.safe_load(path.read_text()) if path.is_file() else None
        if not isinstance(content, dict) or "class_path" not in content.get("model", {}):
            raise UsageError(
                f"the config {config} was given",
                "there is no such file" if content is None else "it has no `model.class_path`",
                "give the config.yaml that a run leaves in its log folder",
            )
        return content["model"]["class_path"], content["model"].get("init_args", {})
    parameters = dict(file.metadata.get("hyper_parameters") or {})
    class_path = parameters.pop("_class_path", None)
    parameters.pop("_instantiator", None)
    return class_path, parameters


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
