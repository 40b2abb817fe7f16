"""What a tar holds, by its headers or by the index that its writer left. Nothing is extracted, and no name may leave its folder."""

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from moviegen_data.faults import Skip, SourceError
from moviegen_data.local_files import open_local, told
from moviegen_data.storage import Place, RemotePath, patiently, size_of
from moviegen_data.wording import counted


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


def scan_shard(path: str | Place) -> ShardContents:
    """Read a tar's headers. Links, devices and names that leave the folder are refused; a cut tar keeps the samples before the cut.

    Raises:
        SampleError: the shard is not there, or may not be read.
        SourceError: the file system or the store fails.
    """
    if isinstance(path, RemotePath):
        return patiently(str(path), lambda: _scan(path))
    with told(Path(path)):
        return _scan(Path(path))


def _scan(path: Place) -> ShardContents:
    contents = ShardContents()
    size = size_of(path)

    def refuse(name: str, cause: str, detail: str = "") -> None:
        contents.problems.append(Skip(str(path), name, cause, detail))

    try:
        with path.open() if isinstance(path, RemotePath) else open_local(path) as file, _opened(file, size) as tar:
            for member in tar:
                if member.size < 0:
                    raise tarfile.ReadError(f"{member.name!r} claims {member.size} bytes")
                _place(member, size, contents, refuse)
                if tar.offset > size:  # tarfile would go there to see, and not every file system lets it
                    raise tarfile.ReadError("unexpected end of data")
    except SourceError:
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:  # what tarfile makes of headers that are none
        refuse("(shard)", "the shard cannot be read to its end", f"{error}; {counted(len(contents.keys), 'sample')} before that kept")
    return contents


class _Bounded:
    """A file of which nobody takes memory for more than it holds, whatever the headers in it claim."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._read, self.seek, self.tell = file.read, file.seek, file.tell
        self._most = max(size, tarfile.RECORDSIZE)  # an empty file is read too, to see whether the system can

    def read(self, size: int) -> bytes:
        """Some bytes."""
        return self._read(min(size, self._most))


def _opened(file: BinaryIO, size: int) -> tarfile.TarFile:
    bounded: Any = _Bounded(file, size)  # has what reading a tar takes
    return tarfile.open(fileobj=bounded, mode="r:")


def indexed_contents(entry: Mapping[str, Any]) -> ShardContents | None:
    """What the index says a shard holds; None where it does not say, or says what cannot be."""
    contents = ShardContents()
    try:
        told = entry["members"]
        for key, parts in json.loads(told) if isinstance(told, str) else told:
            members = {str(kind): Member(int(offset), int(size)) for kind, (offset, size) in parts.items()}
            ends = [member.offset + member.size for member in members.values() if member.offset >= 0 and member.size >= 0]
            if leaves_folder(key) or len(ends) < len(members) or max(ends, default=0) > entry["num_bytes"]:
                return None
            contents.keys.append(key)
            contents.members.append(members)
    except (KeyError, TypeError, ValueError):
        return None
    return contents if len(contents.keys) == entry["num_samples"] else None


def leaves_folder(name: str) -> bool:
    """True for names that mean something outside the folder that they are in."""
    return name.startswith("/") or "\\" in name or ".." in name.split("/")


def _place(member: tarfile.TarInfo, size: int, contents: ShardContents, refuse) -> None:
    if member.isdir():
        return
    name = member.name
    folders, _, base = name.rpartition("/")
    if name != name.encode(errors="replace").decode():
        return refuse(repr(name), "the member's name is no UTF-8")
    if leaves_folder(name):
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
