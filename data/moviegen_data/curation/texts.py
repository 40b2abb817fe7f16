"""Lists of texts that stages look for: given as they are, in a file, or one of those that come with moviegen."""

from pathlib import Path

from moviegen_core.errors import UsageError, what_exists

_LISTS = Path(__file__).parent / "lists"


def read_texts(given: list[str] | str, *, name: str, stage: str) -> list[str]:
    """The texts, each once, in their order.

    Args:
        given: the texts; the path of a file with one a line, where `#` begins a comment; or the name of a list that comes with moviegen.
        name: the argument's name, for the error.
        stage: what asks, for the error.

    Raises:
        UsageError: there is no such file or list, it is no text, or it is empty.
    """
    lines = [line.partition("#")[0] for line in _lines(given, name, stage)] if isinstance(given, str) else given
    texts = list(dict.fromkeys(text for line in lines if (text := line.strip())))
    if not texts:
        raise UsageError(f"{name}={given!r} was given to {stage}", "there is no text in it", "give one or more")
    return texts


def _lines(given: str, name: str, stage: str) -> list[str]:
    known = sorted(file.stem for file in _LISTS.glob("*.txt"))
    try:
        path = _LISTS / f"{given}.txt" if given in known else Path(given).expanduser()
        return path.read_text(encoding="utf-8-sig").split("\n")  # no more ends of lines than in other tables, see `tables`
    except FileNotFoundError:
        exists = f"there is no such file, and {what_exists(given, known, noun='list')}"
    except (OSError, ValueError, RuntimeError) as error:  # also of a name with a zero byte, and of `~nobody`
        exists = f"it cannot be read as text ({error})"
    raise UsageError(f"{name}={given!r} was given to {stage}", exists, "give texts, a file of them, or a list's name")
