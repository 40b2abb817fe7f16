"""`moviegen plugins new`: writes a package of one module, one test and a pyproject that installs, trains and passes its own test."""

import keyword
import re
from pathlib import Path
from string import Template

from moviegen_core import __version__
from moviegen_core.errors import UsageError
from moviegen_core.plugins import plugin_host

_TEMPLATES = Path(__file__).parent / "templates"
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "${module}/__init__.py": "init.py.txt",
    "${module}/model.py": "model.py.txt",
    "tests/test_${short}.py": "test.py.txt",
}


def new_plugin(name: str, *, folder: Path = Path(".")) -> None:
    """Write the first files of a plugin: a backbone that works, its registration and its test.

    Args:
        name: short name of the plugin in lower case, e.g. `waves`; the package is called `moviegen-waves`.
        folder: where the package's folder is made.

    Raises:
        UsageError: the name is not usable or taken, or the folder exists already.
    """
    short = name.removeprefix("moviegen-").removeprefix("moviegen_").replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", short) or keyword.iskeyword(short):
        raise UsageError(f"plugin name '{name}' was given", "a name is lower-case letters, digits and dashes", "try `waves`")
    taken = {plugin.name: plugin for plugin in plugin_host().plugins}
    if short in taken:
        raise UsageError(f"plugin name '{name}' was given", f"package {taken[short].package} has it already", "choose another name")
    root = folder / f"moviegen-{short.replace('_', '-')}"
    if root.exists():
        raise UsageError(f"plugin name '{name}' was given", f"{root} exists already", "choose another name or --folder")
    words = {
        "short": short,
        "module": f"moviegen_{short}",
        "package": root.name,
        "title": "".join(word.capitalize() for word in short.split("_")),
        "version": __version__,
    }
    for target, template in _FILES.items():
        path = root / Template(target).substitute(words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template((_TEMPLATES / template).read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    print(f"wrote {root}; next: pip install -e {root}, moviegen plugins show {short}, pytest {root}")
