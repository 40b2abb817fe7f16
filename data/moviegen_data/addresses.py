"""Which shards an address means: folders, globs, brace ranges, paths and URLs."""

import os
from collections.abc import Sequence
from pathlib import Path

import braceexpand

from moviegen_core.errors import UsageError, what_exists
from moviegen_data.storage import Place, RemotePath, file_system, is_url, list_remote


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
        url = url.removeprefix("file://")
    if is_url(url):
        return _resolve_remote(url)
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


def _resolve_remote(url: str) -> list[RemotePath]:
    if url.endswith(".tar") and not any(sign in url for sign in "*?["):
        file_system(url)  # tells what is wrong with the protocol, before anything else is done
        return [RemotePath(path) for path in braceexpand.braceexpand(url)]
    found = list_remote(url)
    if not found:
        raise UsageError(
            f"the shards {url!r} were given",
            "no *.tar is listed there",
            "correct the address; servers without lists need the shards' names",
        )
    return found


def _holds(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} does not exist"
    names = sorted(path.name for path in folder.iterdir())
    return "it is empty" if not names else ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
