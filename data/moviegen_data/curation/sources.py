"""The program text that an answer depends on, for versions tell of releases only."""

import ast
import hashlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from zipimport import ZipImportError, zipimporter

_OWN = ("moviegen_core", "moviegen_data")


def program_of(made: Callable[..., Any], module: str) -> str:
    """A text that changes with a class or function, and with its module and what this imports.

    Args:
        made: the class or function; of a notebook's class, which has no file, its functions' own texts are all there is.
        module: name of its module.
    """
    own = _source(made) or "".join(_source(part) for part in getattr(made, "__dict__", {}).values() if inspect.isfunction(part))
    return own + digest_of_sources(module)


def _source(made: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(made)
    except (OSError, TypeError):
        return ""


@cache
def digest_of_sources(module: str) -> str:
    """A text that changes with a module and with all modules that it imports, directly or not, from its own package or from moviegen.

    Nothing is imported for it, so what happens to be loaded changes nothing. Imports inside of functions count too. Other packages are left
    out, and so are modules without text, as compiled ones.

    Args:
        module: its name.
    """
    loaded = sys.modules.get(module)
    module = getattr(getattr(loaded, "__spec__", None), "name", module)  # what runs as __main__ may have a package and a name in it
    packages = {module.partition(".")[0], *_OWN}
    told = getattr(loaded, "__file__", None)
    paths: dict[str, Path | None] = {module: Path(told) if told else _path(module)}
    open_names = [module]
    while open_names:
        name = open_names.pop()
        path = paths.setdefault(name, _path(name))
        imported = _imported(name, path) if path else []
        open_names.extend(other for other in imported if other not in paths and other.partition(".")[0] in packages)
    total = hashlib.sha256()
    for name, path in sorted(paths.items()):
        if path:
            total.update(name.encode() + b"\0" + (_text(path) or b"") + b"\0")
    return total.hexdigest()


@cache
def _path(name: str) -> Path | None:
    """The file of a module; None where there is none."""
    top, *parts = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # it was made by hand, or is a script or a notebook
        return None
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in (Path(folder, *parts, "__init__.py"), Path(folder, *parts).with_suffix(".py")):
            if _text(path) is not None:
                return path
    return None


@cache
def _text(path: Path) -> bytes | None:
    """A module's text; None where there is none, as of a compiled one."""
    if path.suffix != ".py":
        return None
    try:
        return path.read_bytes()
    except NotADirectoryError:  # it may lie in an archive
        archive = next((parent for parent in path.parents if parent.is_file()), path)
    except OSError:
        return None
    try:
        return zipimporter(str(archive)).get_data(str(path))
    except (ZipImportError, OSError):
        return None


@cache
def _imported(name: str, path: Path) -> list[str]:
    """Names of the modules that a module imports, and some that are none."""
    found = []
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:  # `import a.b` gives a, and b within it
                found += [alias.name, *([] if alias.asname else _above(alias.name))]
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")
            above = parts[: len(parts) - node.level + (path.name == "__init__.py")] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found.append(origin)
            for alias in node.names:
                found += [f"{origin}.{alias.name}", *_lazy(origin, alias.name)]
    return found


def _above(name: str) -> list[str]:
    """The packages that a module is in."""
    parts = name.split(".")
    return [".".join(parts[:number]) for number in range(1, len(parts))]


def _lazy(package: str, name: str) -> list[str]:
    """Where a package of moviegen takes a name from that it imports on first use, by the table in its text from names to modules."""
    path = _path(package) if package.partition(".")[0] in _OWN else None
    if path is None or path.name != "__init__.py":
        return []
    pairs = [pair for node in _nodes(path) if isinstance(node, ast.Dict) for pair in zip(node.keys, node.values, strict=True)]
    constant = [(key.value, value.value) for key, value in pairs if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)]
    return [f"{package}.{module}" for key, module in constant if key == name]


@cache
def _nodes(path: Path) -> list[ast.Import | ast.ImportFrom | ast.Dict]:
    """All that imports or may be a table of names, and no more, for a large package's nodes take gigabytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who asks for errors would be told of no imports
        try:
            nodes = ast.walk(ast.parse(_text(path) or b""))
            return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom | ast.Dict)]
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # it is not what was loaded, or is loaded by nobody
            return []
