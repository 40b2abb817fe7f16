"""The trainings of this folder's tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import runs as _runs  # noqa: E402  # tests are no package


@pytest.fixture
def make_runs(tmp_path):
    """Make `Runs` in a folder of the test's own."""
    return lambda **options: _runs.Runs(tmp_path, **options)


@pytest.fixture(scope="session")
def toy_world():
    """Data of the toy world in place of shards."""
    return _runs.TOY_WORLD
