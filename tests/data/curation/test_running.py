"""Clips on their way through stages: answers, errors, batches and counts."""

from dataclasses import replace

import av
import pytest

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip
from moviegen_data.curation.pipeline import Named
from moviegen_data.curation.running import FAILED, ClipRun, run_set_stage
from moviegen_data.curation.stage import ClipStage, SetStage
from moviegen_data.faults import SampleError

DAMAGED = av.error.MemoryError(12, "Cannot allocate memory")  # libav's, of sizes that a damaged file tells


class Answers(ClipStage):
    """Gives what it was told to give."""

    def __init__(self, answer):
        self.answer = answer

    def apply(self, clip, media):
        return self.answer(clip)


class InBatches(Answers):
    batch_size = 3

    def __init__(self, answer):
        super().__init__(answer)
        self.sizes = []

    def apply_batch(self, clips, media):
        self.sizes.append(len(clips))
        return super().apply_batch(clips, media)


def clips(count=4):
    return [Clip(f"k{number}", f"{number}.mp4", 0.0, 2.0) for number in range(count)]


def run(*stages, given=None, tmp_path=None):
    runner = ClipRun([Named(f"s{number}", stage, {}) for number, stage in enumerate(stages)], tmp_path)
    return runner(given or clips()), runner.tallies


def raising(error):
    def answer(clip):
        if clip.key == "k1":
            raise error
        return clip

    return answer


@pytest.mark.parametrize("kind", [Answers, InBatches])
@pytest.mark.parametrize(
    ("error", "reason", "measured"),
    [
        (SampleError("cannot be decoded", "at 3 s"), "cannot be decoded", "at 3 s"),
        (KeyError("x"), FAILED, "KeyError: 'x'"),
        (DAMAGED, FAILED, f"MemoryError: {DAMAGED}"),
    ],
)
def test_one_bad_medium_ends_no_run(kind, error, reason, measured, tmp_path):
    made, tallies = run(kind(raising(error)), Answers(lambda clip: clip.scored(seen=1.0)), tmp_path=tmp_path)
    assert [clip.key for clip in made] == ["k0", "k1", "k2", "k3"]
    assert [bool(clip.scores) for clip in made] == [True, False, True, True]
    drop = made[1].drop
    assert (drop.stage, drop.reason, drop.measured) == ("s0", reason, measured)
    assert (tallies["s0"].entered, tallies["s0"].left, tallies["s1"].entered, tallies["s1"].left_s) == (4, 3, 3, 6.0)


@pytest.mark.parametrize("kind", [Answers, InBatches])
def test_settings_that_cannot_work_end_the_run(kind, tmp_path):
    with pytest.raises(UsageError, match="no such model"):
        run(kind(raising(UsageError("a", "no such model", "c"))), tmp_path=tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("gone"),
        ImportError("no such library"),
        MemoryError(),
        OSError(28, "full"),
        OSError(5, "I/O"),
        PermissionError(13, "no"),
    ],
)
def test_the_machines_faults_end_the_run(error, tmp_path):
    with pytest.raises(type(error)):
        run(Answers(raising(error)), tmp_path=tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        lambda clip: [],
        lambda clip: None,
        lambda clip: [clip.part(0, 0, 1), clip.part(0, 1, 2)],
        lambda clip: replace(clip, key="other"),
        lambda clip: replace(clip, key=clip.key + "0"),
        lambda clip: clip.annotated(words={1, 2}),
        lambda clip: clip.described(brightness=float("nan")),
        lambda clip: replace(clip, source="other"),
        lambda clip: replace(clip, caption="half a letter \ud83d"),
    ],
)
def test_answers_that_are_none_are_failures_of_the_stage(answer, tmp_path):
    made, _ = run(Answers(answer), tmp_path=tmp_path)
    assert {clip.drop.reason for clip in made} == {FAILED} and [clip.key for clip in made] == ["k0", "k1", "k2", "k3"]


def test_parts_go_on_each_by_itself(tmp_path):
    def short(clip):
        return clip if clip.start_s else clip.dropped("at the head")

    made, tallies = run(Answers(lambda clip: [clip.part(n, n, n + 1) for n in range(2)]), Answers(short), tmp_path=tmp_path)
    assert [clip.key for clip in made if clip.drop is None] == [f"k{number}+001" for number in range(4)]
    assert (tallies["s0"].left, tallies["s0"].left_s, tallies["s1"].left) == (8, 8.0, 4)


def test_batches_are_full_and_leave_out_what_is_dropped(tmp_path):
    stage = InBatches(lambda clip: clip.scored(x=1.0))
    made, _ = run(Answers(lambda clip: clip.dropped("odd") if clip.key == "k2" else clip), stage, given=clips(8), tmp_path=tmp_path)
    assert stage.sizes == [3, 3, 1] and sum(bool(clip.scores) for clip in made) == 7


class Sorts(SetStage):
    def __init__(self, answer):
        self.answer = answer

    def apply(self, clips):
        return self.answer(clips)


def test_comparing_stages_see_clips_by_key_and_keep_them():
    seen = []

    def first_only(clips):
        seen.extend(clip.key for clip in clips)
        return [clip.dropped("again") if number else clip for number, clip in enumerate(clips)]

    made, tally = run_set_stage(Named("unique", Sorts(first_only), {}), clips()[::-1])
    assert seen == ["k0", "k1", "k2", "k3"] and made["k1"].drop.stage == "unique" and (tally.entered, tally.left) == (4, 1)
    for wrong in (lambda clips: clips[:2], lambda clips: clips[::-1], lambda clips: []):
        with pytest.raises(UsageError, match="same ones in the same order"):
            run_set_stage(Named("unique", Sorts(wrong), {}), clips())


def test_comparing_stages_are_told_of_clips_that_cannot_be_kept():
    for wrong in ({"x": {1}}, {"x": float("nan")}, {"x": "\ud83d"}):
        with pytest.raises(UsageError, match="the stage 'unique' .* cannot be kept"):
            run_set_stage(Named("unique", Sorts(lambda clips, w=wrong: [clip.annotated(**w) for clip in clips]), {}), clips())


@pytest.mark.parametrize("error", [SampleError("odd", "name \udce9"), ValueError("\udce9" + "x" * 10**6)])
def test_what_errors_say_can_be_kept(error, tmp_path):
    made, _ = run(Answers(raising(error)), tmp_path=tmp_path)
    assert len(made[1].to_json().encode()) < 5000 and "\\udce9" in made[1].drop.measured
