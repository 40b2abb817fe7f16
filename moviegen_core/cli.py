"""The command `moviegen`: hands training to LightningCLI, everything else to typed functions. Importing it does not import torch."""

import importlib
import inspect
import json
import linecache
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moviegen_core import __version__
from moviegen_core.errors import UsageError, what_exists
from moviegen_core.hookspecs import Command
from moviegen_core.plugins import TRAINER_COMMANDS, PluginHost, plugin_host
from moviegen_core.refusals import find_mistake, lines_told

TRACEBACK_VARIABLE = "MOVIEGEN_TRACEBACK"
_TRAINER_SUMMARIES = {
    "fit": "train a model, e.g. `moviegen fit --config t2v/debug`",
    "validate": "run the validation of a model once",
    "test": "run the test of a model once",
    "predict": "generate with a trained model",
}


def main(args: list[str] | None = None) -> None:
    """Run one command; what a shell calls `moviegen ARGS...`.

    Args:
        args: the command line without the program's name; `sys.argv[1:]` unless given.

    Raises:
        SystemExit: with code 2 after a mistake of the user's, which was told on the error stream, and 130 after an interrupt.
    """
    args = sys.argv[1:] if args is None else list(args)
    try:
        _dispatch(args)
    except BrokenPipeError:  # the reader, e.g. `head`, has seen enough
        sys.stdout = open(os.devnull, "w")
    except KeyboardInterrupt as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(": ".join(["moviegen: interrupted", *map(str, error.args)]), file=sys.stderr)
        raise SystemExit(130) from error
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE) or not _is_told_to_users(error):
            raise
        print(f"moviegen: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _dispatch(args: list[str]) -> None:
    if args == ["--version"]:
        print(f"moviegen {__version__}")
        return
    host = plugin_host()
    for message in [*host.problems, *host.notes]:
        print(f"moviegen: warning: {message}", file=sys.stderr)
    if not args or args[0] in ("-h", "--help"):
        print(_overview(host))
    elif args[0] in TRAINER_COMMANDS:
        from moviegen_core.lightning_cli import run_trainer

        run_trainer(args)
    elif (command := host.commands.get(("", args[0]))) is not None:
        call(command, args[1:])
    else:
        _dispatch_group(host, args[0], args[1:])


def _dispatch_group(host: PluginHost, group: str, args: list[str]) -> None:
    members = {name: command for (owner, name), command in host.commands.items() if owner == group}
    if not members:
        known = {*TRAINER_COMMANDS, *(owner or name for owner, name in host.commands)}
        raise UsageError(f"command '{group}' was given", what_exists(group, known, noun="command"), "see `moviegen --help`")
    if not args or args[0] in ("-h", "--help"):
        print("\n".join([f"usage: moviegen {group} NAME ...", "", *_table({name: c.summary for name, c in members.items()})]))
    elif args[0] in members:
        call(members[args[0]], args[1:])
    else:
        exists = what_exists(args[0], members, noun="command")
        raise UsageError(f"command '{group} {args[0]}' was given", exists, f"see `moviegen {group} --help`")


def call(command: Command, args: Sequence[str]) -> Any:
    """Import a command's function, read its arguments from the command line, and call it."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> Any:
            if not self.exit_on_error:
                return super().error(message, ex)
            raise _refusal(message, function, title, args) from ex

    title = " ".join(filter(None, (command.group, command.name)))
    module, _, name = command.function_path.partition(":")
    function = getattr(importlib.import_module(module), name)
    parser = Parser(prog=f"moviegen {title}", description=command.summary)
    parser.add_function_arguments(function, as_group=False, as_positional=True, fail_untyped=True)
    config = parser.parse_args(_spell_out(function, args))
    return function(**parser.instantiate(config).as_dict())


def _refusal(message: str, function: Callable[..., Any], title: str, args: Sequence[str]) -> UsageError:
    """What the parser refused, in three parts."""
    parameters = inspect.signature(function).parameters
    advice = f"see `moviegen {title} --help`"
    mistake = find_mistake(message, {name: parameter.annotation for name, parameter in parameters.items()})
    if mistake is None:
        return UsageError(f"`moviegen {title} {' '.join(args)}` was given", lines_told(message), advice)
    option = ".".join(mistake.path)
    if parameters[mistake.path[0]].default is not inspect.Parameter.empty:
        option = f"--{option}"
    return UsageError(" ".join(filter(None, (option, mistake.value, "was given"))), mistake.exists, advice)


def _spell_out(function: Callable[..., Any], args: Sequence[str]) -> list[str]:
    """Write `--flag` as `--flag=true`, `--two-words` as `--two_words`, and `-o` as the one option that begins with o."""
    parameters = inspect.signature(function).parameters
    spelled: list[str] = []
    args = _join_repeated(parameters, args)
    for position, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if len(option) == 2 and option[0] == "-" and option[1].isalpha() and option != "-h":
            full = [name for name in parameters if name.startswith(option[1])]
            option = f"--{full[0]}" if len(full) == 1 else option
        name = option[2:].replace("-", "_") if option.startswith("--") else ""
        if name not in parameters:
            spelled.append(arg)
            continue
        following = args[position + 1].lower() if position + 1 < len(args) else ""
        if parameters[name].annotation is bool and not equals and following not in ("true", "false"):
            equals, value = "=", "true"
        spelled.append(f"--{name}{equals}{value}")
    return spelled


def _join_repeated(parameters: Mapping[str, inspect.Parameter], args: Sequence[str]) -> list[str]:
    """Make one list of an option that is given several times, where its argument may be a text or a list of them."""
    several = {f"--{name}" for name, parameter in parameters.items() if parameter.annotation == str | list[str]}
    given: dict[str, list[str]] = {}
    rest, left = [], iter(args)
    for arg in left:
        option, equals, value = arg.partition("=")
        if option in several:
            given.setdefault(option, []).append(value if equals else next(left, ""))
        else:
            rest.append(arg)
    return [*rest, *(f"{name}={values[0] if len(values) == 1 else json.dumps(values)}" for name, values in given.items())]


def _overview(host: PluginHost) -> str:
    lines = ["usage: moviegen COMMAND ...", "", "Train and run the Movie Gen cast of media models.", ""]
    lines += _table(_TRAINER_SUMMARIES)
    lines += _table({name: command.summary for (group, name), command in host.commands.items() if not group})
    for group in sorted({group for group, _ in host.commands if group}):
        lines += ["", f"{group}:"]
        lines += _table({f"{group} {name}": command.summary for (owner, name), command in host.commands.items() if owner == group})
    lines += ["", "`moviegen COMMAND --help` tells a command's arguments; `moviegen --version` the version."]
    return "\n".join(lines)


def _table(rows: dict[str, str]) -> list[str]:
    return [f"  {name:<20} {summary}" for name, summary in rows.items()]


def _is_told_to_users(error: Exception) -> bool:
    """True where moviegen or a plugin raised the error itself, in words; our own mistakes and other libraries' errors keep their trace."""
    if isinstance(error, UsageError):
        return True
    if not isinstance(error, (ValueError, OSError)) or not str(error):
        return False
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    ours = {"moviegen_core", *(re.split(r"[.:]", plugin.module)[0] for plugin in plugin_host().plugins)}
    raised = linecache.getline(frame.f_code.co_filename, line).lstrip().startswith("raise ")
    return package in ours and (raised or isinstance(error, OSError))
