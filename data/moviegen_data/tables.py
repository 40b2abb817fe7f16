"""Tables that people write: csv with a header, json, a json a line, or a text a line.

Lines end where a keyboard ends them. Python's `splitlines` also breaks at signs that captions of models hold now and then, as U+2028.
"""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moviegen_core.errors import UsageError


def read_table(path: Path, *, what: str) -> Any:
    """The rows of a txt, csv or jsonl file, without empty ones, or the list or mapping of a json file.

    Args:
        path: the file; its ending says what it is.
        what: what its rows are, in the plural, for the errors.

    Raises:
        UsageError: it cannot be read, or is not what its ending says.
    """
    kind = path.suffix.lower()[1:]
    try:
        text = path.read_text(encoding="utf-8-sig")
        if kind == "csv":
            return _csv_rows(text)
        if kind == "json":
            return _listed(json.loads(text))
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        return [json.loads(line) for line in lines] if kind == "jsonl" else lines
    except UnicodeDecodeError as error:
        exists = f"they are not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        raise UsageError(f"the {what} {path} were given", exists, "save the file as UTF-8") from error
    except OSError as error:
        exists = f"they cannot be read: {error.strerror}"
        raise UsageError(f"the {what} {path} were given", exists, "see to the file and its rights") from error
    except (ValueError, RecursionError, TypeError, csv.Error) as error:  # numbers of thousands of digits are ValueErrors
        raise UsageError(f"the {what} {path} were given", f"they are not {kind}: {error}", "correct the file") from error


def _listed(content: Any) -> Any:
    if not isinstance(content, (list, Mapping)):
        raise TypeError(f"{type(content).__name__}, where a list or a mapping is wanted")
    return content


def _csv_rows(text: str) -> list[dict[str, Any]]:
    rows, reader = [], csv.DictReader(io.StringIO(text))
    for row in reader:
        if any(cell.strip() for cell in row.pop(reader.restkey, None) or ()):
            raise csv.Error(f"line {reader.line_num} has more cells than the header; texts with commas are written in quotes")
        rows.append(row)
    return rows
