"""Addresses as texts: which are URLs, and what of them may be shown."""

import os
import re

import fsspec

_USER = re.compile(r"(://)[^/\s'\"]*@")
_SIGNATURE = re.compile(r"(https?://[^?\s'\"]*)\?[^\s'\",)\]]*")


def is_url(address: str) -> bool:
    """True for what is not a path of this machine; paths may hold `::` too, where fsspec chains protocols: `simplecache::s3://...`."""
    if "://" in address:
        return True
    first, chained, _ = address.partition("::")
    return bool(chained) and first in fsspec.available_protocols() and not os.path.exists(address)


def split_query(url: str) -> tuple[str, str]:
    """An address and its query, `?` included; only web addresses have one, elsewhere `?` stands for any letter."""
    if url.rpartition("::")[2].startswith(("http://", "https://")) and "?" in url:
        address, mark, query = url.partition("?")
        return address, mark + query
    return url, ""


def shown(text: object) -> str:
    """Addresses, or a message about them, as they may be told and logged: without passwords, keys and signatures."""
    told = text if isinstance(text, str) else repr(text)
    return _SIGNATURE.sub(r"\1?...", _USER.sub(r"\1", told))
