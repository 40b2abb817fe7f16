"""Writing shards: WebDataset tar files that appear under their final name only when they are whole."""

import errno
import io
import json
import os
import re
import shutil
import struct
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moviegen_core.errors import UsageError

SCHEMA_VERSION = 1
_MEMBER = 512


def shard_index_path(folder: str | Path, prefix: str = "shard") -> Path:
    """Where the index of a set of shards lies; it exists when and only when the set is whole."""
    return Path(folder) / f"{prefix}.index.json"


def safetensors_header(head: bytes | bytearray) -> tuple[dict[str, Any], int]:
    """Header of safetensors bytes, and where the data begins; `head` need only reach that far."""
    (length,) = struct.unpack_from("<Q", head)
    return json.loads(bytes(head[8 : 8 + length])), 8 + length


class ShardWriter:
    """Writes samples into `<prefix>-000000.tar`, `<prefix>-000001.tar`, ... and an index with their counts.

    Use it as a context manager. The shards grow in a hidden folder and are renamed when all are whole, the index last; an exception inside
    the `with` leaves nothing behind. Equal samples give equal bytes.

    Args:
        folder: where the shards go; made when absent.
        prefix: first part of the file names; writers of different prefixes (one per rank) may share a folder.
        max_samples: samples in a shard at most.
        max_bytes: bytes in a shard at most; one larger sample gets a shard of its own.
        overwrite: replace shards of the same prefix that are already there; they stay until the new ones are whole.

    Raises:
        FileExistsError: the folder has shards of this prefix and `overwrite` is false.
        ValueError: a limit is not positive, a key was given twice or cannot be a name in a tar.
        OSError: the disk is full; nothing half-written is left.
    """

    def __init__(
        self, folder: str | Path, *, prefix: str = "shard", max_samples: int = 1000, max_bytes: int = 1_000_000_000, overwrite: bool = False
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
        self._present = self._find_present(overwrite)
        shutil.rmtree(self._partial, ignore_errors=True)
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            given = f"the folder {self.folder} was given for new shards"
            raise UsageError(given, f"it cannot be made or written to ({error.strerror})", "give a folder of your own") from error

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
        size = sum(_MEMBER + -(-len(part) // _MEMBER) * _MEMBER for part in payload.values())
        try:
            if self._tar is not None and (self._in_shard >= self.max_samples or self._file.tell() + size > self.max_bytes):
                self._finish_shard()
            if self._tar is None:
                self._start_shard()
            for extension, part in payload.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(part)
                member.mode = 0o644
                self._tar.addfile(member, io.BytesIO(part))
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
        try:
            if self._tar is not None:
                self._finish_shard()
            index = {
                "schema": SCHEMA_VERSION,
                "prefix": self.prefix,
                "num_samples": self.num_samples,
                "num_bytes": self.num_bytes,
                "parts": dict(sorted(self._members.items())),
                "shards": self._shards,
            }
            temporary = self._partial / "index.json"
            temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
            self._remove_present()
            for shard in self._shards:
                os.replace(self._partial / shard["file"], self.folder / shard["file"])
            os.replace(temporary, shard_index_path(self.folder, self.prefix))
            self._partial.rmdir()
        except OSError as error:
            self._give_up(error)

    def abort(self) -> None:
        """Remove everything this writer has written."""
        for handle in (self._tar, self._file):
            if handle is not None:
                try:
                    handle.close()
                except OSError:
                    pass
        self._tar = self._file = None
        shutil.rmtree(self._partial, ignore_errors=True)

    def _find_present(self, overwrite: bool) -> list[Path]:
        present = sorted(self.folder.glob(f"{self.prefix}-[0-9]*.tar")) if self.folder.is_dir() else []
        if present and not overwrite:
            raise FileExistsError(
                f"{self.folder} was given for new shards; it already holds {len(present)} named {self.prefix}-*.tar; "
                "choose another folder or prefix, or say overwrite=True to replace them"
            )
        return present

    def _remove_present(self) -> None:
        """Remove the earlier set: its index first, so that a set with an index is whole at any moment."""
        shard_index_path(self.folder, self.prefix).unlink(missing_ok=True)
        for path in self._present:
            path.unlink(missing_ok=True)

    def _start_shard(self) -> None:
        name = f"{self.prefix}-{len(self._shards):06d}.tar"
        self._file = open(self._partial / name, "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        self._in_shard = 0
        self._latent_shapes = set()

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
        self._shards.append(shard)
        self.num_bytes += size

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


def _check_key(key: str, taken: set[str]) -> None:
    parts = key.split("/")
    if not key or "." in parts[-1] or any(part in ("", ".", "..") for part in parts) or len(key.encode()) > 90 or "\0" in key:
        raise ValueError(
            f"the sample key {key!r} was given; a key is a relative path of at most 90 bytes whose last part has no dot (what follows the "
            f"first dot is the kind of the part); try {re.sub(r'[^A-Za-z0-9_-]+', '_', key)[-90:].strip('_') or 'sample'!r}"
        )
    if key in taken:
        raise ValueError(f"the sample key {key!r} was given twice; keys are unique in a set of shards; add a number to one of them")


def _to_bytes(key: str, extension: str, part: bytes | str | Mapping[str, Any]) -> bytes:
    if isinstance(part, Mapping):
        record = {"schema": SCHEMA_VERSION, "key": key, **part} if extension == "json" else dict(part)
        return json.dumps(record, ensure_ascii=False).encode("utf-8")
    return part.encode("utf-8") if isinstance(part, str) else bytes(part)
