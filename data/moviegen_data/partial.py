"""Sets of shards on their way: what a run that was killed leaves in the hidden folder, and how a set gets its names."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moviegen_core.files import write_bytes

INDEX = "index.json"
_STATE = "state.json"


def shard_index_path(folder: str | Path, prefix: str = "shard") -> Path:
    """Where the index of a set of shards lies; it exists when and only when the set is whole."""
    return Path(folder) / f"{prefix}.index.json"


def present_shards(folder: Path, prefix: str) -> list[Path]:
    """The shards of a set that have their names."""
    return sorted(folder.glob(f"{prefix}-[0-9]*.tar")) if folder.is_dir() else []


def write_partial(partial: Path, made_from: str, shards: Sequence[Mapping[str, Any]], progress: Mapping[str, Any]) -> None:
    """Note which shards of a set are whole, and how far its making had come when the last of them was."""
    state = {"made_from": made_from, "progress": progress, "shards": shards}
    write_bytes(partial / _STATE, json.dumps(state, ensure_ascii=False).encode())


def read_partial(partial: Path, made_from: str) -> dict[str, Any] | None:
    """What was noted of a set made of the same; None where it has no whole shard, or one that is not what the note says.

    A shard that was not finished is removed.
    """
    state = _read(partial / _STATE)
    if state.get("made_from") != made_from or not state.get("shards"):
        return None
    whole = {shard["file"]: shard["num_bytes"] for shard in state["shards"]}
    if any(not _has_size(partial / name, size) for name, size in whole.items()):
        return None
    for path in partial.iterdir():
        if path.name not in whole and path.name != _STATE:
            path.unlink()
    return state


def finish_naming(partial: Path, folder: Path, prefix: str, made_from: str) -> bool:
    """True where the whole set of the same is there, after giving it the names that a killed run could not give any more."""
    index = _read(partial / INDEX)
    if index.get("made_from") == made_from and all(
        _has_size(partial / shard["file"], shard["num_bytes"]) or _has_size(folder / shard["file"], shard["num_bytes"])
        for shard in index["shards"]
    ):
        give_names(partial, folder, prefix)
    index = _read(shard_index_path(folder, prefix))
    complete = index.get("made_from") == made_from and all(
        _has_size(folder / shard["file"], shard["num_bytes"]) for shard in index["shards"]
    )
    if complete:
        shutil.rmtree(partial, ignore_errors=True)
    return complete


def give_names(partial: Path, folder: Path, prefix: str) -> None:
    """Move a set whose index is written to where it belongs, the index last; an earlier set goes, its index first."""
    names = [shard["file"] for shard in _read(partial / INDEX)["shards"]]
    shard_index_path(folder, prefix).unlink(missing_ok=True)
    for path in present_shards(folder, prefix):
        if path.name not in names:
            path.unlink()
    for name in names:
        if (partial / name).exists():  # a killed run may have moved it
            os.replace(partial / name, folder / name)
    os.replace(partial / INDEX, shard_index_path(folder, prefix))
    shutil.rmtree(partial)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _has_size(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes
