"""Folders of small films with known content, configurations, and a tokenizer that models of transformers are saved with."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from moviegen_core.media.video import write_video

sys.path.insert(0, str(Path(__file__).parent))

WORDS = [
    "a",
    "the",
    "red",
    "blue",
    "ball",
    "square",
    "dog",
    "runs",
    "rolls",
    "over",
    "floor",
    "sky",
    "left",
    "right",
    "and",
    "sits",
    "Describe",
    "this",
    "video",
    "in",
    "about",
    "words",
]


def film(path: Path, *, num_frames=12, height=48, width=64, seed=0, fps=8.0) -> Path:
    """Soft blobs of random places and colours that drift; another seed is another film."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    frames = np.zeros((num_frames, height, width, 3))
    for _ in range(6):
        (y, x), (dy, dx), color = rng.random(2), rng.normal(0, 0.02, 2), rng.random(3)
        for number, frame in enumerate(frames):
            distance = (rows - y - dy * number) ** 2 + (columns - x - dx * number) ** 2
            frame += np.exp(-distance / 0.02)[..., None] * color
    video = torch.from_numpy(frames.clip(0, 1) * 2 - 1).float().permute(3, 0, 1, 2)
    write_video(path, video, fps=fps)
    return path


@pytest.fixture
def make_film():
    return film


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    names = dict.fromkeys(["<pad>", "</s>", "<unk>", "<image>", "<start>", *WORDS])
    words = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    words.add_special_tokens(["<pad>", "</s>", "<unk>", "<image>", "<start>"])
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<start>", model_max_length=4096
    )


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
