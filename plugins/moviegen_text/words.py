"""Text to words, and words to hashed byte n-grams: the same numbers on every machine, without a vocabulary file."""

import re
from functools import lru_cache
from zlib import crc32

# A run of letters and digits, one Chinese or Japanese character (written without spaces), or one mark.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")

START = b"\x00"
"""The token that begins every text, so that an empty one has a token too."""


def split_words(text: str) -> list[str]:
    """Split into words, numbers and punctuation marks."""
    return _WORD.findall(text)


@lru_cache(maxsize=2**16)
def hash_word(word: str, num_buckets: int) -> tuple[int, ...]:
    """Buckets of a word's features: itself with its case, and the n-grams of 3 to 5 bytes of its lower case with its borders."""
    letters = b"<" + word.lower().encode(errors="surrogatepass") + b">"
    grams = {letters[start : start + size] for size in (3, 4, 5) for start in range(len(letters) - size + 1)}
    features = [b"=" + word.encode(errors="surrogatepass"), *sorted(grams)]
    return tuple(crc32(feature) % num_buckets for feature in features)
