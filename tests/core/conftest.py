"""Fixtures of the core's tests: plugins that are installed for the length of one test."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moviegen_core.plugins import plugin_host

sys.path.insert(0, str(Path(__file__).parent))
THIRD_PARTY = Path(__file__).parents[1] / "third_party"
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package of one module, as pip would: a module, its metadata and its entry point, in a folder on the path."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("MOVIEGEN_BLOCK_PLUGINS", raising=False)

    def install_package(name: str, source: str, *, package: str | None = None, version: str = "1.0") -> Path:
        package = package or f"moviegen-{name}"
        (site / f"moviegen_{name}.py").write_text(source)
        info = site / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[moviegen]\n{name} = moviegen_{name}\n")
        plugin_host.cache_clear()
        return site

    yield install_package
    plugin_host.cache_clear()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(site)):
            del sys.modules[name]


@pytest.fixture
def hello(install: Install) -> None:
    """The stranger's plugin of tests/third_party, installed."""
    source = (THIRD_PARTY / "moviegen_hello" / "moviegen_hello.py").read_text()
    site = install("hello", source, version="1.2.3")
    (site / "moviegen_hello.py").unlink()  # the module itself comes from pytest's pythonpath, so that its classes exist once


@pytest.fixture
def broken(install: Install) -> None:
    """The plugin of tests/third_party that fails on import, installed."""
    install("broken", (THIRD_PARTY / "moviegen_broken" / "moviegen_broken.py").read_text(), version="6.6.6")
