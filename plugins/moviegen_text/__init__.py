"""Text conditioners of Movie Gen Video, 3.1.4 and A.1, as a plugin."""

from collections.abc import Iterable
from typing import Any

from moviegen_core import Component, hookimpl

_PUBLIC = {
    "ByT5Conditioner": "t5",
    "ByteConditioner": "embedded",
    "HashedWordConditioner": "embedded",
    "MetaClipConditioner": "metaclip",
    "T5Conditioner": "t5",
    "TextConditioner": "conditioner",
    "TextEncoding": "encoding",
    "extend_positions": "metaclip",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


@hookimpl
def moviegen_components() -> Iterable[Component]:
    """The conditioners, by name."""
    yield Component("conditioner", "moviegen_text.T5Conditioner", "the prompt through a frozen UL2, T5 or UMT5 encoder (3.1.4)")
    yield Component("conditioner", "moviegen_text.ByT5Conditioner", "the quoted visual text through a frozen byte-level ByT5 (3.1.4, A.1)")
    yield Component("conditioner", "moviegen_text.MetaClipConditioner", "the prompt through a long-prompt CLIP text encoder (3.1.4, A.1)")
    yield Component("conditioner", "moviegen_text.HashedWordConditioner", "words as hashed byte n-grams, trained along; needs no download")
    yield Component("model", "moviegen_text.TextEncoding", "frozen text encoders alone, for caching what they make of captions")
    yield Component("conditioner", "moviegen_text.ByteConditioner", "single bytes, trained along; needs no download")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
