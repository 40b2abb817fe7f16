"""A folder of small videos, some of them dark."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml


@pytest.fixture
def make_folder(tmp_path, media_maker) -> Callable[..., Path]:
    """Make a folder of videos of two seconds; every third is dark."""

    def make(count: int = 6, name: str = "media") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            frames = np.full((16, 32, 48, 3), 10 if number % 3 == 2 else 120, np.uint8)
            frames[:, 8:24, 8:24] += np.arange(16, dtype=np.uint8)[:, None, None, None] * (1 + number % 4)
            (folder / f"v{number:03d}.mp4").write_bytes(media_maker.encode_clip(frames, crf=20))
        return folder

    return make


@pytest.fixture
def make_config(tmp_path) -> Callable[..., str]:
    """Write a configuration: dark videos out, the others in halves; return its path."""

    def make(*, least: float = 40.0, count: int = 2, name: str = "config.yaml", **shards: object) -> str:
        halves = {"path": "moviegen_hello:halves", "arguments": {"count": count}}
        stages = {
            "bright": {"class_path": "moviegen_hello.HelloBrightness", "init_args": {"least": least}},
            "halves": {"class_path": "Function", "init_args": halves},
        }
        path = tmp_path / name
        path.write_text("# a test\n" + yaml.safe_dump({"stages": stages, "shards": {"max_samples": 3, **shards}}, sort_keys=False))
        return str(path)

    return make


@pytest.fixture
def hash_of() -> Callable[[Path], str]:
    """Hash of all shards of a folder and their index."""

    def digest(folder: Path) -> str:
        paths = sorted([*folder.glob("*.tar"), *folder.glob("*.index.json")])
        assert paths, f"no shards in {folder}"
        return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in paths)).hexdigest()

    return digest
