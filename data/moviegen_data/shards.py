"""Writing shards: WebDataset tar files that appear under their final name only when they are whole."""

import errno
import io
import json
import os
import re
import struct
import tarfile
from collections import Counter
from collections.abc import Collection, Mapping, Set
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moviegen_core.files import write_bytes
from moviegen_data.claim import Claim
from moviegen_data.partial import (
    INDEX,
    NOTES,
    add_note,
    begin_notes,
    finish_naming,
    give_names,
    holds_earlier,
    is_whole,
    present_shards,
    read_partial,
    shard_index_path,
    take_back_names,
)

__all__ = ["MAX_KEY_BYTES", "SCHEMA_VERSION", "ShardWriter", "safetensors_header", "shard_index_path"]

SCHEMA_VERSION = 1
MAX_KEY_BYTES = 90
_MEMBER = 512


def safetensors_header(head: bytes | bytearray) -> tuple[dict[str, Any], int]:
    """Header of safetensors bytes, and where the data begins; `head` need only reach that far."""
    (length,) = struct.unpack_from("<Q", head)
    return json.loads(bytes(head[8 : 8 + length])), 8 + length


class ShardWriter:
    """Writes samples into `<prefix>-000000.tar`, `<prefix>-000001.tar`, ... and an index with their counts.

    Use it as a context manager. The shards grow in a hidden folder and are renamed when all are whole, the index last; an exception inside
    the `with`, or a renaming that fails, leaves the folder as it was. Equal samples give equal bytes. With `made_from` an interrupted set
    can be gone on with: whole shards stay in the hidden folder, `written` names their samples, `progress` is what was noted when the last
    of them was finished, and `complete` is true where the set was whole already, so that nothing is left to do.

    Args:
        folder: where the shards go; made when absent.
        prefix: first part of the file names; writers of different prefixes (one per rank) may share a folder.
        max_samples: samples in a shard at most.
        max_bytes: bytes in a shard at most; one larger sample gets a shard of its own.
        overwrite: replace shards of the same prefix that are already there; they stay until the new ones are whole.
        made_from: says all that the set depends on; only a set of the same is gone on with. None begins anew each time.

    Raises:
        FileExistsError: the folder has shards of this prefix and `overwrite` is false.
        UsageError: the folder cannot be made, or another process writes shards of this prefix into it.
        ValueError: a limit is not positive, a key was given twice or cannot be a name in a tar.
        OSError: the disk is full; nothing half-written is left.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        prefix: str = "shard",
        max_samples: int = 1000,
        max_bytes: int = 1_000_000_000,
        overwrite: bool = False,
        made_from: str | None = None,
    ) -> None:
        if max_samples < 1 or max_bytes < 1:
            raise ValueError(
                f"max_samples={max_samples} and max_bytes={max_bytes} were given; both must be at least 1; use e.g. 1000 and 1e9"
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", prefix):
            raise ValueError(
                f"the prefix {prefix!r} was given; letters, digits, - and _ can be used; try {re.sub('[^A-Za-z0-9_-]', '_', prefix)!r}"
            )
        self.folder = Path(folder)
        self.prefix = prefix
        self.max_samples = max_samples
        self.max_bytes = max_bytes
        self.num_samples = 0
        self.num_bytes = 0
        self._partial = self.folder / f".{prefix}.partial"
        self._shards: list[dict[str, Any]] = []
        self._members: Counter[str] = Counter()
        self._keys: set[str] = set()
        self._file: io.BufferedWriter | None = None
        self._tar: tarfile.TarFile | None = None
        self._in_shard = 0
        self._latent_shapes: set[tuple[int, ...]] = set()
        self._places: list[tuple[str, dict[str, tuple[int, int]]]] = []
        self.made_from = made_from
        self.progress: dict[str, Any] = {}
        self._claim: Claim | None = None
        self.complete = made_from is not None and not overwrite and not self._partial.exists() and is_whole(self.folder, prefix, made_from)
        if not self.complete:
            self._claim = Claim(self._partial, what=f"the shards {self.folder}/{prefix}-*.tar")
            try:
                self._begin(overwrite)
            except BaseException:
                self._claim.release()
                raise

    def _begin(self, overwrite: bool) -> None:
        """Finish what a killed run had whole, go on with what it had not, or begin anew."""
        if self.made_from is not None and (overwrite or not shard_index_path(self.folder, self.prefix).exists()):
            self.complete = finish_naming(self._partial, self.folder, self.prefix, self.made_from)
        if self.made_from is not None and not overwrite:
            self.complete = self.complete or is_whole(self.folder, self.prefix, self.made_from)
        if self.complete:
            self._leave()
            return
        take_back_names(self._partial, self.folder, self.prefix)
        self._refuse_present(overwrite)
        notes = [] if self.made_from is None else read_partial(self._partial, self.made_from)
        for note in notes:
            self._go_on(note["shard"])
            self.progress = note["progress"]
        self._claim.clear(keep=[NOTES, *(shard["file"] for shard in self._shards)] if notes else [])
        if self.made_from is not None and not notes:
            begin_notes(self._partial, self.made_from)

    @property
    def written(self) -> Set[str]:
        """Keys of the samples that are in the set."""
        return self._keys

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, key: str, parts: Mapping[str, bytes | str | Mapping[str, Any]]) -> None:
        """Append a sample: parts by their extension, e.g. `{"json": {...}, "mp4": b"..."}`.

        The json part gets `schema` and `key`; a mapping becomes json, a text becomes UTF-8.
        """
        _check_key(key, self._keys)
        payload = {extension: _to_bytes(key, extension, part) for extension, part in parts.items()}
        if not payload:
            raise ValueError(f"the sample {key!r} has no parts; give at least one, e.g. {{'json': {{'caption': '...'}}}}")
        size = sum(_MEMBER + _padded(len(part)) for part in payload.values())
        try:
            if self._tar is not None and (self._in_shard >= self.max_samples or self._file.tell() + size > self.max_bytes):
                self._finish_shard()
            if self._tar is None:
                self._start_shard()
            places = {}
            for extension, part in payload.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(part)
                member.mode = 0o644
                self._tar.addfile(member, io.BytesIO(part))
                places[extension] = (self._tar.offset - _padded(len(part)), len(part))
            self._places.append((key, places))
        except OSError as error:
            self._give_up(error)
        if "latent.safetensors" in payload:
            self._latent_shapes.add(tuple(safetensors_header(payload["latent.safetensors"])[0]["latent"]["shape"]))
        self._keys.add(key)
        self._members.update(payload.keys())
        self._in_shard += 1
        self.num_samples += 1

    def close(self) -> None:
        """Finish the last shard, give all of them their names and write the index."""
        if self.complete:
            return
        try:
            if self._tar is not None:
                self._finish_shard()
            index = {
                "schema": SCHEMA_VERSION,
                "prefix": self.prefix,
                "num_samples": self.num_samples,
                "num_bytes": self.num_bytes,
                "parts": dict(sorted(self._members.items())),
                **({} if self.made_from is None else {"made_from": self.made_from}),
                "shards": self._shards,
            }
            write_bytes(self._partial / INDEX, _index_text(index).encode())
            give_names(self._partial, self.folder, self.prefix)
            self._leave()
        except OSError as error:
            self._give_up(error)

    def abort(self) -> None:
        """Remove everything this writer has written; of a set that can be gone on with, only the unfinished shard.

        Its index stays too, where it was written: then only names are wanting, and the next run gives them. All stays where shards of the
        earlier set could not be given back, which the next run does.
        """
        for handle in (self._tar, self._file):
            if handle is not None:
                try:
                    handle.close()
                except OSError:
                    pass
        self._tar = self._file = None
        if self._claim is None:  # whole, or given up before
            return
        if holds_earlier(self._partial):
            self._claim.release()
            self._claim = None
            return
        keep = [] if self.made_from is None or not self._shards else [NOTES, INDEX, *(shard["file"] for shard in self._shards)]
        self._leave(keep)

    def _leave(self, keep: Collection[str] = ()) -> None:
        """Let go of the hidden folder, and remove it but for what another run can go on with."""
        if self._claim is not None:
            self._claim.clear(keep=keep)
            self._claim.release()
            self._claim = None

    def _go_on(self, shard: Mapping[str, Any]) -> None:
        """Take up a whole shard that an interrupted run left."""
        self._shards.append(dict(shard))
        for key, parts in shard["members"]:
            self._keys.add(key)
            self._members.update(parts.keys())
        self.num_samples += shard["num_samples"]
        self.num_bytes += shard["num_bytes"]

    def _refuse_present(self, overwrite: bool) -> None:
        present = present_shards(self.folder, self.prefix)
        if present and not overwrite:
            raise FileExistsError(
                f"{self.folder} was given for new shards; it already holds {len(present)} named {self.prefix}-*.tar; "
                "choose another folder or prefix, or say overwrite=True to replace them"
            )

    def _start_shard(self) -> None:
        self._file = open(self._partial / self._shard_name(len(self._shards)), "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # as USTAR, but names may be longer
        self._in_shard = 0
        self._latent_shapes, self._places = set(), []

    def _shard_name(self, number: int) -> str:
        return f"{self.prefix}-{number:06d}.tar"

    def _finish_shard(self) -> None:
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        name, size = Path(self._file.name).name, self._file.tell()
        self._file.close()
        self._tar = self._file = None
        shard = {"file": name, "num_samples": self._in_shard, "num_bytes": size}
        if self._latent_shapes:
            shard["latent_shapes"] = sorted(list(shape) for shape in self._latent_shapes)
        shard["members"] = self._places
        self._shards.append(shard)
        self.num_bytes += size
        if self.made_from is not None:
            add_note(self._partial, shard, self.progress)

    def _give_up(self, error: OSError) -> None:
        written = self.num_bytes
        self.abort()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"shards were being written to {self.folder}; the disk is full after {written / 1e6:.0f} MB in finished shards and nothing "
                "half-written was left; free space or choose a folder on another disk, then run the same command again",
            ) from error
        raise error


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // _MEMBER) * _MEMBER


def _index_text(index: Mapping[str, Any]) -> str:
    """Json with a line for each shard, whose members are many numbers."""
    head = json.dumps({**index, "shards": []}, indent=1, ensure_ascii=False)
    assert head.endswith('"shards": []\n}')
    lines = ",\n  ".join(json.dumps(shard, ensure_ascii=False, separators=(",", ":")) for shard in index["shards"])
    return head.removesuffix("[]\n}") + f"[\n  {lines}\n ]\n}}\n"


def _check_key(key: str, taken: set[str]) -> None:
    parts = key.split("/")
    too_long = len(key.encode(errors="replace")) > MAX_KEY_BYTES
    unnameable = "\0" in key or any("\ud800" <= letter <= "\udfff" for letter in key)  # names that were no UTF-8
    if unnameable or too_long or "." in parts[-1] or any(part in ("", ".", "..") for part in parts):
        better = re.sub(r"[^A-Za-z0-9_-]+", "_", key)[-MAX_KEY_BYTES:].strip("_") or "sample"
        raise ValueError(
            f"the sample key {key!r} was given; a key is a relative path of at most {MAX_KEY_BYTES} bytes whose last part has no dot "
            f"(what follows the first dot is the kind of the part); try {better!r}"
        )
    if key in taken:
        raise ValueError(f"the sample key {key!r} was given twice; keys are unique in a set of shards; add a number to one of them")


def _to_bytes(key: str, extension: str, part: bytes | str | Mapping[str, Any]) -> bytes:
    if isinstance(part, Mapping):
        record = {"schema": SCHEMA_VERSION, "key": key, **part} if extension == "json" else dict(part)
        return json.dumps(record, ensure_ascii=False).encode("utf-8")
    return part.encode("utf-8") if isinstance(part, str) else bytes(part)
