"""Shards that lie elsewhere: addresses that fsspec reaches (s3, gs, http, memory, ...), read by ranges and never downloaded whole."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
import numpy as np

from moviegen_core.errors import UsageError, what_exists
from moviegen_data.faults import SampleError, SourceError
from moviegen_data.local_files import told
from moviegen_data.urls import shown, split_query

# Object stores now and then refuse a request that they answer a second later.
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
_HEADER_BLOCK = 1 << 16
_NOT_FOR_US = (401, 403, 404, 410)  # of HTTP: no later answer will be another
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RemotePath:
    """The address of an object, in as much like a path as readers of shards need. As a text it shows no credentials.

    Args:
        url: the whole address, e.g. `s3://bucket/shards/clips-000000.tar`; a query, as signed addresses have one, stays with it.
    """

    url: str

    @property
    def name(self) -> str:
        """What follows the last slash, without the query."""
        return split_query(self.url)[0].rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        """What comes before the last slash."""
        address, query = split_query(self.url)
        return RemotePath(address.rpartition("/")[0] + query)

    def __truediv__(self, name: str) -> "RemotePath":
        address, query = split_query(self.url)
        return RemotePath(f"{address.rstrip('/')}/{name}{query}")

    def __str__(self) -> str:
        return shown(self.url)

    def size(self) -> int:
        """The object's bytes."""
        fs, path = file_system(self.url)
        return int(patiently(str(self), lambda: fs.info(path)["size"]))

    def read(self) -> bytes:
        """The whole object."""
        fs, path = file_system(self.url)
        return patiently(str(self), lambda: fs.cat_file(path))

    def open(self) -> BinaryIO:
        """The object as a file that can be sought, for reading headers."""
        fs, path = file_system(self.url)
        return patiently(str(self), lambda: fs.open(path, "rb", block_size=_HEADER_BLOCK))


Place = Path | RemotePath


class RemoteFile:
    """Ranged reads of one object; forked processes connect anew.

    Args:
        path: its address.
    """

    def __init__(self, path: RemotePath) -> None:
        self.path = path
        self._process = -1

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of a range.

        Raises:
            SampleError: the object is not there, may not be read, or ends before.
            SourceError: the store does not answer, or ignores ranges.
        """
        if self._process != os.getpid():
            self._fs, self._at = file_system(self.path.url)
            self._process = os.getpid()
        content = patiently(str(self.path), lambda: self._fs.cat_file(self._at, start=offset, end=offset + size)) if size else b""
        if len(content) > size:
            raise SourceError(
                f"{self.path} was asked for {size} bytes; its server sent {len(content)}, so it takes no ranges; "
                f"give simplecache::{self.path.parent} to copy each shard once, or use another server"
            )
        return content

    def read_into(self, offset: int, target: np.ndarray) -> int:
        """Fill an array of bytes from some byte of the object on; return how many there were."""
        content = self.read(offset, len(target))
        target[: len(content)] = np.frombuffer(content, dtype=np.uint8)
        return len(content)


def file_system(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it; credentials come from the protocol's own environment or fsspec's config files.

    Raises:
        UsageError: the protocol is unknown, or its package is not installed.
        SourceError: the store cannot be reached.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UsageError(
            f"{shown(url)} was given", f"the package that reads this protocol is not installed ({error})", "pip install 'moviegen[remote]'"
        ) from error
    except ValueError as error:
        protocol = url.partition(":")[0]
        known = what_exists(protocol, fsspec.available_protocols(), noun="protocol")
        raise UsageError(
            f"{shown(url)} was given", f"{shown(str(error))}; {known}", "correct the address, or mount or copy the shards"
        ) from error
    except Exception as error:  # some connect at once, and raise what they like
        raise SourceError(
            f"{shown(url)} was asked for; its store cannot be reached ({_kind(error)}); see to the address, the rights and the connection, "
            "then run the same command again"
        ) from None


def list_remote(url: str) -> list[RemotePath]:
    """The shards in a remote folder, or those that a pattern matches; in order."""
    caches, chained, address = url.rpartition("::")  # `simplecache::s3://...` reads through a cache
    address, query = split_query(address)
    fs, path = file_system(address)
    pattern = path if any(sign in path for sign in "*?[") else f"{path.rstrip('/')}/*.tar"
    try:
        found = sorted(patiently(shown(url), lambda: fs.glob(pattern)))
    except SampleError:
        found = []
    # What the file system calls a path may lack the host and the user of the address.
    base = address.rstrip("/").removesuffix(path.rstrip("/")) if address.rstrip("/").endswith(path.rstrip("/")) else None
    names = [fs.unstrip_protocol(name) if base is None else base + name for name in found]
    return [RemotePath(caches + chained + name + query) for name in names]


def size_of(place: Place) -> int:
    """Bytes of a shard."""
    if isinstance(place, RemotePath):
        return place.size()
    with told(place):
        return place.stat().st_size


def stamp_of(place: Place) -> str:
    """A text that changes when a shard is written anew, as far as its file system tells."""
    if isinstance(place, RemotePath):
        fs, path = file_system(place.url)
        return str(patiently(str(place), lambda: fs.ukey(path)))
    with told(place):
        found = place.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def patiently(what: str, ask: Callable[[], Answer]) -> Answer:
    """Ask a store, again after a pause where it fails for reasons that pass.

    Raises:
        SampleError: the object is not there, or may not be read.
        SourceError: there is still no answer after some seconds.
    """
    for pause_s in (*_PAUSES_S, None):
        try:
            return ask()
        except (SampleError, SourceError, UsageError):
            raise
        except (FileNotFoundError, PermissionError) as error:
            raise SampleError("cannot be fetched", f"{what}: {_kind(error)}") from None
        except Exception as error:  # each protocol's package raises what it likes
            if getattr(error, "status", None) in _NOT_FOR_US:
                raise SampleError("cannot be fetched", f"{what}: {_kind(error)}") from None
            if pause_s is None:
                raise SourceError(
                    f"{what} was asked for; it did not answer in {len(_PAUSES_S) + 1} attempts ({_kind(error)}); "
                    "see to the connection, then run the same command again: training goes on from its last checkpoint"
                ) from None  # its own text may hold credentials
            time.sleep(pause_s)
    raise AssertionError("unreachable")


def _kind(error: Exception) -> str:
    return f"{type(error).__name__}: {shown(str(error))}"
