"""The program text that an answer depends on, for versions tell of releases only."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_OWN = ("moviegen_core", "moviegen_data")


@cache
def digest_of_sources(module: str) -> str:
    """A text that changes with a module and with all modules that it imports, directly or not, from its own package or from moviegen.

    Nothing is imported for it, so what happens to be loaded changes nothing. Imports inside of functions count too. Other packages are left
    out, and so are modules without text, as compiled ones.

    Args:
        module: its name; it is loaded.
    """
    packages = {module.partition(".")[0], *_OWN}
    told = getattr(sys.modules.get(module), "__file__", None)
    files = {module: Path(told) if told else None}
    found: dict[str, str] = {}
    open_names = [module]
    while open_names:
        name = open_names.pop()
        if name in found or name.partition(".")[0] not in packages:
            continue
        path = files.get(name) or _path(name)
        found[name] = path.read_text(encoding="utf-8", errors="replace") if path and path.suffix == ".py" and path.is_file() else ""
        if path and found[name]:
            open_names.extend(_imported(found[name], name, is_package=path.name == "__init__.py"))
    total = hashlib.sha256()
    for name in sorted(name for name, text in found.items() if text):
        total.update(f"{name}\0{found[name]}\0".encode())
    return total.hexdigest()


def _path(name: str) -> Path | None:
    """The file of a module; None where there is none."""
    top, *parts = name.split(".")
    spec = importlib.util.find_spec(top)
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in (Path(folder, *parts, "__init__.py"), Path(folder, *parts).with_suffix(".py")):
            if path.is_file():
                return path
    return None


def _imported(text: str, name: str, *, is_package: bool) -> Iterator[str]:
    """Names of the modules that a text imports, and some that are none."""
    for node in _nodes(text):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin
            for alias in node.names:
                yield f"{origin}.{alias.name}"
                yield from (f"{origin}.{module}" for module in _lazy(origin, alias.name))


def _lazy(package: str, name: str) -> Iterator[str]:
    """Where a package takes a name from that it imports on first use, by a table in its text from names to modules."""
    if package.partition(".")[0] not in _OWN:
        return
    path = _path(package)
    for node in _nodes(path.read_text(encoding="utf-8")) if path and path.name == "__init__.py" else ():
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name and isinstance(value, ast.Constant):
                    yield str(value.value)


def _nodes(text: str) -> Iterator[ast.AST]:
    try:
        return ast.walk(ast.parse(text))
    except (SyntaxError, ValueError):  # it is not what was loaded, or is loaded by nobody
        return iter(())
