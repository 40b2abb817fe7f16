"""Small films with known content, and a tokenizer that models of transformers are saved with."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
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
