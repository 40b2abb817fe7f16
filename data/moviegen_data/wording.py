"""Counts in sentences for people."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, e.g. `1 shard`, `2 shards`, `2 batches`.

    Args:
        number: how many.
        noun: what one is called.
        plural: what several are called; the noun with an s unless given.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
