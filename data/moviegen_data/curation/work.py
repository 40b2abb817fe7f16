"""The folder of a run: which media there are, and what came of each part. What is there is whole, and need not be done again."""

import fcntl
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from moviegen_core.errors import UsageError
from moviegen_core.files import is_partial, write_bytes
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.engine import Tally
from moviegen_data.curation.fingerprints import fingerprint_beside
from moviegen_data.curation.pipeline import Step
from moviegen_data.curation.tries import KILLED

NAME = ".curation"
_GONE = ".gone-"
_ROOT = "folder.json"


@dataclass(frozen=True)
class Work:
    """The folder of a run.

    Args:
        folder: where results of parts are kept.
        root: the folder of media.
        part_size: media in a part, about.
        run: a name that no other run has.
    """

    folder: Path
    root: Path
    part_size: int
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def begin(self, media: Sequence[tuple[str, Path]]) -> "Results":
        """Write down which media there are, each as one clip, in parts. A part's name tells when one of it is changed, added or removed.

        Where a part ends is decided by the media's keys alone, so that a medium that comes or goes changes one part or two. The folder of
        media is written down too, for `require_same_media`.

        Args:
            media: keys and paths, sorted by key.
        """
        if _folder_of(self.folder) != (root := str(self.root.resolve())):
            write_bytes(self.folder / _ROOT, json.dumps({"folder": root}).encode())
        parts, names = _cut(media, self.part_size), []
        for part in parts:
            stats = [path.stat() for _, path in part]
            told = [[key, self._source(path), stat.st_size, stat.st_mtime_ns] for (key, path), stat in zip(part, stats, strict=True)]
            names.append(_hash(json.dumps(told)))
        found = Results(self.folder / "media", tuple(names), tuple(names))
        for number in found.missing():
            found.write(number, [Clip(key, self._source(path)) for key, path in parts[number]])
        return found

    def results(self, step: Step, before: "Results") -> "Results":
        """What the step left, or will leave, of parts.

        Args:
            step: the step.
            before: what it begins with.
        """
        names = before.contents()
        for suffix in sorted({named.stage.beside for named in step.stages if named.stage.beside}):
            names = tuple(_hash(name, self._beside(before, number, suffix)) for number, name in enumerate(names))
        if step.compares:  # each part depends on all
            everything = _hash(*names)
            names = tuple(_hash(everything, name) for name in names)
        return Results(self.folder / f"step-{step.number:02d}-{step.digest}", names, before.origins)

    def _beside(self, results: "Results", number: int, suffix: str) -> str:
        """What changes with the files beside a part's media."""
        return fingerprint_beside(sorted({self.root / clip.source for clip in results.read(number)}), suffix)

    def forget_others(self, keep: Sequence["Results"], shards: Path) -> None:
        """Remove results of other media or settings.

        Args:
            keep: results that stay.
            shards: the shards' own folder, which stays.
        """
        kept = {results.folder: results for results in keep}
        for path in list(self.folder.iterdir()):
            if path in kept:
                kept[path].forget_others()
            elif path != shards and path.name.startswith(("step-", "media", "shards-")):
                path.rename(self.folder / f"{_GONE}{uuid.uuid4().hex}")  # at once, so that no half of it is ever taken for a whole
        for path in [*self.folder.glob(f"{_GONE}*"), shards / "tries"]:
            shutil.rmtree(path, ignore_errors=True)  # what somebody still reads over a network goes the next time
        for path in _partial_files(self.folder):
            path.unlink()

    def _source(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Results:
    """Clips in parts, each a file that is there when and only when it is whole.

    Args:
        folder: where they are.
        names: the parts' names in their order: hashes of what each was made from, so that an equal part need not be made again.
        origins: names of the parts of media that they come from.
    """

    folder: Path
    names: tuple[str, ...]
    origins: tuple[str, ...]

    @property
    def num_parts(self) -> int:
        """How many there are when all is done."""
        return len(self.names)

    def contents(self) -> tuple[str, ...]:
        """A hash of each part's media and clips; all parts must be there."""
        return tuple(_hash(origin, self._lines(number)) for number, origin in enumerate(self.origins))

    def missing(self) -> list[int]:
        """The parts that are not done."""
        present = {path.name for path in self.folder.glob("part-*.jsonl")} if self.folder.is_dir() else set()
        return [number for number in range(self.num_parts) if self._path(number).name not in present]

    def forget_others(self) -> None:
        """Remove parts of other media."""
        shutil.rmtree(self.folder / "tries", ignore_errors=True)
        for path in _partial_files(self.folder):
            path.unlink()
        own = {self._path(number).name for number in range(self.num_parts)}
        for path in self.folder.glob("part-*.jsonl"):
            if path.name not in own:
                path.unlink()

    def forget_poor(self) -> None:
        """Remove parts whose media killed workers, so that they are tried again, with more memory perhaps."""
        for mark in self.folder.glob("*.poor"):
            mark.with_suffix(".jsonl").unlink(missing_ok=True)
            mark.unlink()

    def read(self, number: int) -> list[Clip]:
        """The clips of a part, also those that were dropped."""
        lines = self._lines(number).rstrip("\n").replace("\n", ",")  # in json, no other line break is one
        return [Clip.from_record(record) for record in json.loads(f"[{lines}]")]  # read at once, they share the strings of their names

    def tallies(self) -> dict[str, Tally]:
        """What the stages did to all parts."""
        total: dict[str, Tally] = {}
        for number in range(self.num_parts):
            with self._path(number).open(encoding="utf-8") as lines:
                for name, tally in json.loads(next(lines)).items():
                    total.setdefault(name, Tally()).add(Tally(**tally))
        return total

    def read_all(self) -> Iterator[Clip]:
        """The clips of all parts."""
        for number in range(self.num_parts):
            yield from self.read(number)

    def write(self, number: int, clips: Sequence[Clip], tallies: Mapping[str, Tally] | None = None) -> None:
        """Keep the clips of a part, and on the first line what was done to it."""
        if any(clip.drop is not None and clip.drop.reason == KILLED for clip in clips):
            write_bytes(self._path(number).with_suffix(".poor"), b"")
        first = json.dumps({name: asdict(tally) for name, tally in (tallies or {}).items()})
        write_bytes(self._path(number), "".join(line + "\n" for line in (first, *(clip.to_json() for clip in clips))).encode())

    def _lines(self, number: int) -> str:
        return self._path(number).read_text(encoding="utf-8").partition("\n")[2]

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{self.names[number]}.jsonl"


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder while one works in it.

    Raises:
        UsageError: another run does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            given = f"the folder {folder.parent} was given"
            raise UsageError(given, "another run of curation is at work in it", "wait for it, or give another folder") from error
        yield


def _partial_files(folder: Path) -> list[Path]:
    """What killed runs left in a folder without finishing it."""
    return [path for path in folder.iterdir() if is_partial(path) and path.is_file()]


def _cut(media: Sequence[tuple[str, Path]], size: int) -> list[list[tuple[str, Path]]]:
    """Parts of about `size` media, and four times as many at most."""
    parts: list[list[tuple[str, Path]]] = [[]]
    for key, path in media:
        parts[-1].append((key, path))
        if int(_hash(key), 16) % size == 0 or len(parts[-1]) == 4 * size:
            parts.append([])
    return parts if parts[-1] else parts[:-1]


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogateescape")).hexdigest()[:16]


def require_folder(folder: str) -> Path:
    """The folder of media that was given.

    Raises:
        UsageError: there is none.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        exists = "it is a file" if root.is_file() else f"{root.parent} has no such folder"
        raise UsageError(f"the folder {folder} was given", exists, "give a folder of videos, pictures or sounds")
    return root


def require_same_media(output: Path, root: Path, *, overwrite: bool) -> None:
    """Refuse an output that is the folder of media itself, or that holds a run of another one.

    Args:
        output: folder of the shards.
        root: the folder of media.
        overwrite: whether the run of another folder may be replaced.

    Raises:
        UsageError: it is, or holds one.
    """
    if output.resolve() == root.resolve():
        raise UsageError(f"{output} was given for new shards", "it is the folder of media itself", "give a folder of its own")
    earlier = _folder_of(output / NAME)
    if earlier not in (None, str(root.resolve())) and not overwrite:
        raise UsageError(
            f"{output} was given for shards of {root}",
            f"it holds a run of {earlier}",
            "give another folder, or --overwrite to replace that run, also where its media were only moved",
        )


def _folder_of(work: Path) -> str | None:
    """The folder of media that a run was begun with; None where there is no run, or one of a version that did not write it down."""
    path = work / _ROOT
    return json.loads(path.read_text(encoding="utf-8"))["folder"] if path.is_file() else None
