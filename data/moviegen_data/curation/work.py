"""The folder of a run: which media there are, and what came of each part. What is there is whole, and need not be done again."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from moviegen_core.errors import UsageError
from moviegen_core.files import write_bytes
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.engine import Operator, Part, Tally
from moviegen_data.curation.pipeline import Named, Step, alive, operators_of
from moviegen_data.curation.running import ClipRun

NAME = ".curation"


@dataclass(frozen=True)
class Work:
    """The folder of a run.

    Args:
        folder: where results of parts are kept.
        root: the folder of media.
        part_size: media in a part.
    """

    folder: Path
    root: Path
    part_size: int

    def begin(self, media: Sequence[tuple[str, Path]]) -> "Results":
        """Write down which media there are, each as one clip, in parts. The name tells when one is changed, added or removed.

        Args:
            media: keys and paths, sorted by key.
        """
        clips = [Clip(key, path.relative_to(self.root).as_posix()) for key, path in media]
        stats = [path.stat() for _, path in media]
        told = [[clip.key, clip.source, stat.st_size, stat.st_mtime_ns] for clip, stat in zip(clips, stats, strict=True)]
        digest = hashlib.sha256(json.dumps([self.part_size, told]).encode()).hexdigest()[:16]
        found = Results(self.folder / f"media-{digest}", -(-len(clips) // self.part_size))
        for number in found.missing():
            found.write(number, clips[number * self.part_size : (number + 1) * self.part_size])
        return found

    def results(self, step: Step, num_parts: int) -> "Results":
        """What the step left, or will leave."""
        return Results(self.folder / f"step-{step.number:02d}-{step.digest}", num_parts)

    def forget_others(self, keep: Sequence[str]) -> None:
        """Remove results of other media or settings.

        Args:
            keep: digests that stay.
        """
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            digest = path.stem.rpartition("-")[2]
            if path.name.startswith(("step-", "media-", "shards-")) and digest not in keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass(frozen=True)
class Results:
    """Clips in parts, each a file that is there when and only when it is whole.

    Args:
        folder: where they are.
        num_parts: how many there are when all is done.
    """

    folder: Path
    num_parts: int

    @property
    def digest(self) -> str:
        """What the name says of media and settings."""
        return self.folder.name.rpartition("-")[2]

    def missing(self) -> list[int]:
        """The parts that are not done."""
        present = {path.name for path in self.folder.glob("part-*.jsonl")} if self.folder.is_dir() else set()
        return [number for number in range(self.num_parts) if self._path(number).name not in present]

    def read(self, number: int) -> list[Clip]:
        """The clips of a part, also those that were dropped."""
        with self._path(number).open(encoding="utf-8") as lines:
            next(lines)
            return [Clip.from_json(line) for line in lines]

    def tallies(self) -> dict[str, Tally]:
        """What the stages did to all parts."""
        total: dict[str, Tally] = {}
        for number in range(self.num_parts):
            with self._path(number).open(encoding="utf-8") as lines:
                for name, tally in json.loads(next(lines)).items():
                    total[name] = total.get(name, Tally()) + Tally(**tally)
        return total

    def read_all(self) -> Iterator[Clip]:
        """The clips of all parts."""
        for number in range(self.num_parts):
            yield from self.read(number)

    def write(self, number: int, clips: Sequence[Clip], tallies: Mapping[str, Tally] | None = None) -> None:
        """Keep the clips of a part, and on the first line what was done to it."""
        first = json.dumps({name: asdict(tally) for name, tally in (tallies or {}).items()})
        write_bytes(self._path(number), "".join(line + "\n" for line in (first, *(clip.to_json() for clip in clips))).encode())

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.jsonl"


@dataclass(frozen=True)
class Load:
    """Begins a part with the clips that are left of it.

    Args:
        before: what to begin with.
    """

    before: Results

    def __call__(self, part: Part) -> Part:
        """Read."""
        return Part(part.number, list(alive(self.before.read(part.number))))


@dataclass(frozen=True)
class Apply:
    """Passes a part through stages.

    Args:
        stages: neighbours that share workers.
        root: the folder of media.
    """

    stages: tuple[Named, ...]
    root: Path

    def __call__(self, part: Part) -> Part:
        """Run the stages."""
        run = ClipRun(self.stages, self.root)
        return Part(part.number, run(part.clips), part.tallies | run.tallies)


@dataclass(frozen=True)
class Save:
    """Keeps a part.

    Args:
        results: where.
    """

    results: Results

    def __call__(self, part: Part) -> Part:
        """Write; what comes back is empty, since nobody needs it."""
        self.results.write(part.number, part.clips, part.tallies)
        return Part(part.number)


def operators(root: Path, before: Results, step: Step, results: Results) -> list[Operator]:
    """What a part passes through in a step of clip stages."""
    middle = [
        Operator("+".join(named.name for named in stages), Apply(stages, root), resources) for resources, stages in operators_of(step)
    ]
    return [Operator("load", Load(before)), *middle, Operator("save", Save(results))]


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
