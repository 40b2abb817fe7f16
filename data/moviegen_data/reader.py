"""Reading shards: which files an address means, what a tar holds, and the bytes of any sample. Nothing is extracted or executed."""

import bisect
import json
import os
import tarfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import braceexpand

from moviegen_core.errors import UsageError, what_exists
from moviegen_data.faults import SampleError, Skip, SkipReport
from moviegen_data.shards import SCHEMA_VERSION

_MAX_OPEN_SHARDS = 32


def resolve_shards(urls: str | Sequence[str]) -> list[Path]:
    """List the shards that folders, globs, brace ranges (`shard-{000000..000003}.tar`) and paths mean, in order, each once.

    Raises:
        UsageError: a shard is missing, a folder or pattern holds none, or an address is not of this file system.
    """
    urls = [urls] if isinstance(urls, (str, Path)) else list(urls)
    if not urls:
        raise UsageError(
            "no shards were given", "shards are tar files", "give a folder, a pattern such as 'shards/*.tar', or a list of paths"
        )
    return list(dict.fromkeys(path for url in urls for path in _resolve(os.path.expanduser(str(url)))))


def _resolve(url: str) -> list[Path]:
    scheme = url.partition(":")[0]
    if "://" in url or scheme == "pipe":
        raise UsageError(
            f"the shards {url!r} were given", f"{scheme}: addresses are not read", "mount or copy the shards and give their local path"
        )
    if Path(url).is_dir():
        found = sorted(Path(url).glob("*.tar"))
        if not found:
            raise UsageError(
                f"the folder {url} was given for shards",
                f"it holds no *.tar ({_holds(Path(url))})",
                "pack media into it with `moviegen data pack`",
            )
        return found
    if any(sign in url for sign in "*?["):
        base = Path(url.partition("*")[0].partition("?")[0].partition("[")[0])
        folder = base if base.is_dir() else base.parent
        found = sorted(Path("/").glob(url[1:]) if url.startswith("/") else Path().glob(url))
        if not found:
            raise UsageError(
                f"the pattern {url!r} was given for shards", f"nothing matches it; {folder} holds {_holds(folder)}", "correct the pattern"
            )
        return found
    paths = [Path(path) for path in braceexpand.braceexpand(url)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = [other.name for other in missing[0].parent.glob("*.tar")] if missing[0].parent.is_dir() else []
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"the shards {url!r} were given",
            f"{missing[0]}{more} of {len(paths)} is missing; in {missing[0].parent} {what_exists(missing[0].name, names, noun='shard')}",
            "correct the path, or leave missing shards out by a pattern such as '*.tar'",
        )
    return paths


def _holds(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} does not exist"
    names = sorted(path.name for path in folder.iterdir())
    return "it is empty" if not names else ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@dataclass(frozen=True)
class Member:
    """Where one part of a sample lies in its tar.

    Args:
        offset: first byte.
        size: number of bytes.
    """

    offset: int
    size: int


@dataclass
class ShardContents:
    """What a tar holds.

    Args:
        keys: the samples' keys in order.
        members: for each sample its parts by extension.
        problems: members that were refused, and a cut end.
    """

    keys: list[str] = field(default_factory=list)
    members: list[dict[str, Member]] = field(default_factory=list)
    problems: list[Skip] = field(default_factory=list)


def scan_shard(path: str | Path) -> ShardContents:
    """Read a tar's headers. Links, devices and names that leave the folder are refused; a cut tar keeps the samples before the cut."""
    path = Path(path)
    contents = ShardContents()
    size = path.stat().st_size

    def refuse(name: str, cause: str, detail: str = "") -> None:
        contents.problems.append(Skip(str(path), name, cause, detail))

    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                _place(member, size, contents, refuse)
    except tarfile.ReadError as error:
        refuse("(shard)", "the shard cannot be read to its end", f"{error}; {len(contents.keys)} samples before that are kept")
    return contents


def _place(member: tarfile.TarInfo, size: int, contents: ShardContents, refuse) -> None:
    if member.isdir():
        return
    name = member.name
    folders, _, base = name.rpartition("/")
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        return refuse(name, "the member's path leaves its folder")
    if not member.isreg() or member.issparse():
        return refuse(name, "the member is a link, a device or another special file")
    stem, _, extension = base.partition(".")
    if not stem or not extension:
        return refuse(name, "the member's name is not KEY.KIND")
    key = f"{folders}/{stem}" if folders else stem
    if member.offset_data + member.size > size:
        if contents.keys and contents.keys[-1] == key:
            contents.keys.pop(), contents.members.pop()
        return refuse(name, "the shard is cut inside this member", f"{size - member.offset_data} of {member.size} bytes are there")
    if not contents.keys or contents.keys[-1] != key:
        contents.keys.append(key)
        contents.members.append({})
    parts = contents.members[-1]
    extension = extension.lower()
    if extension in parts:
        return refuse(name, "the member is there twice")
    parts[extension] = Member(member.offset_data, member.size)


class _OpenShard:
    """A shard's contents and its file, open as long as anything refers to it; reads name their place, so processes may share it."""

    def __init__(self, path: Path) -> None:
        self.contents = scan_shard(path)
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class Sample(Mapping[str, bytes]):
    """One sample of a shard: its parts' bytes by extension, read when asked for.

    Args:
        shard: the shard's path.
        key: the sample's key.
        members: where the parts lie.
        opened: the opened shard.
    """

    def __init__(self, shard: str, key: str, members: dict[str, Member], opened: "_OpenShard") -> None:
        self.shard = shard
        self.key = key
        self._members = members
        self._opened = opened
        self._json: dict[str, Any] | None = None

    def __getitem__(self, extension: str) -> bytes:
        member = self._members[extension]
        content = os.pread(self._opened.descriptor, member.size, member.offset)
        if len(content) != member.size:
            raise SampleError("the shard is cut inside this sample", f"{extension}: {len(content)} of {member.size} bytes")
        return content

    def buffer(self, extension: str) -> bytearray:
        """A part as writable memory, which tensors can view without a copy."""
        member = self._members[extension]
        content = bytearray(member.size)
        if os.preadv(self._opened.descriptor, [content], member.offset) != member.size:
            raise SampleError("the shard is cut inside this sample", f"{extension}: fewer than {member.size} bytes")
        return content

    def head(self, extension: str, num_bytes: int) -> bytes:
        """The first bytes of a part."""
        member = self._members[extension]
        return os.pread(self._opened.descriptor, min(num_bytes, member.size), member.offset)

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
        if "json" not in self:
            return {"caption": self["txt"].decode("utf-8", "replace").strip()} if "txt" in self else {}
        try:
            record = json.loads(self["json"])
        except ValueError as error:
            raise SampleError("the json cannot be read", str(error)) from error
        if not isinstance(record, dict):
            raise SampleError("the json cannot be read", f"it is a {type(record).__name__}, not a mapping")
        if not isinstance(record.get("schema", 1), int) or record.get("schema", 1) > SCHEMA_VERSION:
            raise SampleError("the json has an unknown schema", f"version {record['schema']}, this program reads up to {SCHEMA_VERSION}")
        return record


class ShardReader:
    """Random access to the samples of many shards, numbered through in the order of the shards.

    Counts come from the index that `ShardWriter` leaves beside its shards, or from the tar's own headers. Any number of processes may hold
    a copy; each opens its own files.

    Args:
        urls: folders, globs, brace ranges or paths; see `resolve_shards`.

    Raises:
        UsageError: a shard is missing, or there is no sample at all.
    """

    def __init__(self, urls: str | Sequence[str]) -> None:
        self.paths = resolve_shards(urls)
        self.report = SkipReport()
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self.index = _read_indices(self.paths)
        self.counts = [self.index[path]["num_samples"] if path in self.index else self._scan(path) for path in self.paths]
        self._first = [0]
        for count in self.counts:
            self._first.append(self._first[-1] + count)
        if not len(self):
            causes = self.report.summary() or f"{len(self.paths)} shards without a sample"
            raise UsageError(
                f"the shards {urls!r} were given", f"they hold no readable sample: {causes}", "pack them again with `moviegen data pack`"
            )

    def __len__(self) -> int:
        return self._first[-1]

    def __getitem__(self, number: int) -> Sample:
        shard, position = self.locate(number)
        opened = self._opened(shard)
        contents = opened.contents
        if position >= len(contents.keys):
            raise SampleError("the shard holds fewer samples than its index says", f"{self.paths[shard]}: {len(contents.keys)}")
        return Sample(str(self.paths[shard]), contents.keys[position], contents.members[position], opened)

    def locate(self, number: int) -> tuple[int, int]:
        """The shard of a sample number, and its position there."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        shard = bisect.bisect_right(self._first, number) - 1
        return shard, number - self._first[shard]

    def name(self, number: int) -> tuple[str, str]:
        """Shard and key of a sample, or its position where the key cannot be read."""
        shard, position = self.locate(number)
        keys = self._opened(shard).contents.keys
        return str(self.paths[shard]), keys[position] if position < len(keys) else f"sample {position}"

    def _scan(self, path: Path) -> int:
        contents = scan_shard(path)
        for problem in contents.problems:
            self.report.add(problem)
        return len(contents.keys)

    def _opened(self, shard: int) -> "_OpenShard":
        if shard not in self._open:
            self._open[shard] = _OpenShard(self.paths[shard])
            if len(self._open) > _MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}


def _read_indices(paths: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """What the writers' indices say of those shards that are still the ones they speak of."""
    entries: dict[Path, dict[str, Any]] = {}
    for folder in {path.parent for path in paths}:
        for index in folder.glob("*.index.json"):
            try:
                shards = json.loads(index.read_text(encoding="utf-8"))["shards"]
                entries.update({folder / shard["file"]: shard for shard in shards if _unchanged(folder, shard)})
            except (ValueError, KeyError, TypeError):
                continue
    return entries


def _unchanged(folder: Path, shard: Mapping[str, Any]) -> bool:
    path = folder / shard["file"]
    return path.is_file() and path.stat().st_size == shard["num_bytes"] and isinstance(shard["num_samples"], int)
