"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests use no network; read when the hub's client is first imported

REPOSITORY = Path(__file__).parents[1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, or a GPU that is not there, unless the marker was asked for with -m."""
    asked = config.option.markexpr
    for item in items:
        if item.get_closest_marker("slow") and not any(mark.name in asked for mark in item.iter_markers()):
            item.add_marker(pytest.mark.skip(reason="slow; run it with `-m slow`"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device; run it with `tox -e gpu` on a machine that has one"))


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    """Small tensors run faster on one thread, and parallel workers do not fight for cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real clips, photos and sounds; tests that use it are skipped where it is absent."""
    candidates = [Path(os.environ["MOVIEGEN_MEDIA"])] if "MOVIEGEN_MEDIA" in os.environ else [REPOSITORY.parent / "shared" / "media"]
    for folder in candidates:
        if (folder / "MANIFEST.json").is_file():
            return folder
    pytest.skip(f"no test media at {candidates[0]}; set MOVIEGEN_MEDIA to a folder with MANIFEST.json")
