"""Sets of shards on their way: what a run that was killed leaves in the hidden folder, and how a set gets its names."""

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from moviegen_core.files import flush, write_bytes

INDEX = "index.json"
NOTES = "notes.jsonl"  # a line that says what the set is made of, then one for each whole shard
_PREVIOUS = "previous"  # the set that a new one replaces, while that is given its names


def shard_index_path(folder: str | Path, prefix: str = "shard") -> Path:
    """Where the index of a set of shards lies; it exists when and only when the set is whole."""
    return Path(folder) / f"{prefix}.index.json"


def present_shards(folder: Path, prefix: str) -> list[Path]:
    """The shards of a set that have their names; those of the prefix `a-0` are none of the prefix `a`."""
    found = folder.glob(f"{prefix}-[0-9]*.tar") if folder.is_dir() else []
    return sorted(path for path in found if path.stem.removeprefix(f"{prefix}-").isdecimal())


def begin_notes(partial: Path, made_from: str) -> None:
    """Note what a set is made of, before its first shard."""
    write_bytes(partial / NOTES, _line({"made_from": made_from}))


def add_note(partial: Path, shard: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    """Note that a shard is whole, and how far the making of the set had come when it was."""
    with open(partial / NOTES, "ab") as file:
        file.write(_line({"shard": shard, "progress": progress}))
        file.flush()
        os.fsync(file.fileno())


def read_partial(partial: Path, made_from: str) -> list[dict[str, Any]]:
    """The notes on a set made of the same, up to the first shard that is not there whole; notes behind it are removed."""
    head, *notes = _read_notes(partial / NOTES) or [{}]
    if head.get("made_from") != made_from:
        return []
    whole = []
    for note in notes:
        shard = note.get("shard", {})
        if not _has_size(partial / str(shard.get("file")), shard.get("num_bytes")):
            break
        whole.append(note)
    if whole:
        write_bytes(partial / NOTES, b"".join(map(_line, [head, *whole])))
    return whole


def finish_naming(partial: Path, folder: Path, prefix: str, made_from: str) -> bool:
    """Give a whole set of the same the names that a killed run could not give any more; false where there is none."""
    index = _read(partial / INDEX)
    whole = index.get("made_from") == made_from and all(
        _has_size(partial / shard["file"], shard["num_bytes"]) or _has_size(folder / shard["file"], shard["num_bytes"])
        for shard in index["shards"]
    )
    if whole:
        give_names(partial, folder, prefix)
    return whole


def is_whole(folder: Path, prefix: str, made_from: str) -> bool:
    """True where a whole set made of the same has its names."""
    index = _read(shard_index_path(folder, prefix))
    return index.get("made_from") == made_from and all(_has_size(folder / shard["file"], shard["num_bytes"]) for shard in index["shards"])


def give_names(partial: Path, folder: Path, prefix: str) -> None:
    """Move a set whose index is written to where it belongs, the index last; an earlier set goes, its index first.

    What fails on the way takes back what was done: the earlier set has its names again, and the new one lies in the hidden folder.
    """
    names = [shard["file"] for shard in _read(partial / INDEX)["shards"]]
    waiting = [name for name in names if (partial / name).exists()]  # a killed run may have moved the others
    index, previous = shard_index_path(folder, prefix), partial / _PREVIOUS
    earlier = [path for path in present_shards(folder, prefix) if path.name in waiting or path.name not in names]
    previous.mkdir(exist_ok=True)
    with ExitStack() as undo:
        undo.callback(flush, folder)
        if index.exists():
            _move(index, previous / index.name, undo)
            flush(folder)
        for path in earlier:
            _move(path, previous / path.name, undo)
        for name in waiting:
            _move(partial / name, folder / name, undo)
        flush(folder)  # the index must not be there before them, not even after a power cut
        _move(partial / INDEX, index, undo)
        flush(folder)
        undo.pop_all()


def take_back_names(partial: Path, folder: Path, prefix: str) -> None:
    """Undo the naming of a set that was killed on the way: its shards lie in the hidden folder again, and the earlier set has its names."""
    previous = partial / _PREVIOUS
    if not (partial / INDEX).exists() or not previous.is_dir():  # it was done, or had not begun
        return
    for name in (shard["file"] for shard in _read(partial / INDEX)["shards"]):
        if not (partial / name).exists() and (folder / name).exists():
            os.replace(folder / name, partial / name)
    index = previous / shard_index_path(folder, prefix).name
    for path in sorted(previous.iterdir(), key=lambda path: path == index):
        os.replace(path, folder / path.name)
    flush(folder)


def holds_earlier(partial: Path) -> bool:
    """Whether what failed could not be taken back, so that shards of the earlier set lie in the hidden folder alone."""
    previous = partial / _PREVIOUS
    return (partial / INDEX).exists() and previous.is_dir() and any(previous.iterdir())


def _move(source: Path, target: Path, undo: ExitStack) -> None:
    os.replace(source, target)
    undo.callback(os.replace, target, source)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_notes(path: Path) -> list[dict[str, Any]]:
    """The notes, up to one that was cut."""
    notes: list[dict[str, Any]] = []
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                note = json.loads(line)
                if not isinstance(note, dict) or not line.endswith("\n"):
                    break
                notes.append(note)
    except (OSError, ValueError):
        pass
    return notes


def _line(note: Mapping[str, Any]) -> bytes:
    return json.dumps(note, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _has_size(path: Path, num_bytes: int | None) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes
