"""The report of a run: what became of every clip that was left out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moviegen_data.curation import Clip, Function
from moviegen_data.curation.engine import Tally
from moviegen_data.curation.pipeline import Named
from moviegen_data.curation.report import Report, _histogram, all_clips, all_tallies, write_report
from moviegen_data.curation.report_page import histogram
from moviegen_data.curation.report_page import page as page_of
from moviegen_data.curation.work import Results
from moviegen_data.faults import SkipReport

FAULTS = {"c9": "too short: no frame"}


def _dropped(clip, stage, reason):
    return clip.dropped(reason, stage=stage)


@pytest.fixture
def steps(tmp_path):
    """Two steps: every second of 12 clips goes in the first, and every third of the rest in the second."""
    clips = [Clip(f"c{number}", f"v{number}.mp4") for number in range(12)]
    first = [_dropped(clip, "light", "dark" if number % 4 else "bright") if number % 2 == 0 else clip for number, clip in enumerate(clips)]
    left = [clip.scored(motion=0.1) for clip in first if clip.drop is None]
    second = [_dropped(clip, "motion", "still") if number % 3 == 0 else clip for number, clip in enumerate(left)]
    steps = [Results(tmp_path / name, ("one", "two"), ("one", "two")) for name in ("first", "second")]
    for step, found, name in zip(steps, (first, second), ("light", "motion"), strict=True):
        for number, part in enumerate((found[:5], found[5:])):
            step.write(number, part, {name: Tally(entered=len(part), dropped_scores={"motion": [0.1]} if name == "motion" else {})})
    return steps


def _report(steps, **settings):
    stages = [Named(name, Function(path="moviegen_hello:halves"), {}) for name in ("light", "motion")]
    found = {"num_media": 12, "faults": FAULTS, "skipped": SkipReport(), "index": {"num_samples": 3, "num_bytes": 1, "shards": [{}]}}
    return Report(Path(), stages, all_tallies(steps), **found, **{"num_examples": 3} | settings)


def test_every_clip_that_was_left_out_is_told_once(steps, tmp_path):
    told = write_report(_report(steps), all_clips(steps, FAULTS), tmp_path)
    records = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    reasons = {record["key"]: record["reason"] for record in records}
    assert len(records) == 9 and reasons["c9"] == "cannot be cut" and reasons["c1"] == "still" and reasons["c0"] == "bright"
    light, motion = told["stages"]
    assert (light["entered"], light["reasons"]) == (12, {"bright": 3, "dark": 3})
    assert (motion["entered"], motion["reasons"]) == (6, {"still": 2}) and sum(motion["histograms"]["motion"]["dropped"]) == 2
    assert told["not_cut"] == FAULTS and "<svg" in (tmp_path / "report.html").read_text()


def test_records_are_read_once(steps, tmp_path, monkeypatch):
    read, times = Results.read, []
    monkeypatch.setattr(Results, "read", lambda self, number: times.append((self.folder.name, number)) or read(self, number))
    write_report(_report(steps), all_clips(steps, FAULTS), tmp_path)
    assert times == [("first", 0), ("first", 1), ("second", 0), ("second", 1)]


def test_examples_do_not_depend_on_the_order(steps):
    clips, chosen = list(all_clips(steps, FAULTS)), []
    for found in (clips, clips[::-1]):
        report = _report(steps)
        for clip in found:
            report.count(clip)
        chosen.append([[clip.key for clip in each.examples] for each in report.stages])
    assert chosen[0] == chosen[1] and [len(keys) for keys in chosen[0]] == [3, 2]
    none = _report(steps, num_examples=0)
    none.count(clips[0])
    assert not none.stages[0].examples and none.stages[0].reasons.total() == 1


def test_a_stage_may_be_called_as_the_cutting(steps):
    report = _report(steps)
    report.stages[0] = replace(report.stages[0], name="cutting")
    for clip in all_clips(steps, FAULTS):
        report.count(clip)
    assert not report.stages[0].reasons


@pytest.mark.parametrize("scores", [[1e17, 1e17 + 16], [-1.7e308, 1.7e308], [0.0, 0.0], [5e-324, 0.0], [1.0]])
def test_scores_of_all_sizes_have_a_histogram(scores):
    found = _histogram(scores[:1], scores[1:])
    assert (sum(found["kept"]), sum(found["dropped"])) == (1, len(scores) - 1)
    assert "<svg" in histogram("x", found)


@pytest.fixture
def kept(steps):
    """The clips in the shards: three."""
    return [clip for clip in all_clips(steps, FAULTS) if clip.drop is None]


def test_annotations_of_what_is_in_the_shards_are_counted(steps, kept, tmp_path):
    tags = [{"tags": ["b", "a", "b"]}, {"tags": ["a"], "words": [{"text": "no"}]}, {"size": 3}]
    clips = [clip.annotated(humans=number != 1, **own) for number, (clip, own) in enumerate(zip(kept, tags, strict=True))]
    gone = [clip.annotated(humans=True) for clip in all_clips(steps, FAULTS) if clip.drop is not None]
    report = _report(steps)
    told = write_report(report, gone + clips, tmp_path)
    assert told["annotations"] == {"humans": {"true": 2, "false": 1}, "tags": {"a": 2, "b": 1}}
    assert "  humans of the clips in the shards: true 66.67 %, false 33.33 %\n  tags of" in str(report)
    assert "<td>humans</td><td>true</td><td class=n>2</td>" in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "dropped.jsonl").read_text().splitlines()) == 9


def test_many_values_of_an_annotation_are_counted_together(steps, kept, monkeypatch):
    monkeypatch.setattr("moviegen_data.curation.report._MOST_VALUES", 2)
    report = _report(steps)
    for number, tags in enumerate((["b", "a"], ["a", "c", "d", "e"], ["f"])):
        report.count(kept[number].annotated(tags=tags))
    assert list(report.annotations["tags"].items()) == [("b", 1), ("a", 2), ("(others)", 2)], "no clip counts twice"


def test_values_of_annotations_are_shown_in_brief(steps, kept):
    report = _report(steps)
    report.count(kept[0].annotated(**{"<b>": [f"<{number}>" for number in range(25)]}))
    page = page_of(report)
    assert "and 21 more" in str(report) and "and 5 more" in page
    assert "&lt;b&gt;" in page and "&lt;0&gt;" in page and "<b>" not in page and "<0>" not in page
    report.count(kept[1].annotated(told="a\nlong \x1b[1m" + "story" * 20))
    assert f"told of the clips in the shards: a long [1m{'story' * 10}... 33.33 %" in str(report).splitlines()[-2]
