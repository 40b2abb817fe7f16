"""`moviegen data curate`: a folder of raw media becomes shards of clips worth learning from, and a report of what became of the rest."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.presets import compose
from moviegen_data.curation.clip import Drop
from moviegen_data.curation.engine import Engine, Operator, Part
from moviegen_data.curation.local_engine import LocalEngine
from moviegen_data.curation.operators import Load, operators
from moviegen_data.curation.output import ShardPlan, ShardSettings, WriteShard, plan_shards
from moviegen_data.curation.pipeline import Named, Step, alive, build_stages, refuse_strange_nulls, steps_of
from moviegen_data.curation.publishing import require_free
from moviegen_data.curation.ray_engine import RayEngine  # noqa: F401 - so that `--engine RayEngine` is known
from moviegen_data.curation.report import Report, all_clips, all_tallies, find_dropped, find_kept, write_report
from moviegen_data.curation.running import run_set_stage
from moviegen_data.curation.tries import Tries
from moviegen_data.curation.work import NAME, Results, Work, only_run, require_folder, require_same_media
from moviegen_data.faults import logger
from moviegen_data.media_folder import keyed_media

_GROUPS = ("stages", "shards")


def curate(
    folder: str,
    output: str,
    *,
    config: str | list[str],
    engine: Engine = LocalEngine(),
    part_size: int = 16,
    thumbnails: int = 12,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Curate a folder of media: run the stages of a configuration over it, write what is left as shards, and report what was not.

    Interrupt it and start it again: it goes on. With other settings it does again what they change, and new shards take the place of
    the earlier ones, also under another prefix. What is refused before the work begins leaves the output as it was.

    Args:
        folder: videos, pictures and sounds, in any depth.
        output: folder of the shards and of `report.html`, `report.json` and `dropped.jsonl`; results of parts lie in its `.curation`.
        config: presets or files, later ones over earlier ones, e.g. `curation/high_res`; see `moviegen presets list`.
        engine: where the work is done; in this process unless given, e.g. `--engine.num_workers 8`.
        part_size: media that are worked on, and kept, together, about.
        thumbnails: pictures of dropped clips in the report, for each stage.
        overwrite: replace the run of another folder, and shards of the same prefix that are no run of curation. Without it only a run of
            the same folder is replaced. Shards of other prefixes that are no run of curation are refused also with it.

    Raises:
        UsageError: the folder holds no media, the output is the same folder or holds what may not be replaced, or the configuration cannot
            be used.
    """
    require_at_least(1, part_size=part_size)
    require_at_least(0, thumbnails=thumbnails)
    root, target = require_folder(folder), Path(output).expanduser().absolute()
    stages, shards = read_config([config] if isinstance(config, str) else config)
    require_same_media(target, root, overwrite=overwrite)
    require_free(target, shards.prefix, overwrite=overwrite)
    media, skipped = keyed_media(root)
    _require_resources(engine, stages)
    steps = steps_of(stages)
    with _going_on(), only_run(target / NAME), engine:
        work = Work(target / NAME, root, part_size)
        run = _Run(engine, work)
        results = [run.begin(media)]
        for step in steps:
            results.append(run.step(step, results[-1]))
        plan = plan_shards(work.folder, root, shards, results[-1])
        run.shards(plan)
        index = plan.publish(target, overwrite=overwrite)
        work.forget_others(results, plan.folder)
        made, faults = results[1:], dict(plan.faults())
        found = {"num_media": len(media), "faults": faults, "skipped": skipped, "index": index}
        report = Report(root, stages, all_tallies(made), **found, num_examples=thumbnails)
        told = write_report(report, all_clips(made, faults), target)
    print(report)
    for line in report.failures():
        logger.warning("%s", line)
    return told


def read_config(names: Sequence[str]) -> tuple[list[Named], ShardSettings]:
    """The stages and shard settings of presets or files.

    Raises:
        UsageError: one is not a configuration of curation.
    """
    if not names:
        raise UsageError("no configuration was given", "it names the stages", "give e.g. `--config curation/high_res`")
    config = compose(names, check=refuse_strange_nulls)
    unknown = sorted(set(config) - set(_GROUPS))
    if unknown or not isinstance(config.get("stages"), Mapping):
        raise UsageError(
            f"the configuration {', '.join(names)} was given",
            f"it has {', '.join(map(repr, unknown)) or 'no `stages`'}; a configuration of curation has {' and '.join(_GROUPS)}",
            "see `moviegen presets show curation/high_res`",
        )
    try:
        shards = ShardSettings(**(config.get("shards") or {}))
    except TypeError as error:
        raise UsageError(f"shards: {config['shards']} was given", str(error), "see `moviegen presets show curation/high_res`") from error
    return build_stages(config["stages"]), shards


def _require_resources(engine: Engine, stages: Sequence[Named]) -> None:
    """Refuse shares of machines where the engine would not heed them."""
    for named in stages:
        if named.resources is not None and not engine.takes_resources:
            raise UsageError(
                f"the stage '{named.name}' was given the resources {named.resources}",
                f"{type(engine).__name__} runs all stages in the same processes",
                "leave `resources` out, or give `--engine RayEngine`",
            )


@contextmanager
def _going_on() -> Iterator[None]:
    """Lets an interrupt tell how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("the same command goes on where it was") from error


def _warn_of_killers(tries: Tries) -> None:
    for stage, source in tries.left():
        advice = "should this one end there too, give `--engine LocalEngine --engine.num_workers 1`: media that kill workers are left out"
        logger.warning("an earlier run was killed while the stage %s looked at %s; %s", stage, source, advice)


class _Run:
    """Brings step after step to its end."""

    def __init__(self, engine: Engine, work: Work) -> None:
        self.engine, self.work = engine, work

    def begin(self, media: Sequence[tuple[str, Path]]) -> Results:
        """The media as clips."""
        found = self.work.begin(media)
        logger.info("%d media in %d parts", len(media), found.num_parts)
        return found

    def step(self, step: Step, before: Results) -> Results:
        """Do what is left to do of a step."""
        results = self.work.results(step, before)
        results.forget_poor()
        missing = results.missing()
        if not self.engine.has_workers:
            _warn_of_killers(Tries(results.folder / "tries", self.work.run))
        if missing and step.compares:
            self._compare(step, before, results)
        elif missing:
            names = "+".join(named.name for named in step.stages)
            self._finish(operators(self.work, before, step, results), missing, names, total=before.num_parts)
        return results

    def shards(self, plan: ShardPlan) -> None:
        """Write the shards that are not there."""
        plan.forget_poor()
        write = Operator("shards", WriteShard(plan, Tries(plan.folder / "tries", self.work.run)))
        self._finish([write], plan.missing(), "shards", total=plan.num_shards)

    def _finish(self, steps: Sequence[Operator], missing: Sequence[int], name: str, *, total: int) -> None:
        with tqdm(total=total, initial=total - len(missing), desc=name[:40], unit="part", disable=None) as progress:
            for _ in self.engine.run(steps, missing):
                progress.update()

    def _compare(self, step: Step, before: Results, results: Results) -> None:
        (named,) = step.stages
        made, tally = run_set_stage(named, list(alive(before.read_all())))
        for number in range(before.num_parts):  # all again: a part that is there was written by the same comparison
            left = Load(before)(Part(number)).clips
            results.write(number, [made[clip.key] for clip in left], {named.name: tally} if number == 0 else None)


def why(output: str, name: str) -> list[dict[str, Any]]:
    """Tell why clips were left out of a run of `moviegen data curate`, and which were kept; return the records of those left out.

    Args:
        output: folder of the run's shards and report.
        name: part of the name of a clip, or of the medium it is from.

    Raises:
        UsageError: the folder holds no run, or no clip has the name, neither one that was left out nor one that was kept.
    """
    folder = Path(output).expanduser()
    if not (folder / "dropped.jsonl").is_file():
        raise UsageError(f"the folder {output} was given", "it holds no report of curation", "give the output of `moviegen data curate`")
    found, kept = list(find_dropped(folder, name)), sorted(find_kept(folder, name), key=lambda record: record["key"])
    if not found and not kept:
        exists = "no clip has it, neither one that was left out nor one that was kept"
        raise UsageError(f"the name {name!r} was given", exists, "look for a part of the file's name")
    for record in found:
        print(f"{_place_of(record)}: {Drop(record['stage'], record['reason'], record['measured'], record['wanted'])}")
    for record in kept:
        print(f"{_place_of(record)}: kept, in the shards")
    return found


def _place_of(record: Mapping[str, Any]) -> str:
    """A clip's key and, where its record tells them, medium and stretch."""
    span = "" if record.get("end_s") is None else f" {record['start_s']:g}-{record['end_s']:g} s"
    return record["key"] + (f": {record['source']}{span}" if "source" in record else "")
