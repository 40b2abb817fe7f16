"""Why jsonargparse refused something: the argument, its value and what exists, found in its message."""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from moviegen_core.errors import nearest, what_exists

SPEC_KEYS = ("class_path", "init_args", "dict_kwargs")
_NOISE = re.compile(
    r"Union subtypes|^Subtypes:|^Errors:|Given value|NoneType|^Parser key|^Problem with given class_path|^Got value: Namespace|^$"
)
_CLUES = re.compile(
    r"""Parser\ key\ "(?P<key>[^"]+)"
    |Problem\ with\ given\ class_path\ '(?P<owner>[\w.]+)'
    |Option\ '(?P<option>[^']+)'\ is\ not\ accepted
    |Expected\ a\ dot\ import\ path\ string:\ (?P<name>\S+)
    |Expected\ an\ instantiatable\ class,\ but\ (?P<abstract>[\w.]+)\ is\ abstract
    |(?P<other>has\ no\ attribute|No\ module\ named|does\ not\ correspond\ to\ a\ subclass|required:|is\ req)
    |(?:Got|Given)\ value:\ (?P<value>.*)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Mistake:
    """What the parser refused.

    Args:
        path: names of the argument, the outermost first.
        value: the value as text; None where there is no such argument.
        exists: what exists, or what the argument takes.
    """

    path: tuple[str, ...]
    value: str | None
    exists: str


def find_mistake(message: str, annotations: Mapping[str, Any]) -> Mistake | None:
    """Find out what a message of the parser's is about; None where it is neither a name nor a value.

    Args:
        message: the message.
        annotations: the types of the outermost arguments.
    """
    path: list[str] = []
    owner = "the command"
    for clue in _CLUES.finditer(message):
        kind, text = clue.lastgroup, clue[clue.lastgroup or 0].strip()
        wanted = annotations.get(path[-1], inspect.Parameter.empty) if path else inspect.Parameter.empty
        if kind == "key":
            path += [part for part in text.split(".") if part not in SPEC_KEYS]
        elif kind == "owner":
            owner = text.rpartition(".")[2]
            try:
                annotations = {name: each.annotation for name, each in (arguments_of(class_at(text)) or {}).items()}
            except (ImportError, AttributeError):
                return None
        elif kind == "option":
            return Mistake((*path, text), None, _arguments_told(text, owner, annotations)) if path else None
        elif kind in ("name", "abstract"):
            return Mistake(tuple(path), text, what_exists(text, _classes_of(wanted), noun="class")) if path else None
        elif kind == "other" or not path or wanted is inspect.Parameter.empty:
            return None
        else:
            return Mistake(tuple(path), text, f"it takes {shown_type(wanted)}")
    return None


def lines_told(message: str) -> str:
    """The lines of a message that carry something."""
    lines = [line.strip(" -") for line in message.splitlines()]
    return "; ".join(line for line in lines if not _NOISE.search(line)) or " ".join(message.split())


def class_at(path: str) -> Any:
    """Import a class by its full path.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such class.
    """
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def arguments_of(cls: Any) -> dict[str, inspect.Parameter] | None:
    """The constructor's arguments, through **kwargs into the parents; None where anything is taken."""
    if not isinstance(cls, type):
        return dict(inspect.signature(cls).parameters)  # a function that makes an object
    found: dict[str, inspect.Parameter] = {}
    owners = [owner for owner in inspect.getmro(cls) if "__init__" in vars(owner)]
    if owners == [object] and cls.__new__ is object.__new__:
        return found
    for owner in owners:
        parameters = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return found
    return None


def subclasses(base: type) -> Iterator[type]:
    """A class and all that derive from it, of those that are imported."""
    yield base
    children: list[type] = base.__subclasses__()
    for child in children:
        yield from subclasses(child)


def shown_type(annotation: Any) -> str:
    """A type as its author wrote it."""
    if isinstance(annotation, str):
        return annotation
    return re.sub(r"\b(typing|collections\.abc)\.", "", inspect.formatannotation(annotation))


def takes_none(annotation: Any) -> bool:
    """Whether null is a value of the type; of one that is not known, e.g. one written as a text, it may be."""
    if get_origin(annotation) is None:
        return not isinstance(annotation, type) or annotation in (object, inspect.Parameter.empty)
    return get_origin(annotation) is Annotated or any(each in (None, type(None)) for each in get_args(annotation))


def _arguments_told(given: str, owner: str, known: Mapping[str, Any]) -> str:
    if not known:
        return f"{owner} has no arguments"
    close = nearest(given, known)
    return f"{owner} has the arguments {', '.join(known)}" + (f", of which '{close[0]}' is the nearest" if close else "")


def _classes_of(annotation: Any) -> list[str]:
    bases = [each for each in get_args(annotation) or (annotation,) if isinstance(each, type) and each is not type(None)]
    return [cls.__name__ for base in bases for cls in subclasses(base) if not inspect.isabstract(cls)]
