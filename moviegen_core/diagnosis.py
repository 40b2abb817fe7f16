"""Turns the parser's refusal into a sentence: looks for the wrong class name or key that explains it."""

import importlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from moviegen_core.errors import UsageError, what_exists
from moviegen_core.plugins import PluginHost
from moviegen_core.presets import Config, merge
from moviegen_core.refusals import SPEC_KEYS, arguments_of, lines_told, subclasses

_SECTIONS = ("trainer", "model", "data", "sampler", "seed_everything", "ckpt_path", "weights_only", "return_predictions", "verbose")
_BASES = (LightningModule, LightningDataModule, Callback, Logger, Optimizer, LRScheduler)


@dataclass(frozen=True)
class _Spec:
    """One `class_path` / `init_args` of the config, and where it stands."""

    where: str
    class_path: str
    arguments: Mapping[str, Any]


def diagnose(message: str, composed: Config, overrides: Sequence[str], command: str | None, host: PluginHost) -> UsageError:
    """Find the cause of the parser's message in the config and the command line; the message itself, shortened, where none is found."""
    config = composed
    for key, value in _assignments(overrides):
        config = _assign(config, key.split("."), value)
    for problem in _problems(config, host):
        return problem
    for name in re.findall(r"Expected a dot import path string: (\S+)", message):
        cls = _find_class(name, host)
        if isinstance(cls, UsageError):
            return cls
    return _retold(message, f"see `moviegen {command or 'fit'} --help`")


def _retold(message: str, advice: str) -> UsageError:
    """Say the parser's own message in three parts: a wrong value, a missing argument, or the lines that carry something."""
    where = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    where = ".".join(dict.fromkeys(part for part in where.split(".") if part not in SPEC_KEYS))
    values = list(re.finditer(r"Expected an? (?P<type>.+?)\. Got value: (?P<value>.+?)(?:\. Got value|\n|$)", message))
    missing = re.search(r"arguments? (?:is|are) required: (?P<names>[\w, .]+)", message) or re.search(
        r'Key "(?P<names>[\w.]+)" is req', message
    )
    if values:
        expected = re.sub(r"<class '([\w.]+)'>", r"\1", values[-1]["type"])
        return UsageError(f"{where}: {values[-1]['value'].strip()} was given", f"the type {expected} is expected", advice)
    if missing:
        return UsageError(f"{where or 'a config'} was given", f"'{missing['names'].strip()}' is required and missing", advice)
    return UsageError(f"{where or 'the config'} was given", f"it was refused: {lines_told(message)[:800]}", advice)


def _problems(config: Config, host: PluginHost) -> Iterator[UsageError]:
    for section in config:
        if section not in (*_SECTIONS, "print_config", "help"):
            exists = what_exists(section, _SECTIONS, noun="section")
            yield UsageError(f"the config key '{section}' was given", exists, "correct the key")
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping):
        yield from _unknown_keys("trainer", "Trainer", [key.removesuffix("+") for key in trainer], arguments_of(Trainer))
    for spec in _specs(config, ""):
        cls = _find_class(spec.class_path, host)
        if isinstance(cls, UsageError):
            yield UsageError(f"{spec.where}: {cls.given}", cls.exists, cls.advice)
        elif cls is not None and not isinstance(cls, type):
            continue
        elif cls is not None:
            yield from _unknown_keys(spec.where, cls.__name__, list(spec.arguments), arguments_of(cls))


def _unknown_keys(where: str, owner: str, given: Sequence[str], known: Collection[str] | None) -> Iterator[UsageError]:
    for key in given:
        if known is not None and key.partition(".")[0].removesuffix("+") not in known:
            exists = what_exists(key, known, noun=f"argument of {owner}")
            shown = "moviegen fit --help" if where == "trainer" else f"moviegen fit --{where.partition('.')[0]}.help {owner}"
            advice = "correct the key" if "." in where else f"correct the key, or see `{shown}`"
            yield UsageError(f"the config key '{where}.{key}' was given", exists, advice)


def _specs(node: Any, where: str) -> Iterator[_Spec]:
    if isinstance(node, Mapping):
        if isinstance(node.get("class_path"), str):
            arguments = {key: value for key, value in node.items() if key not in SPEC_KEYS}
            init_args = node.get("init_args")
            arguments |= init_args if isinstance(init_args, Mapping) else {}
            yield _Spec(where, node["class_path"], arguments)
        for key, value in node.items():
            name = where if key in SPEC_KEYS else f"{where}.{key}".lstrip(".")
            yield from _specs(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _specs(value, where)


def _find_class(class_path: str, host: PluginHost) -> Any:
    """The class, None where it may be one that jsonargparse knows, or what is wrong with the name."""
    module, _, name = class_path.rpartition(".")
    offered = {**{short: entry[0][0].class_path for short, entry in host.components.items()}}
    if not module:
        if name in offered:
            module = offered[name].rpartition(".")[0]
        else:
            loaded: dict[str, type] = {cls.__name__: cls for base in _BASES for cls in subclasses(base)}
            exists = what_exists(name, {*offered, *loaded}, noun="class")
            return loaded.get(name) or UsageError(f"class '{name}' was given", exists, "see `moviegen plugins list` for all classes")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError:
        there = [key for key, value in vars(importlib.import_module(module)).items() if isinstance(value, type)]
        exists = what_exists(name, {*there, *offered}, noun="class")
        return UsageError(f"class '{class_path}' was given", exists, "correct the class path")
    except Exception as error:
        exists = f"{module} does not import ({type(error).__name__}: {error})"
        close = what_exists(name, offered, noun="class")
        return UsageError(f"class '{class_path}' was given", exists, f"correct the class path; {close}")


def _assignments(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for arg, following in zip(overrides, [*overrides[1:], "--"], strict=False):
        if arg.startswith("--"):
            key, equals, value = arg[2:].partition("=")
            text = value if equals else ("" if following.startswith("--") else following)
            try:
                yield key, yaml.safe_load(text)
            except yaml.YAMLError:
                yield key, text


def _assign(config: Any, path: Sequence[str], value: Any) -> Any:
    """Set `a.b.c` as the parser would: a text given to a class means its class path, and `init_args` may be left out."""
    node = config if isinstance(config, Mapping) else {}
    head, *rest = path
    if "class_path" in node and head not in SPEC_KEYS:
        return merge(node, {"init_args": _assign(node.get("init_args"), path, value)})
    if rest:
        return {**node, head: _assign(node.get(head), rest, value)}
    earlier = node.get(head)
    if isinstance(earlier, Mapping) and "class_path" in earlier and isinstance(value, str):
        return {**node, head: merge(earlier, {"class_path": value})}
    return {**node, head: value}
