"""Which shards an address means: folders, globs, brace ranges, paths and URLs."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

import braceexpand

from moviegen_core.errors import UsageError, what_exists
from moviegen_data.storage import Place, RemotePath, file_system, list_remote
from moviegen_data.urls import is_url, shown, split_query


def resolve_shards(urls: str | Sequence[str]) -> list[Place]:
    """List the shards that folders, globs, brace ranges (`shard-{000000..000003}.tar`), paths and URLs mean, in order, each once.

    Raises:
        UsageError: a shard is missing, a folder or pattern holds none, or the protocol of a URL cannot be read.
    """
    urls = [urls] if isinstance(urls, (str, Path)) else list(urls)
    if not urls:
        raise UsageError(
            "no shards were given", "shards are tar files", "give a folder, a pattern such as 'shards/*.tar', or a list of paths"
        )
    return list(dict.fromkeys(path for url in urls for path in _resolve(os.path.expanduser(str(url)))))


def _resolve(url: str) -> Sequence[Place]:
    if url.startswith("pipe:"):
        raise UsageError(
            f"the shards {url!r} were given", "pipe: addresses are not read", "mount or copy the shards and give their path, or their URL"
        )
    if url.startswith("file://"):
        path = url.removeprefix("file://").removeprefix("localhost")
        url = path if Path(path).exists() else unquote(path)  # %20 stands for a space, unless the file is really called so
    if is_url(url):
        return _resolve_remote(url)
    if Path(url).is_dir():
        found = _files(Path(url).glob("*.tar"))
        if not found:
            raise UsageError(
                f"the folder {url} was given for shards",
                f"it holds no *.tar ({_holds(Path(url))})",
                "pack media into it with `moviegen data pack`",
            )
        return found
    if Path(url).is_file():  # whatever signs its name holds
        return [Path(url)]
    found = [path for name in _expanded(url) for path in (_matching(name) if any(sign in name for sign in "*?[") else [Path(name)])]
    _refuse_missing(url, [path for path in found if not path.is_file()], len(found))
    return found


def _expanded(url: str) -> list[str]:
    """The names that braces stand for."""
    try:
        return list(braceexpand.braceexpand(url))
    except ValueError as error:
        raise UsageError(f"the shards {shown(url)!r} were given", f"their braces cannot be read ({error})", "close each brace") from error


def _matching(pattern: str) -> list[Path]:
    base = Path(pattern.partition("*")[0].partition("?")[0].partition("[")[0])
    folder = base if base.is_dir() else base.parent
    found = _files(Path("/").glob(pattern.lstrip("/")) if pattern.startswith("/") else Path().glob(pattern))
    if not found:
        raise UsageError(
            f"the pattern {pattern!r} was given for shards", f"nothing matches it; {folder} holds {_holds(folder)}", "correct the pattern"
        )
    return found


def _files(paths: Iterable[Path]) -> list[Path]:
    """The files among them, in order, but for hidden ones, which some systems put beside others."""
    return sorted(path for path in paths if path.is_file() and not path.name.startswith("."))


def _refuse_missing(url: str, missing: Sequence[Path], count: int) -> None:
    if missing:
        names = [other.name for other in missing[0].parent.glob("*.tar")] if missing[0].parent.is_dir() else []
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        of = f" of {count}" if count > 1 else ""
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(
            f"the shards {url!r} were given",
            f"{missing[0]}{more}{of} {verb} missing; in {missing[0].parent} {what_exists(missing[0].name, names, noun='shard')}",
            "correct the path, or leave missing shards out by a pattern such as '*.tar'",
        )


def _resolve_remote(url: str) -> list[RemotePath]:
    address, query = split_query(url)
    found: list[RemotePath] = []
    for name in _expanded(address):
        if name.endswith(".tar") and not any(sign in name for sign in "*?["):
            file_system(name)  # tells what is wrong with the protocol, before anything else is done
            found.append(RemotePath(name + query))
        else:
            found += list_remote(name + query)
    if not found:
        raise UsageError(
            f"the shards {shown(url)!r} were given",
            "no *.tar is listed there",
            "correct the address; servers without lists need the shards' names",
        )
    return found


def _holds(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} does not exist"
    names = sorted(path.name for path in folder.iterdir())
    return "it is empty" if not names else ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
