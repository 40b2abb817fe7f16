"""What a stage's program is: its module and all that this imports of its own package and of moviegen, and nothing else."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from moviegen_data.curation import sources
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
