"""The shards of a run: clips that are left, in an order that does not depend on who made them, each shard whole or absent."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from moviegen_core import __version__
from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.files import write_bytes
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.copying import copy_stretch
from moviegen_data.curation.cutting import cut_video
from moviegen_data.curation.engine import Part
from moviegen_data.curation.facts import facts_of, without_file
from moviegen_data.curation.pipeline import alive
from moviegen_data.curation.publishing import publish
from moviegen_data.curation.running import ends_the_run
from moviegen_data.curation.sources import digest_of_sources
from moviegen_data.curation.tries import DIED, KILLED, Tries, Watch
from moviegen_data.curation.work import Results
from moviegen_data.faults import SampleError
from moviegen_data.media_files import read_file
from moviegen_data.shards import MAX_KEY_BYTES, ShardWriter, shard_index_path
from moviegen_data.video import VideoDecoder

Cut = Literal["copy", "encode"]
Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]
CUT = "cutting"  # what the report calls it, beside the stages' names
_MOST_LOST_S = 0.5  # at the end of a copied clip, where frames need later ones; where more is missing, something is wrong with it


@dataclass(frozen=True)
class ShardSettings:
    """How clips become shards.

    Args:
        prefix: first part of the shards' names.
        max_samples: clips in a shard.
        cut: how a clip leaves a longer video: `copy` takes the packets as they are, from the key frame before, and encodes anew only what
            mp4 cannot hold; `encode` always encodes anew, so that no frame before the clip has to be decoded in training.
        crf: quality where a clip is encoded anew, x264's 0 (lossless) to 51 (worst); whole files never are.
        preset: x264's trade of time for size.
        seed: chooses the order of the clips.
    """

    prefix: str = "shard"
    max_samples: int = 256
    cut: Cut = "copy"
    crf: int = 16
    preset: Preset = "veryfast"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_samples", "crf", "seed"):
            given, default = getattr(self, name), getattr(type(self), name)
            if type(given) is not int:
                raise UsageError(f"{name}={given!r} was given", "it is a whole number", f"give {default}, say")
        require_at_least(1, max_samples=self.max_samples)
        if self.cut not in get_args(Cut):
            raise UsageError(f"cut={self.cut!r} was given", f"ways are {' and '.join(get_args(Cut))}", "give one of them")
        if self.preset not in get_args(Preset):
            raise UsageError(f"preset={self.preset!r} was given", f"x264 has {', '.join(get_args(Preset))}", "give one of them")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.prefix):
            raise UsageError(f"prefix={self.prefix!r} was given", "letters, digits, - and _ can be used", "give another one")
        if not 0 <= self.crf <= 51:
            raise UsageError(f"crf={self.crf} was given", "x264 takes 0 (lossless) to 51 (worst)", "give 16, say")


@dataclass(frozen=True)
class ShardPlan:
    """Which clip goes into which shard.

    Args:
        folder: where shards lie until all are whole.
        root: the folder of media.
        settings: how clips become shards.
        clips: the clips, each part of them a shard.
    """

    folder: Path
    root: Path
    settings: ShardSettings
    clips: Results

    @property
    def num_shards(self) -> int:
        """How many there will be."""
        return self.clips.num_parts

    def forget_poor(self) -> None:
        """Remove shards that lack clips whose media killed workers, so that they are tried again."""
        for mark in self.folder.glob("*.poor"):
            shard_index_path(mark.with_suffix(""), self.settings.prefix).unlink(missing_ok=True)
            mark.unlink()

    def missing(self) -> list[int]:
        """The shards that are not written."""
        return [number for number in range(self.num_shards) if not shard_index_path(self._own(number), self.settings.prefix).is_file()]

    def write(self, number: int, watch: Watch) -> None:
        """Write one shard, whole or not at all; what goes wrong with one medium leaves out its clips and ends no run.

        Args:
            number: which.
            watch: where it is written down what is begun, and what killed workers before.
        """
        own = self._own(number)
        options = {"max_samples": self.settings.max_samples, "max_bytes": 1 << 62, "overwrite": True}
        faults: dict[str, str] = {}
        with ShardWriter(own, prefix=self.settings.prefix, **options) as writer:
            for clip in self.clips.read(number):
                try:
                    writer.write(key_of(clip), self._sample(clip, watch))
                except SampleError as error:
                    faults[clip.key] = str(error)
            if any(why.startswith(KILLED) for why in faults.values()):
                write_bytes(own.with_suffix(".poor"), b"")
            write_bytes(own / "faults.json", json.dumps(faults).encode())

    def _sample(self, clip: Clip, watch: Watch) -> dict[str, Any]:
        if watch.killer(clip.source) is not None:
            raise SampleError(KILLED, DIED)
        watch.begin(clip.source, CUT)
        try:
            return sample_of(clip, self.root, self.settings)
        except Exception as error:  # noqa: BLE001 - codecs may raise anything
            if isinstance(error, SampleError) or ends_the_run(error):
                raise
            raise SampleError("cannot be cut", f"{type(error).__name__}: {error}") from error

    def faults(self) -> Iterator[tuple[str, str]]:
        """Clips that could not be cut, and why."""
        for number in range(self.num_shards):
            yield from json.loads((self._own(number) / "faults.json").read_text(encoding="utf-8")).items()

    def publish(self, output: Path, *, overwrite: bool = False) -> dict[str, Any]:
        """Give all shards their names in the output folder; see `publishing.publish`."""
        sets = [self._own(number) for number in range(self.num_shards)]
        return publish(sets, output, prefix=self.settings.prefix, made_from=self.folder.name.rpartition("-")[2], overwrite=overwrite)

    def _own(self, number: int) -> Path:
        return self.folder / f"{number:06d}"


@dataclass(frozen=True)
class WriteShard:
    """Writes the shard of a part's number.

    Args:
        plan: which clip goes where.
        tries: where workers write down what they begin.
    """

    plan: ShardPlan
    tries: Tries

    def __call__(self, part: Part) -> Part:
        """Write."""
        with self.tries.watch(f"{part.number:06d}") as watch:
            self.plan.write(part.number, watch)
        return part


def plan_shards(folder: Path, root: Path, settings: ShardSettings, results: Results) -> ShardPlan:
    """Put the clips that are left into an order that the seed and their keys decide, and into shards.

    Args:
        folder: the run's own folder.
        root: the folder of media.
        settings: how clips become shards.
        results: what the last step left.
    """
    told = hashlib.sha256(
        json.dumps([results.contents(), asdict(settings), __version__, digest_of_sources(__name__)]).encode()
    ).hexdigest()[:16]
    plan = [replace(clip, vectors={}) for clip in alive(results.read_all())]
    plan.sort(key=lambda clip: hashlib.sha256(f"{settings.seed} {clip.key}".encode()).digest())
    size, own = settings.max_samples, folder / f"shards-{told}"
    names = tuple(f"{number:06d}" for number in range(-(-len(plan) // size)))
    found = Results(own / "clips", names, names)
    for number in found.missing():
        found.write(number, plan[number * size : (number + 1) * size])
    return ShardPlan(own, root, settings, found)


def planned_clips(folder: Path, made_from: str) -> Iterator[Clip]:
    """The clips of a set of shards as they were planned, also those that could not be cut; none where the plan is gone.

    Args:
        folder: the run's own folder.
        made_from: what the set was made from.
    """
    own = folder / f"shards-{made_from}" / "clips"
    names = tuple(sorted(path.stem.removeprefix("part-") for path in own.glob("part-*.jsonl")))
    return Results(own, names, names).read_all()


def key_of(clip: Clip) -> str:
    """A clip's key; where a clip was cut from clips of clips and the key has no room in a tar, its beginning and its hash."""
    if len(clip.key) <= MAX_KEY_BYTES:
        return clip.key
    digest = hashlib.sha256(clip.key.encode()).hexdigest()[:16]
    return f"{clip.key[: MAX_KEY_BYTES - 17]}-{digest}"


def sample_of(clip: Clip, root: Path, settings: ShardSettings) -> dict[str, Any]:
    """The parts of a clip's sample: its json, and the medium as it came or, of a longer one, the stretch.

    Raises:
        SampleError: the stretch cannot be cut.
    """
    path = root / clip.source
    facts = {**clip.annotations, **clip.facts, "caption": clip.caption, "source": clip.source, "scores": dict(clip.scores)}
    extension = path.suffix.lower()[1:]
    if clip.is_whole:
        return {"json": facts, {"jpeg": "jpg"}.get(extension, extension): read_file(path)}
    end_s = clip.start_s + clip.duration_s
    videos = VideoDecoder()
    data = copy_stretch(path, clip.start_s, end_s) if settings.cut == "copy" else None
    try:
        frames, duration_s = (0, 0.0) if data is None else videos.count(data)
    except SampleError:  # packets that were damaged, or no whole group of them
        data = None
    encoded = data is None or duration_s < end_s - clip.start_s - _MOST_LOST_S
    if encoded:
        data = cut_video(path, clip.start_s, end_s, crf=settings.crf, preset=settings.preset)
        frames, duration_s = videos.count(data)
    cut = {"start_s": clip.start_s, "end_s": end_s, "encoded": encoded}
    return {"json": {**without_file(facts), **facts_of(data, frames, duration_s), "cut": cut}, "mp4": data}
