"""Curation's filters beside labels: precision and recall on real films, on the toy world, and on clips made from both.

    MOVIEGEN_MEDIA=... python benchmarks/curation.py --folder FOLDER      # some minutes on one core; --small takes one

FOLDER/media is filled with the films of MOVIEGEN_MEDIA/video, scenes of the toy world, and short clips made from the films, which have
what a filter looks for because it was put there (`curation_examples.py`). `moviegen data curate` runs over it with `curation/small`, the
set of Table 39 scaled to small films; its report is in FOLDER/curated. Then each stage of that preset judges alone every clip that has a
label of its kind, whatever the stages before it say. `aspect`, which the preset leaves out, is Table 39's width >= height; `motion` comes
with Table 39's own limits too.

A filter's positives are the clips that it should drop. Those of `scenes` are cuts and fades through black, one by one, found where a
boundary of scenes lies within 3 frames of them, and dissolves are counted beside them (`dissolves`, `dissolves_found`), while one that is
found where there is none is wrong; those of `duplicates` are all clips of a group of copies but one, and dropped for the sake
of another clip than a copy of its own group is wrong. Labels of real films are MANIFEST.json's notes, and by eye where these are silent.

Stages and thresholds were made while looking at the real films themselves, whose figures so tell little about others; the table has those
of the clips made here beside them. Pictures of what each filter dropped and kept are in FOLDER/sheets, results in
benchmarks/results/curation.json.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from curation_examples import TOLERANCE, Example, Maker, boundaries_of, use_one_thread
from measuring import media_parser, parse_media, processor, write_record
from PIL import Image, ImageDraw

from moviegen_data.curation import Clip, Media
from moviegen_data.curation.command import curate, read_config
from moviegen_data.curation.measures import Measures
from moviegen_data.curation.pipeline import Named
from moviegen_data.curation.running import applied, run_set_stage
from moviegen_data.curation.stages.aspect import AspectMix

# What a label says a filter should drop.
WORDS = {
    "duration": ("short",),
    "resolution": ("tiny",),
    "aspect": ("portrait",),
    "text": ("text",),
    "borders": ("border",),
    "quality": ("poor",),
    "static": ("static",),
    "motion": ("slow", "wild"),
    "motion (Table 39)": ("slow", "wild"),
    "jitter": ("jittery",),
}
USED = ("real",)  # kinds of clips that thresholds were chosen by


@dataclass
class Verdicts:
    """What a filter made of its clips, by name.

    Args:
        found: dropped, and rightly.
        wrong: dropped, wrongly.
        missed: kept, wrongly.
        kept: kept, and rightly.
        told: what the filter said of those that it dropped.
        notes: further figures.
    """

    found: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, true: bool, dropped: bool, told: str = "") -> None:
        """Count one verdict."""
        kind = (self.found if true else self.wrong) if dropped else (self.missed if true else self.kept)
        kind.append(name)
        self.told |= {name: told} if told else {}

    def to_dict(self) -> dict[str, Any]:
        """Counts, precision, recall, and every mistake."""
        found, wrong, missed, kept = map(len, (self.found, self.wrong, self.missed, self.kept))
        made = [sum(name.split("/")[0] not in USED for name in names) for names in (self.found, self.wrong, self.missed)]
        return {
            "positives": found + missed,
            "negatives": wrong + kept,
            "found": found,
            "wrong": wrong,
            **ratios(found, wrong, missed),
            "not_used_for_choosing": {"positives": made[0] + made[2], **ratios(*made)},
            **self.notes,
            "wrongly_dropped": {name: self.told.get(name, "") for name in self.wrong},
            "wrongly_kept": {name: self.told.get(name, "") for name in self.missed},
        }


def ratios(found: int, wrong: int, missed: int) -> dict[str, float | None]:
    """Precision and recall; None where there is nothing to divide by."""
    precision = round(found / (found + wrong), 3) if found + wrong else None
    return {"precision": precision, "recall": round(found / (found + missed), 3) if found + missed else None}


def main() -> None:
    """Make, curate, judge, print, write."""
    parser = media_parser(__doc__, output="curation.json")
    parser.add_argument("--folder", type=Path, default=Path("curation"), help="where media, shards, report and sheets go")
    parser.add_argument("--small", action="store_true", help="a quarter of the clips, no large film, and no results written")
    parser.add_argument("--only", choices=["make", "curate", "judge"], help="one part, where the earlier ones are done")
    arguments = parse_media(parser, "video")
    use_one_thread()
    folder, parts = arguments.folder, [arguments.only] if arguments.only else ["make", "curate", "judge"]
    spent: dict[str, float] = {}
    if "make" in parts:
        shutil.rmtree(folder / "media", ignore_errors=True)
        start = time.process_time()
        examples = list(Maker(arguments.media / "video", folder / "media", small=arguments.small).all())
        spent["make"] = time.process_time() - start
        write_record({"examples": [vars(example) for example in examples]}, folder / "labels.json")
    examples = [Example(**one) for one in json.loads((folder / "labels.json").read_text())["examples"]]
    if "curate" in parts:
        shutil.rmtree(folder / "curated", ignore_errors=True)
        start = time.process_time()
        curate(str(folder / "media"), str(folder / "curated"), config="curation/small")
        spent["curate"] = time.process_time() - start
    if "judge" not in parts:
        return
    start = time.process_time()
    verdicts = judge(folder / "media", examples)
    spent["judge"] = time.process_time() - start
    for name, verdict in verdicts.items():
        write_sheet(folder / "sheets" / f"{name}.png", folder / "media", verdict)
    report = json.loads((folder / "curated" / "report.json").read_text())
    record = {
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "threads": 1},
        "processor_seconds": {name: round(seconds, 1) for name, seconds in spent.items()},
        "clips": dict(Counter(example.name.split("/")[0] for example in examples)),
        "tolerance_frames": TOLERANCE,
        "used_for_choosing": USED,
        "filters": {name: verdict.to_dict() for name, verdict in verdicts.items()},
        "curated": {
            **{name: report[name] for name in ("num_media", "num_clips", "num_shards")},
            "stages": {each["name"]: {name: each[name] for name in ("entered", "left", "reasons")} for each in report["stages"]},
        },
    }
    tell(record)
    if not arguments.small:
        write_record(record, arguments.output)


def tell(record: Mapping[str, Any]) -> None:
    """Print the table, and every mistake below it."""
    print(f"{'filter':<19} positives negatives found wrong precision recall  not used for choosing")
    for name, row in record["filters"].items():
        other = row["not_used_for_choosing"]
        print(
            f"{name:<19} {row['positives']:>9} {row['negatives']:>9} {row['found']:>5} {row['wrong']:>5} {row['precision'] or 0:>9.3f}"
            f" {row['recall'] or 0:>6.3f}  {other['positives']} positives, {other['precision']}, {other['recall']}"
        )
    for name, row in record["filters"].items():
        for kind in ("wrongly_dropped", "wrongly_kept"):
            for example, told in row[kind].items():
                print(f"{name}: {kind.replace('_', ' ')}: {example} {told}")


# -- judging -----------------------------------------------------------------------------------------------------------------------


def judge(folder: Path, examples: Sequence[Example]) -> dict[str, Verdicts]:
    """Each filter's verdicts on all examples that have a label for it."""
    stages = {named.name: named for named in read_config(["curation/small"])[0]}
    (paper,) = (named for named in read_config(["curation/high_res"])[0] if named.name == "motion")
    stages["motion (Table 39)"] = replace(paper, name="motion (Table 39)")
    verdicts = {name: Verdicts() for name in [*WORDS, "scenes", "duplicates"]}
    known: dict[str, Clip] = {}
    for example in examples:
        media = Media(folder / example.name)
        (clip,) = applied(stages["probe"], Clip(example.name, example.name), media)
        for name, words in WORDS.items():
            true = example.truth(words)
            if name in stages and true is not None:
                (answer,) = applied(stages[name], clip, media)
                verdicts[name].add(example.name, true, answer.drop is not None, str(answer.drop or dict(answer.scores)))
        if example.changes is not None:
            judge_scenes(verdicts["scenes"], example, clip, media, stages["scenes"].stage)
        if example.alike:
            (clip,) = applied(stages["look"], clip, media)
        known[example.name] = clip
    shaped = [example for example in examples if example.truth(("portrait",)) is not None]
    made, _ = run_set_stage(Named("aspect", AspectMix(only="landscape"), {}), [known[example.name] for example in shaped])
    for example in shaped:
        verdicts["aspect"].add(example.name, example.labels["portrait"], made[example.name].drop is not None)
    judge_duplicates(verdicts["duplicates"], examples, known, stages["duplicates"])
    return verdicts


def judge_scenes(verdicts: Verdicts, example: Example, clip: Clip, media: Media, stage: Any) -> None:
    """Count the changes of scene of a clip, and the clips taken from it that have one inside."""
    measures, found = media.measures, []
    tolerance = TOLERANCE / (len(measures) / measures.duration_s)
    boundaries = boundaries_of(stage, measures)
    spans = {kind: [spanned(measures, each, tolerance) for each in getattr(example, kind)] for kind in ("changes", "dissolves")}
    for (first, last), span in zip(example.changes or (), spans["changes"]):
        hit = [place for place in boundaries if meet(place, span)]
        found += hit
        verdicts.add(f"{example.name} {first}" + (f"-{last}" if last > first else ""), True, bool(hit))
    for place in boundaries:
        if place not in found and not any(meet(place, span) for span in spans["dissolves"]):
            verdicts.add(f"{example.name} at {place[0]:.2f} s", False, True)
    if not any(place not in found for place in boundaries):
        verdicts.add(example.name, False, False)
    answer = stage.apply(clip, media)
    taken = [part for part in ([answer] if isinstance(answer, Clip) else answer) if part.drop is None]
    counts = {"fades": sum(last > first for first, last in example.changes or ())}
    counts["fades_found"] = sum(
        last > first and any(meet(place, span) for place in boundaries)
        for (first, last), span in zip(example.changes or (), spans["changes"])
    )
    counts |= {"clips_taken": len(taken), "dissolves": len(spans["dissolves"])}
    counts["dissolves_found"] = sum(any(meet(place, span) for place in boundaries) for span in spans["dissolves"])
    for kind, those in spans.items():
        counts[f"clips_over_{kind}"] = sum(
            any(part.start_s < first + tolerance and part.start_s + part.duration_s > last - tolerance for first, last in those)
            for part in taken
        )
    verdicts.notes = {name: verdicts.notes.get(name, 0) + count for name, count in counts.items()}


def spanned(measures: Measures, change: Sequence[int], tolerance: float) -> tuple[float, float]:
    """When a change begins and ends, and a little more."""
    first, last = (float(measures.times_s[min(row, len(measures) - 1)]) for row in change)
    return first - tolerance, last + tolerance


def meet(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two stretches have a moment in common."""
    return one[0] <= other[1] and other[0] <= one[1]


def judge_duplicates(verdicts: Verdicts, examples: Sequence[Example], known: Mapping[str, Clip], stage: Named) -> None:
    """Compare all that belong to a group; of each group one should be left."""
    groups = {example.name: example.alike for example in examples if example.alike}
    made, _ = run_set_stage(stage, [known[name] for name in groups])
    left: dict[str, str] = {}
    for name, clip in sorted(made.items()):
        if clip.drop is not None:
            leader = clip.drop.measured.rpartition(" to ")[2]
            verdicts.add(name, groups.get(leader) == groups[name], True, str(clip.drop))
        elif groups[name] in left:
            verdicts.add(name, True, False, f"beside {left[groups[name]]}")
        else:
            left[groups[name]] = name
            verdicts.add(name, False, False)


def write_sheet(path: Path, folder: Path, verdicts: Verdicts) -> None:
    """Pictures of clips: what was rightly dropped, wrongly dropped, wrongly kept, rightly kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, width, height = [], 144, 108
    for kind in ("found", "wrong", "missed", "kept"):
        names = [name.split(" ")[0] for name in getattr(verdicts, kind)][:40]
        for start in range(0, len(names), 10):
            rows.append((f"{kind} ({len(getattr(verdicts, kind))})" if start == 0 else "", names[start : start + 10]))
    sheet = Image.new("RGB", (10 * width, len(rows) * (height + 28) + 1), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, names) in enumerate(rows):
        top = number * (height + 28)
        draw.text((2, top), title, fill="red")
        for column, name in enumerate(names):
            media = Media(folder / name)
            picture = Image.fromarray(media.stills(0.0, media.extent[1], max_side=width)[0])
            picture.thumbnail((width - 4, height))
            sheet.paste(picture, (column * width, top + 14))
            draw.text((column * width, top + 14 + height), Path(name).stem[:23], fill="black")
    sheet.save(path)


if __name__ == "__main__":
    main()
