"""What a part of the data passes through in a step: it is read, goes through the stages, and is kept."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from moviegen_core.files import safe_name
from moviegen_data.curation.engine import Operator, Part
from moviegen_data.curation.pipeline import Named, Step, alive
from moviegen_data.curation.running import ClipRun
from moviegen_data.curation.tries import Tries
from moviegen_data.curation.work import Results, Work


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
        tries: where workers write down what they begin.
    """

    stages: tuple[Named, ...]
    root: Path
    tries: Tries

    def __call__(self, part: Part) -> Part:
        """Run the stages."""
        with self.tries.watch(safe_name(f"{part.number:06d}-{self.stages[0].name}")) as watch:
            run = ClipRun(self.stages, self.root, watch)
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


def operators(work: Work, before: Results, step: Step, results: Results) -> list[Operator]:
    """What a part passes through in a step of clip stages; neighbours of equal resources are one operator."""
    tries, middle = Tries(results.folder / "tries", work.run), []
    for (resources, uses_gpu), group in groupby(step.stages, key=lambda named: named.share):
        stages = tuple(group)
        middle.append(Operator("+".join(named.name for named in stages), Apply(stages, work.root, tries), resources, uses_gpu))
    return [Operator("load", Load(before)), *middle, Operator("save", Save(results))]
