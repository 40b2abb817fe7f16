"""Shards that are written get their names in the output folder: an index never speaks of what is not there, and nothing of others goes."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from moviegen_core.errors import UsageError
from moviegen_core.files import flush, whole_file, write_bytes
from moviegen_data.curation.work import NAME
from moviegen_data.shards import SCHEMA_VERSION, shard_index_path


@dataclass(frozen=True)
class Published:
    """What runs of curation have put into a folder, so that nothing else is ever taken away.

    Args:
        made_from: what the set of shards was made from; empty while it is being put there.
        files: names of shards and index, and their sizes in bytes: two of a name, while one takes the place of the other.
    """

    made_from: str = ""
    files: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def read(cls, output: Path) -> Self:
        """What the folder's record says."""
        path = output / NAME / "published.json"
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if isinstance(told.get("files"), list):  # an earlier version kept no sizes; what has the names was its own
            told["files"] = {name: [(output / name).stat().st_size] for name in told["files"] if (output / name).is_file()}
        return cls(**told)

    def write(self, output: Path) -> None:
        """Write the record, unless it is there."""
        path, text = output / NAME / "published.json", json.dumps(asdict(self)).encode()
        if not path.is_file() or path.read_bytes() != text:
            write_bytes(path, text)

    def has(self, path: Path) -> bool:
        """Whether a file is one of these, and not one that somebody else has given the name."""
        return path.is_file() and path.stat().st_size in self.files.get(path.name, ())


def require_free(output: Path, prefix: str, *, overwrite: bool) -> None:
    """Refuse a folder with shards that no run of curation has put there.

    Args:
        output: folder of the shards.
        prefix: first part of their names.
        overwrite: whether those of this prefix may be replaced. Others would stay, and be read as part of the set.

    Raises:
        UsageError: it has some.
    """
    present, others = _foreign_shards(output, prefix), _foreign_shards(output)
    others = [name for name in others if name not in present]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UsageError(
            f"{output} was given for new shards named {prefix}-*.tar",
            f"it already holds {others[0]}{more}, which would be read as part of them",
            "give a folder of its own",
        )
    if present and not overwrite:
        raise UsageError(
            f"{output} was given for new shards",
            f"it already holds {len(present)} named {prefix}-*.tar",
            "give another folder, or --overwrite",
        )


def publish(sets: Sequence[Path], output: Path, *, prefix: str, made_from: str, overwrite: bool = False) -> dict[str, Any]:
    """Give shards their names in the output folder, the index last; return the index. Can be done again where it was cut short.

    Args:
        sets: folders of shards that are whole, in their order; they keep theirs.
        output: the folder.
        prefix: first part of the shards' names, here and there.
        made_from: what all of them were made from; where the same is there already, nothing is done.
        overwrite: take shards of this prefix away that no run of curation has put there.
    """
    index, links = _joined(sets, prefix)
    text, index_path = json.dumps(index, indent=1) + "\n", shard_index_path(output, prefix)
    sizes = {shard["file"]: [shard["num_bytes"]] for shard in index["shards"]}
    old, new = Published.read(output), Published(made_from, {**sizes, index_path.name: [len(text.encode())]})
    foreign = _foreign_shards(output, prefix) if overwrite else []
    whole = old.made_from == made_from and all(new.has(output / name) for name in new.files)
    if whole and not foreign and index_path.read_bytes() == text.encode():
        new.write(output)  # with sizes, where an earlier version kept none
        return index
    gone = {*foreign, *new.files, *(name for name in old.files if old.has(output / name))}
    _both(output, gone, new).write(output)  # what a kill leaves from here on is known as ours
    for name in sorted(gone, key=lambda name: not name.endswith(".index.json")):  # an index never speaks of what is not there
        (output / name).unlink(missing_ok=True)
    for name, source in links.items():
        _link(source, output / name)
    flush(output)  # the index must not be there before them, not even after a power cut
    write_bytes(index_path, text.encode())
    new.write(output)
    return index


def _both(output: Path, gone: Iterable[str], new: Published) -> Published:
    """A record of what is there and of what will be."""
    sizes = {name: [(output / name).stat().st_size] if (output / name).is_file() else [] for name in gone}
    return Published("", {name: [*size, *new.files.get(name, ())] for name, size in sorted(sizes.items())})


def _joined(sets: Sequence[Path], prefix: str) -> tuple[dict[str, Any], dict[str, Path]]:
    """One index of several sets, and where the shards lie that it names."""
    shards: list[dict[str, Any]] = []
    parts, links = Counter[str](), {}
    for folder in sets:
        own = json.loads(shard_index_path(folder, prefix).read_text(encoding="utf-8"))
        parts.update(own["parts"])
        for shard in own["shards"]:  # none where no clip of it could be cut
            name = f"{prefix}-{len(shards):06d}.tar"
            links[name] = folder / shard["file"]
            shards.append({**shard, "file": name})
    total = {"num_samples": sum(s["num_samples"] for s in shards), "num_bytes": sum(s["num_bytes"] for s in shards)}
    return {"schema": SCHEMA_VERSION, "prefix": prefix, **total, "parts": dict(sorted(parts.items())), "shards": shards}, links


def _foreign_shards(output: Path, prefix: str | None = None) -> list[str]:
    """Names of the shards, of one prefix or of any, that no run of curation has put into a folder."""
    form, ours = re.compile(r"[^.].*\.tar" if prefix is None else re.escape(prefix) + r"-\d{6,}\.tar"), Published.read(output)
    return sorted(path.name for path in output.glob("*.tar") if form.fullmatch(path.name) and not ours.has(path))


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as file, whole_file(target) as copy:
            shutil.copyfileobj(file, copy)
