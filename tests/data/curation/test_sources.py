"""What a stage's program is: its module and all that this imports of its own package and of moviegen, and nothing else."""

import importlib
import linecache
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from moviegen_data.curation import ClipStage, sources
from moviegen_data.curation.pipeline import Named, steps_of
from moviegen_data.curation.sources import digest_of_sources

STAGE = """
import math
from moviegen_data.curation import ClipStage
from {name}.near import half
from .deep import *
from . import beside as other

class Mine(ClipStage):
    def apply(self, clip, media):
        from {name}.late import late
        return clip.scored(half=half(late))
"""
FILES = {
    "__init__.py": "",
    "near.py": "from .far import two\ndef half(x): return x / two\n",
    "far.py": "two = 2\n",
    "late.py": "import {name}.later\nlate = 3\n",
    "later.py": "raise RuntimeError('nobody imports this')\n",
    "beside.py": "",
    "stranger.py": "",
    "deep/__init__.py": "from .inner import *\n",
    "deep/inner.py": "from ..deepest import one\n",
    "deepest.py": "one = 1\n",
}
SHIPPED = """
import sys
sys.path.insert(0, {folder!r})
import {name}.stage
from moviegen_data.curation.sources import digest_of_sources
print(digest_of_sources("{name}.stage"))
"""
_made = iter(range(100))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of many files with a stage in one of them."""
    name = f"package_{next(_made)}"
    for file, text in {**FILES, "stage.py": STAGE}.items():
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{name}", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / name


def forget():
    """As a new process."""
    for function in (digest_of_sources, sources._path, sources._text, sources._imported, sources._nodes):
        function.cache_clear()


def digest_of(package):
    forget()
    stage = importlib.import_module(f"{package.name}.stage").Mine()
    return steps_of([Named("s", stage, {"class_path": "Mine"})])[0].digest


def test_what_is_imported_counts(package):
    before = digest_of(package)
    assert digest_of(package) == before
    for file in FILES:
        path = package / file
        text = path.read_text()
        path.write_text(text + "# another\n")
        assert (digest_of(package) != before) == (file != "stranger.py"), file  # which nobody imports
        path.write_text(text)
    assert digest_of(package) == before


def test_texts_of_all_encodings_count(package):
    """A mark of byte order, another encoding, and what only warns of the text, keep no import from being found."""
    for head in (b"\xef\xbb\xbf", b"# coding: latin-1\n# \xe9\n", b"odd = '\\d'\n"):
        (package / "stage.py").write_bytes(head + STAGE.replace("{name}", package.name).encode())
        forget()
        before = digest_of_sources(f"{package.name}.stage")
        (package / "far.py").write_text("two = 3\n")
        forget()
        assert digest_of_sources(f"{package.name}.stage") != before, head
        (package / "far.py").write_text("two = 2\n")
    digests = set()
    for letter in (b"\xe8", b"\xe9"):
        (package / "far.py").write_bytes(b"# coding: latin-1\ntwo = '" + letter + b"'\n")
        forget()
        digests.add(digest_of_sources(f"{package.name}.stage"))
    assert len(digests) == 2


def test_packages_of_an_import_count(package):
    (package / "stage.py").write_text(f"import {package.name}.deep.inner\n")
    before = digest_of_sources(f"{package.name}.stage")
    (package / "deep" / "__init__.py").write_text("three = 3\n")
    forget()
    assert digest_of_sources(f"{package.name}.stage") != before


def test_packages_in_archives_count(package, tmp_path):
    """Which zip files may hold, as what is shipped to the machines of a cluster; the digest is that of the same files in a folder."""
    plain = told_by("-c", SHIPPED.format(folder=str(package.parent), name=package.name))
    archive = shutil.make_archive(str(tmp_path / "first"), "zip", package.parent, package.name)
    assert told_by("-c", SHIPPED.format(folder=archive, name=package.name)) == plain
    (package / "far.py").write_text("two = 3\n")
    archive = shutil.make_archive(str(tmp_path / "second"), "zip", package.parent, package.name)
    assert told_by("-c", SHIPPED.format(folder=archive, name=package.name)) != plain


def test_scripts_count(package):
    """As a file of its own, and as a module of its package, which is the same as when it is imported."""
    script = """
from moviegen_data.curation import Clip, ClipStage, Function
from moviegen_data.curation.pipeline import Named, steps_of
class Mine(ClipStage):
    def apply(self, clip, media):
        from PACKAGE.near import half
        return half(2)
def mine(clip, media):
    return clip
if __name__ == "__main__":
    for stage in (Mine(), Function(path="__main__:mine")):
        print(steps_of([Named("s", stage, {})])[0].digest)
""".replace("PACKAGE", package.name)
    path = package / "script.py"
    path.write_text(script)
    as_file, as_module = told_by(str(path)), told_by("-m", f"{package.name}.script", cwd=package.parent)
    stage = importlib.import_module(f"{package.name}.script").Mine()
    assert as_module[0] == steps_of([Named("s", stage, {})])[0].digest
    path.write_text(script.replace("half(2)", "half(3)"))
    assert not set(as_file + as_module) & {*told_by(str(path)), *told_by("-m", f"{package.name}.script", cwd=package.parent)}


def told_by(*command, cwd=None):
    roots = [str(Path(module.__file__).parents[1]) for module in map(importlib.import_module, ("moviegen_core", "moviegen_data"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, cwd=cwd, env=environment)
    return ran.stdout.split()


def test_cells_of_a_notebook_count(monkeypatch):
    digests = set()
    for number in range(2):  # as IPython does
        cell = f"class Mine(ClipStage):\n    def apply(self, clip, media):\n        return clip.scored(number={number})\n"
        name = f"<cell {number}>"
        monkeypatch.setitem(linecache.cache, name, (len(cell), None, cell.splitlines(True), name))
        notebook = types.ModuleType("notebook_of_cells")
        monkeypatch.setitem(sys.modules, notebook.__name__, notebook)
        notebook.ClipStage = ClipStage
        exec(compile(cell, name, "exec"), vars(notebook))
        digests.add(steps_of([Named("s", notebook.Mine(), {})])[0].digest)
    assert len(digests) == 2


def test_what_cannot_be_read_is_left_out(package):
    before = digest_of(package)
    (package / "later.py").write_text("no python !\n")
    assert digest_of(package) != before
    (package / "later.py").unlink()
    (package / "far.py").unlink()
    assert digest_of(package) != before


def test_names_of_a_lazy_package_lead_to_their_modules(monkeypatch):
    read = []
    path_of = sources._path
    forget()
    monkeypatch.setattr(sources, "_path", lambda name: read.append(name) or path_of(name))
    digest_of_sources("moviegen_audio.curation")  # has `from moviegen_data.curation import Clip, Media, ...`
    assert {"moviegen_data.curation.clip", "moviegen_data.curation.media"} <= set(read)
    assert not any(name.startswith("torch") for name in read)


def test_it_does_not_matter_what_is_loaded():
    """Two processes of one run, of which one has loaded all, name the same folder; and nothing is loaded for it."""
    code = """
import sys, moviegen_data.curation.stages.captions as stage
from moviegen_data.curation.sources import digest_of_sources
{}
before = set(sys.modules)
print(digest_of_sources(stage.__name__))
assert set(sys.modules) == before, "loaded more"
"""
    root = Path(__file__).parents[3]
    told = [
        subprocess.run([sys.executable, "-c", code.format(more)], capture_output=True, text=True, check=True, cwd=root).stdout
        for more in ("pass", "import moviegen_core.parallel.strategy, moviegen_data.curation.command")
    ]
    assert told[0] == told[1] and len(told[0]) == 65
