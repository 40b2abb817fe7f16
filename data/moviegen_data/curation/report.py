"""What became of a pile of media: counts and remaining volume by stage as in Table 39, and why each clip was left out."""

import hashlib
import json
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moviegen_core.files import whole_file, write_bytes
from moviegen_data.curation.clip import Clip, Drop
from moviegen_data.curation.engine import Tally
from moviegen_data.curation.output import CUT, key_of, planned_clips
from moviegen_data.curation.pipeline import Named
from moviegen_data.curation.publishing import Published
from moviegen_data.curation.running import FAILED
from moviegen_data.curation.tries import KILLED
from moviegen_data.curation.work import NAME, Results
from moviegen_data.faults import SkipReport
from moviegen_data.wording import counted

_BINS = 24
_MOST_VALUES = 1000  # of one annotation, counted each for itself
_MOST_SIGNS = 60  # of a value that is shown
_REST = "(others)"


@dataclass
class StageReport:
    """What one stage did.

    Args:
        name: its name in the configuration.
        stage: its class.
        settings: its arguments.
        tally: clips and seconds before and behind it.
        reasons: dropped clips by reason.
        histograms: the scores that it gave, by name: counts of clips that it let pass and of those it dropped, and the edges.
        examples: some dropped clips, chosen by a hash of their keys.
    """

    name: str
    stage: str
    settings: Mapping[str, Any]
    tally: Tally
    reasons: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    examples: list[Clip] = field(default_factory=list)


class Report:
    """A run's report. It tells of the clips as they are counted, one by one: there may be millions.

    Args:
        root: the folder of media.
        stages: the stages that ran.
        tallies: what each did, by its name.
        num_media: media that the run began with.
        faults: clips that could not be cut, and why.
        skipped: files that are no media.
        index: the shards' index.
        num_examples: dropped clips to keep for each stage.
    """

    def __init__(
        self,
        root: Path,
        stages: Sequence[Named],
        tallies: Mapping[str, Tally],
        *,
        num_media: int,
        faults: Mapping[str, str],
        skipped: SkipReport,
        index: Mapping[str, Any],
        num_examples: int,
    ) -> None:
        self.root, self.num_media, self.num_examples = root, num_media, num_examples
        self.faults, self.skipped, self.index = faults, skipped, index
        self.annotations: dict[str, Counter[str]] = {}
        self.stages = [
            StageReport(each.name, type(each.stage).__name__, each.settings.get("init_args") or {}, tallies.get(each.name, Tally()))
            for each in stages
        ]
        for each in self.stages:
            for name in sorted({*each.tally.kept_scores, *each.tally.dropped_scores}):
                each.histograms[name] = _histogram(each.tally.kept_scores.get(name, []), each.tally.dropped_scores.get(name, []))

    def count(self, clip: Clip) -> None:
        """Count a clip: what is annotated of one that was kept; of one left out why, and whether it is one of its stage's examples."""
        if clip.drop is None:
            self._count_annotations(clip)
            return
        stage = "" if clip.key in self.faults else clip.drop.stage
        for each in self.stages:
            if each.name == stage:
                each.reasons[clip.drop.reason] += 1
                insort(each.examples, clip, key=_place)
                del each.examples[self.num_examples :]

    def _count_annotations(self, clip: Clip) -> None:
        for name, value in clip.annotations.items():
            values = value if isinstance(value, list | tuple) else [value]
            told = [each if isinstance(each, str) else json.dumps(each) for each in values if isinstance(each, bool | str)]
            if told:
                counts = self.annotations.setdefault(name, Counter())
                counts.update(list(dict.fromkeys(each if each in counts or len(counts) < _MOST_VALUES else _REST for each in told)))

    def shares(self, name: str) -> list[tuple[str, int, float]]:
        """The values of an annotation among the clips in the shards: each one's clips and percentage, the most frequent first.

        Truths and texts are counted, and those in a list each for itself. Where there are very many, later ones are counted together. Long
        ones are shortened.
        """
        total = max(1, self.index["num_samples"])
        return [(_shown(value), count, 100.0 * count / total) for value, count in self.annotations[name].most_common()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a json file."""
        rows = []
        for each in self.stages:
            remaining = 100.0 * each.tally.left / max(1, self.num_media)
            rows.append(
                {
                    "name": each.name,
                    "stage": each.stage,
                    "settings": each.settings,
                    **_counts(each.tally),
                    "remaining_percent": round(remaining, 4),
                }
                | {"reasons": dict(each.reasons.most_common()), "histograms": each.histograms}
            )
        return {
            "folder": str(self.root),
            "num_media": self.num_media,
            "num_clips": self.index["num_samples"],
            "num_shards": len(self.index["shards"]),
            "num_bytes": self.index["num_bytes"],
            "stages": rows,
            "annotations": {name: dict(counts.most_common()) for name, counts in sorted(self.annotations.items())},
            "not_cut": dict(self.faults),
            "not_media": self.skipped.as_dict(),
        }

    def __str__(self) -> str:
        made = f"{counted(self.index['num_samples'], 'clip')} in {counted(len(self.index['shards']), 'shard')}"
        lines = [f"{self.num_media} media became {made}"]
        lines += [f"  {'stage':<24} {'in':>8} {'out':>8} {'hours':>9} {'remaining':>10}   dropped"]
        for each in self.stages:
            share = 100.0 * each.tally.left / max(1, self.num_media)
            reasons = ", ".join(f"{count} {reason}" for reason, count in each.reasons.most_common(3))
            hours = each.tally.left_s / 3600
            lines.append(
                f"  {each.name:<24} {each.tally.entered:>8} {each.tally.left:>8} {hours:>9.3f} {share:>8.2f} %   {reasons}".rstrip()
            )
        for name in sorted(self.annotations):
            values = [f"{value} {share:.2f} %" for value, _, share in self.shares(name)]
            more = f" and {len(values) - 4} more" if len(values) > 4 else ""
            lines.append(f"  {name} of the clips in the shards: {', '.join(values[:4])}{more}")
        if self.faults:
            lines.append(f"  {len(self.faults)} clips could not be cut: {', '.join(list(self.faults)[:3])}")
        if len(self.skipped):
            lines.append(f"  {len(self.skipped)} files are no media")
        return "\n".join(lines)

    def failures(self) -> list[str]:
        """What is no verdict on a clip: stages that failed, and media that killed workers."""
        told = []
        for each in self.stages:
            for reason in (FAILED, KILLED):
                if each.reasons[reason]:
                    told.append(f"{each.name}: {reason} for {each.reasons[reason]} clips; `moviegen data why` tells more")
        return told


def write_report(report: Report, clips: Iterable[Clip], output: Path) -> dict[str, Any]:
    """Write `dropped.jsonl`, `report.json` and `report.html`; return what is in the second.

    Args:
        report: what to tell, nothing counted yet.
        clips: every clip that was left out or is in the shards; looked at once.
        output: the folder.
    """
    from moviegen_data.curation.report_page import page

    with whole_file(output / "dropped.jsonl") as file:
        for clip in clips:
            report.count(clip)
            if clip.drop is not None:
                file.write((json.dumps(_dropped_record(clip, clip.drop), ensure_ascii=False) + "\n").encode())
    told = report.to_dict()
    text = json.dumps(told, indent=1, ensure_ascii=False, default=str) + "\n"
    write_bytes(output / "report.json", text.encode(errors="backslashreplace"))
    write_bytes(output / "report.html", page(report).encode(errors="backslashreplace"))
    return told


def all_tallies(results: Iterable[Results]) -> dict[str, Tally]:
    """What all stages did, by their names.

    Args:
        results: what each step left.
    """
    return {name: tally for step in results for name, tally in step.tallies().items()}


def all_clips(results: Sequence[Results], faults: Mapping[str, str]) -> Iterator[Clip]:
    """Every clip: those that were left out, with the reason, and those in the shards.

    Args:
        results: what each step left.
        faults: clips that could not be cut, and why.
    """
    for step in results:
        for clip in step.read_all():
            if clip.drop is not None:
                yield clip
            elif step is results[-1]:
                yield clip.dropped("cannot be cut", measured=faults[clip.key], stage=CUT) if clip.key in faults else clip


def find_dropped(output: Path, name: str) -> Iterator[dict[str, Any]]:
    """The records of dropped clips whose key or source contains a text."""
    with (output / "dropped.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if name in record["key"] or name in record["source"]:
                yield record


def find_kept(output: Path, name: str) -> Iterator[dict[str, Any]]:
    """The keys in the shards, media and stretches of kept clips whose key or source contains a text.

    The shards' index says what was kept. Where the results of parts are gone, nobody knows more of a clip than its key.
    """
    indices = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(output.glob("*.index.json"))]
    keys = {key for index in indices for shard in index["shards"] for key, _ in shard.get("members", ())}
    for clip in planned_clips(output / NAME, Published.read(output).made_from):
        key = key_of(clip)
        if key in keys:
            keys.remove(key)
            if any(name in text for text in (key, clip.key, clip.source)):
                yield {"key": key, "source": clip.source, "start_s": clip.start_s, "end_s": clip.end_s}
    yield from ({"key": key} for key in keys if name in key)


def _dropped_record(clip: Clip, drop: Drop) -> dict[str, Any]:
    return {
        "key": clip.key,
        "source": clip.source,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        **asdict(drop),
        "scores": dict(clip.scores),
    }


def _shown(text: str) -> str:
    line = "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
    return line if len(line) <= _MOST_SIGNS else line[:_MOST_SIGNS] + "..."


def _place(clip: Clip) -> bytes:
    return hashlib.sha256(clip.key.encode()).digest()


def _histogram(kept: Sequence[float], dropped: Sequence[float]) -> dict[str, list[float]]:
    scores = [*kept, *dropped]
    try:
        with np.errstate(all="ignore"):
            edges = np.histogram_bin_edges(scores, _BINS)
    except ValueError:  # they are so near to each other, or so far apart, that floats do not tell their bins apart
        edges = np.array([min(scores), np.nextafter(max(scores), np.inf)])
    return {
        "edges": [round(float(edge), 6) for edge in edges],
        "kept": np.histogram(kept, edges)[0].tolist(),
        "dropped": np.histogram(dropped, edges)[0].tolist(),
    }


def _counts(tally: Tally) -> dict[str, float]:
    return {name: round(getattr(tally, name), 3) for name in ("entered", "entered_s", "left", "left_s", "spent_s")}
