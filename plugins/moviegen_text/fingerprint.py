"""Telling encoders apart by their files, without loading them: a fingerprint takes milliseconds where a checksum takes the weights."""

import hashlib
import json
from pathlib import Path

_WEIGHTS = (("model*.safetensors",), ("pytorch_model*.bin",))
_TOKENIZERS = (("tokenizer.json",), ("spiece.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt", "vocab.txt"))
_INCIDENTAL = ("transformers_version", "architectures", "torch_dtype", "dtype")  # of a config: who wrote it, and how weights are kept
_NUM_BLOCKS, _BLOCK = 256, 4096


def fingerprint(pretrained: str, *settings: object) -> str | None:
    """SHA-256 over a model's config and tokenizer, 256 blocks of each file of weights, and settings.

    None where the weights are not at hand: of a name on the hub the config alone may be there, which tells too little.

    Args:
        pretrained: a folder that `save_pretrained` wrote, or a name on the Hugging Face hub that was downloaded before.
        settings: what else decides the embeddings.
    """
    folder = _folder_of(pretrained)
    if folder is None or not (weights := _first_present(folder, _WEIGHTS)):
        return None
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(_config(folder / "config.json"))
    for path in [*_first_present(folder, _TOKENIZERS), *weights]:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        _update_by_blocks(digest, path)
    return digest.hexdigest()


def _folder_of(pretrained: str) -> Path | None:
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        return folder
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(pretrained, "config.json")
    except (ImportError, ValueError):  # no such package, or no such name on the hub
        return None
    return Path(found).parent if isinstance(found, str) else None


def _config(path: Path) -> bytes:
    """A config without what does not change the network."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return b""
    kept = {name: value for name, value in config.items() if not name.startswith("_") and name not in _INCIDENTAL}
    return json.dumps(kept, sort_keys=True).encode()


def _first_present(folder: Path, choices: tuple[tuple[str, ...], ...]) -> list[Path]:
    """The files of the first choice of which there are some; others are the same in another form."""
    for patterns in choices:
        if found := sorted(path for pattern in patterns for path in folder.glob(pattern)):
            return found
    return []


def _update_by_blocks(digest: "hashlib._Hash", path: Path) -> None:
    """The whole of a small file, and blocks all over a large one: other weights differ everywhere."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= _NUM_BLOCKS * _BLOCK:
            digest.update(file.read())
            return
        for number in range(_NUM_BLOCKS):
            file.seek((size - _BLOCK) * number // (_NUM_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
