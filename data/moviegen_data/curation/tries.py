"""Who was at what when it was killed, so that a medium that kills workers is left out and ends no run.

A crash inside a codec, or a lack of memory, takes the worker's process with it, and no error is left to catch. So each worker writes down
what it begins, in one file for each part; the file goes away with the end of the part. What is found when a part is begun again tells where
the earlier workers of the same run were when they died.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MOST_DEATHS = 2
KILLED = "killed its worker"
DIED = f"{MOST_DEATHS} processes died at it; a crash of a codec, or want of memory"


@dataclass
class Watch:
    """One worker at one part.

    Args:
        log: open file of the part, unbuffered; None where nothing is written down.
        deaths: how many workers of this run died at a medium, by its source, and at which stage the last one did.
    """

    log: int | None = None
    deaths: dict[str, tuple[int, str]] = field(default_factory=dict)

    def begin(self, source: str, stage: str) -> None:
        """Write down what is begun."""
        if self.log is not None:
            os.write(self.log, (json.dumps([stage, source]) + "\n").encode())

    @property
    def is_first(self) -> bool:
        """Whether no worker of this run has died here."""
        return not self.deaths

    def killer(self, source: str) -> str | None:
        """The stage at which a medium killed so many workers that it is left out; None where it did not."""
        times, stage = self.deaths.get(source, (0, ""))
        return stage if times >= MOST_DEATHS else None


@dataclass(frozen=True)
class Tries:
    """The files in which workers write down what they begin.

    Args:
        folder: where they lie; all machines see it.
        run: a name that no other run has.
    """

    folder: Path
    run: str

    @contextmanager
    def watch(self, name: str) -> Iterator[Watch]:
        """Watch a worker at a part; a block that ends, well or in an error, leaves nothing behind.

        Args:
            name: the part's name.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        deaths = self._deaths(path)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(log, f"{self.run}\n".encode())
            yield Watch(log, deaths)
        finally:
            os.close(log)
            path.unlink(missing_ok=True)

    def left(self) -> list[tuple[str, str]]:
        """The stages and sources that earlier runs were at when they were killed."""
        logs = [_lines(path) for path in sorted(self.folder.iterdir())] if self.folder.is_dir() else []
        return [found for lines in logs if lines and (found := _begun(lines[-1]))]

    def _deaths(self, path: Path) -> dict[str, tuple[int, str]]:
        times, stages = Counter[str](), {}
        last: tuple[str, str] | None = None
        run = ""
        for line in [*(_lines(path) if path.is_file() else ()), ""]:
            if line.startswith("["):
                last = _begun(line) or last
                continue
            if last is not None and run == self.run:  # of other runs nobody knows whether the user ended them
                stage, source = last
                times[source] += 1
                stages[source] = stage
            last, run = None, line
        return {source: (count, stages[source]) for source, count in times.items()}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _begun(line: str) -> tuple[str, str] | None:
    """Stage and source of a line; None where it is a run's name, or a full disk or a lost machine left half of it."""
    try:
        stage, source = json.loads(line)
    except (ValueError, TypeError):
        return None
    return stage, source
