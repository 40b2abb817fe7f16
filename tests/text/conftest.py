"""Tiny randomly initialised models and tokenizers, saved the way `save_pretrained` saves real ones."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ByT5Tokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
    UMT5Config,
    UMT5EncoderModel,
)

WORDS = ["a", "red", "blue", "ball", "square", "moves", "to", "the", "left", "right", "and", "a", "sign", "that", "says", "FPS", "-", "16"]
SIZES = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}


def save_t5(folder: Path, model: type, config: object) -> Path:
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(["<pad>", "</s>", "<unk>", *WORDS]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole encoder-decoder, as UL2 is published."""
    return save_t5(tmp_path_factory.mktemp("t5"), T5Model, T5Config(vocab_size=40, **SIZES))


@pytest.fixture(scope="session")
def umt5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder alone."""
    return save_t5(tmp_path_factory.mktemp("umt5"), UMT5EncoderModel, UMT5Config(vocab_size=40, **SIZES))


@pytest.fixture(scope="session")
def byt5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("byt5")
    ByT5Tokenizer().save_pretrained(folder)
    torch.manual_seed(1)
    T5Model(T5Config(vocab_size=384, tokenizer_class="ByT5Tokenizer", **SIZES)).save_pretrained(folder)
    return folder


def save_clip_tokenizer(folder: Path) -> None:
    # Letters, letters that end a word, whole words by merges of neighbours, and the two special tokens last.
    letters = [chr(code) for code in range(33, 127)]
    tokens, merges = [*letters, *[letter + "</w>" for letter in letters]], []
    for left, right in (("r", "e"), ("re", "d</w>"), ("b", "a"), ("l", "l</w>"), ("ba", "ll</w>")):
        merges.append(f"{left} {right}")
        tokens.append(left + right)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    tokenizer.save_pretrained(folder)


CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(vocab_size=195, bos_token_id=193, eos_token_id=194, pad_token_id=194, max_position_embeddings=77, **CLIP)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP text model alone."""
    folder = tmp_path_factory.mktemp("clip")
    save_clip_tokenizer(folder)
    torch.manual_seed(2)
    CLIPTextModel(text_config()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def whole_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text and vision together, as MetaCLIP is published."""
    folder = tmp_path_factory.mktemp("whole_clip")
    save_clip_tokenizer(folder)
    torch.manual_seed(3)
    vision = {**CLIP, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text_config().to_dict(), vision_config=vision, projection_dim=8)).save_pretrained(folder)
    return folder
