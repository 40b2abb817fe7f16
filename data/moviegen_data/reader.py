"""Reading shards: random access to the bytes of any sample of any shard. Nothing is extracted or executed."""

import bisect
import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moviegen_core.errors import UsageError
from moviegen_data.addresses import resolve_shards
from moviegen_data.contents import Member, ShardContents, indexed_contents, scan_shard
from moviegen_data.faults import SampleError, SkipReport
from moviegen_data.limits import MediaLimits
from moviegen_data.local_files import LocalFile, told
from moviegen_data.shards import SCHEMA_VERSION
from moviegen_data.storage import Place, RemoteFile, RemotePath, size_of
from moviegen_data.urls import shown
from moviegen_data.wording import counted

_MAX_OPEN_SHARDS = 32
_MAX_TEXT = 1 << 24  # bytes of a json; reading makes some fifty times as many of them
_NUMBERED = re.compile(r"(.+)-\d+\.tar")


class _OpenShard:
    """A shard's contents, and its bytes."""

    def __init__(self, path: Place, entry: Mapping[str, Any] | None) -> None:
        # A local tar's own headers are at hand; a remote one's would cost a request for each member.
        contents = indexed_contents(entry) if entry is not None and isinstance(path, RemotePath) else None
        if contents is not None and (size := path.size()) != entry["num_bytes"]:
            raise SampleError("the shard is not the one that its index speaks of", f"{path}: {size} bytes, not {entry['num_bytes']}")
        self.contents: ShardContents = contents or scan_shard(path)
        self.file = RemoteFile(path) if isinstance(path, RemotePath) else LocalFile(path)


class Sample(Mapping[str, bytes]):
    """One sample of a shard: its parts' bytes by extension, read when asked for.

    Args:
        shard: the shard's path.
        key: the sample's key.
        members: where the parts lie.
        file: the shard's bytes.
        limits: parts of more bytes are not read.
    """

    def __init__(
        self, shard: str, key: str, members: dict[str, Member], file: LocalFile | RemoteFile, limits: MediaLimits | None = None
    ) -> None:
        self.shard = shard
        self.key = key
        self._members = members
        self._file = file
        self._limits = limits or MediaLimits()
        self._json: dict[str, Any] | None = None

    def __getitem__(self, extension: str) -> bytes:
        member = self._member(extension)
        content = self._file.read(member.offset, member.size)
        if len(content) != member.size:
            raise SampleError("the shard is cut inside this sample", f"{extension}: {len(content)} of {member.size} bytes")
        return content

    def buffer(self, extension: str) -> bytearray:
        """A part as writable memory, which tensors can view without a copy."""
        content = bytearray(self._member(extension).size)
        self.read_into(extension, np.frombuffer(content, dtype=np.uint8), 0)
        return content

    def read_into(self, extension: str, target: np.ndarray, offset: int) -> None:
        """Fill an array of bytes with a part from some byte on; of a local shard no copy lies between."""
        member = self._member(extension)
        count = self._file.read_into(member.offset + offset, target)
        if count != len(target) or offset + count > member.size:
            raise SampleError("the shard is cut inside this sample", f"{extension}: fewer than {len(target)} bytes from {offset} on")

    def head(self, extension: str, num_bytes: int) -> bytes:
        """The first bytes of a part; of one that is too large not even these, since they tell what memory the rest wants."""
        member = self._member(extension)
        return self._file.read(member.offset, min(num_bytes, member.size))

    def size(self, extension: str) -> int:
        """Bytes of a part."""
        return self._members[extension].size

    def _member(self, extension: str) -> Member:
        member = self._members[extension]
        self._limits.check_bytes(member.size, what=extension)
        return member

    def __contains__(self, extension: object) -> bool:
        return extension in self._members  # Mapping's own would read the part

    def __iter__(self):
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def metadata(self) -> dict[str, Any]:
        """The sample's json, checked for its schema; a sample with only a caption text (`KEY.txt`) gives just that."""
        if self._json is None:
            self._json = self._read_metadata()
        return self._json

    def _read_metadata(self) -> dict[str, Any]:
        for extension in ("json", "txt"):
            if extension in self and self.size(extension) > _MAX_TEXT:
                raise SampleError("too large", f"{extension} of {self.size(extension)} bytes, at most {_MAX_TEXT}")
        if "json" not in self:
            return {"caption": self["txt"].decode("utf-8", "replace").strip()} if "txt" in self else {}
        content = self["json"]
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise SampleError("the json cannot be read", str(error)) from error
        if not isinstance(record, dict):
            raise SampleError("the json cannot be read", f"it is a {type(record).__name__}, not a mapping")
        if not isinstance(record.get("schema", 1), int) or record.get("schema", 1) > SCHEMA_VERSION:
            raise SampleError("the json has an unknown schema", f"version {record['schema']}, this program reads up to {SCHEMA_VERSION}")
        return record


class ShardReader:
    """Random access to the samples of many shards, numbered through in the order of the shards.

    Counts come from the index that `ShardWriter` leaves beside its shards, or from the tar's own headers; of remote shards also what they
    hold comes from there. Any number of processes may hold a copy; each opens its own files.

    Args:
        urls: folders, globs, brace ranges, paths or URLs; see `resolve_shards`.
        limits: parts of more bytes are not read.

    Raises:
        UsageError: a shard is missing, or there is no sample at all.
    """

    def __init__(self, urls: str | Sequence[str], *, limits: MediaLimits | None = None) -> None:
        self.paths = resolve_shards(urls)
        self.limits = limits or MediaLimits()
        self.report = SkipReport()
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self.index = _read_indices(self.paths)
        self.counts = [self.index[path]["num_samples"] if path in self.index else self._scan(path) for path in self.paths]
        self._first = [0]
        for count in self.counts:
            self._first.append(self._first[-1] + count)
        if not len(self):
            causes = self.report.summary() or f"{counted(len(self.paths), 'shard')} without a sample"
            raise UsageError(
                f"the shards {shown(repr(urls))} were given",
                f"they hold no readable sample: {causes}",
                "pack them again with `moviegen data pack`",
            )

    def __len__(self) -> int:
        return self._first[-1]

    def __getitem__(self, number: int) -> Sample:
        shard, position = self.locate(number)
        opened = self._opened(shard)
        contents = opened.contents
        if position >= len(contents.keys):
            raise SampleError("the shard holds fewer samples than its index says", f"{self.paths[shard]}: {len(contents.keys)}")
        return Sample(str(self.paths[shard]), contents.keys[position], contents.members[position], opened.file, self.limits)

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(self.index[path]["num_bytes"] if path in self.index else size_of(path) for path in self.paths)

    def shards(self) -> Iterator[tuple[Place, int]]:
        """The shards, and how many samples each of them holds."""
        return zip(self.paths, self.counts, strict=True)

    def locate(self, number: int) -> tuple[int, int]:
        """The shard of a sample number, and its position there."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        shard = bisect.bisect_right(self._first, number) - 1
        return shard, number - self._first[shard]

    def name(self, number: int) -> tuple[str, str]:
        """Shard and key of a sample, or its position where the key cannot be read."""
        shard, position = self.locate(number)
        try:
            keys = self._opened(shard).contents.keys
        except SampleError:
            keys = []
        return str(self.paths[shard]), keys[position] if position < len(keys) else f"sample {position}"

    def _scan(self, path: Place) -> int:
        try:
            contents = scan_shard(path)
        except SampleError as error:
            raise UsageError(f"the shard {path} was given", str(error), "correct the address, or the rights to read it") from error
        for problem in contents.problems:
            self.report.add(problem)
        return len(contents.keys)

    def _opened(self, shard: int) -> "_OpenShard":
        if shard not in self._open:
            self._open[shard] = _OpenShard(self.paths[shard], self.index.get(self.paths[shard]))
            if len(self._open) > _MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}


def _read_indices(paths: Sequence[Place]) -> dict[Place, dict[str, Any]]:
    """What the writers' indices say of those shards that are still the ones they speak of."""
    entries: dict[Place, dict[str, Any]] = {}
    for index in _find_indices(paths):
        try:
            content = index.read() if isinstance(index, RemotePath) else _read_local(index)
        except SampleError:  # a remote set without an index, or one that may not be read
            continue
        try:
            shards = json.loads(content)["shards"]
            entries.update({index.parent / str(shard["file"]): _slim(index, shard) for shard in shards if _unchanged(index.parent, shard)})
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return {path: entries[path] for path in paths if path in entries}


def _read_local(path: Path) -> bytes:
    with told(path):
        return path.read_bytes()


def _slim(index: Place, shard: Mapping[str, Any]) -> dict[str, Any]:
    """An index's entry as it is kept: where parts lie is many objects a sample, of local shards is not needed, and as a text is small."""
    kept = {name: value for name, value in shard.items() if name != "members"}
    if isinstance(index, RemotePath) and "members" in shard:
        kept["members"] = json.dumps(shard["members"], separators=(",", ":"))
    return kept


def _find_indices(paths: Sequence[Place]) -> list[Place]:
    """Indices beside shards; those of remote ones by the names that `ShardWriter` gives, since not every server lists its files."""
    folders = {path.parent for path in paths if isinstance(path, Path)}
    remote = {(path.parent, match[1]) for path in paths if isinstance(path, RemotePath) and (match := _NUMBERED.fullmatch(path.name))}
    found: list[Place] = [index for folder in folders for index in folder.glob("*.index.json") if index.is_file()]
    return found + [folder / f"{prefix}.index.json" for folder, prefix in sorted(remote, key=str)]


def _unchanged(folder: Place, shard: Mapping[str, Any]) -> bool:
    if any(not isinstance(shard[name], int) or shard[name] < 0 for name in ("num_samples", "num_bytes")):
        return False
    if isinstance(folder, RemotePath):
        return True  # a request for each; the size is compared when the shard is opened
    path = folder / str(shard["file"])
    return path.is_file() and path.stat().st_size == shard["num_bytes"]
