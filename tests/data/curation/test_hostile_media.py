"""Real files that are broken or awkward, each with what must come of it when it is curated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moviegen_core.errors import UsageError
from moviegen_data.curation.command import curate, why
from moviegen_data.reader import ShardReader

FILMS = {
    "probe": {"class_path": "Probe"},
    "duration": {"class_path": "Duration", "init_args": {"min_s": 0.5, "max_s": 120}},
    "static": {"class_path": "Static"},
    "scenes": {"class_path": "Scenes", "init_args": {"min_s": 0.5, "max_s": 1, "min_scene_s": None, "head_s": 0, "black_luma": None}},
    "look": {"class_path": "PerceptualHash"},
    "duplicates": {"class_path": "Duplicates", "init_args": {"vector": "perceptual_hash"}},
}
SOUNDS = {"probe": {"class_path": "Probe"}, "sound": {"class_path": "Sound"}}

Facts = dict[str, Any]
OUTCOMES: dict[str, Facts | str] = {  # what the json of a clip says, or stage and reason where there is none
    "truncated_no_index.mp4": "probe: cannot be opened",
    "zero_byte.mp4": "probe: cannot be opened",
    "text_renamed.mp4": "probe: cannot be opened",
    "garbage_in_middle.mp4": "static: cannot be decoded",
    "audio_only.mp4": "probe: no video stream",
    "nan_samples.wav": "sound: the sound holds NaN or infinite values",
    "one_frame.mp4": "duration: too short",
    "variable_frame_rate.mp4": {"height": 180, "width": 320},
    "odd_321x241.mp4": {"height": 241, "width": 428},
    "rotated_90.mp4": {"height": 320, "width": 180, "rotation": 90},
    "ten_bit_yuv420p10.mp4": {"height": 180, "width": 320, "pixel_format": "yuv420p10le"},
    "alpha_vp9.webm": "static: static",  # the picture lies in the alpha plane; what is left is black
    "shard_cut_in_member.tar": "no media",
    "shard_path_traversal.tar": "no media",
    "shard_symlink.tar": "no media",
}


@pytest.fixture
def configured(tmp_path) -> Callable[[dict[str, Any]], str]:
    def write(stages: dict[str, Any]) -> str:
        path = tmp_path / "config.yaml"
        path.write_text("# a test\n" + yaml.safe_dump({"stages": stages}, sort_keys=False))
        return str(path)

    return write


@pytest.mark.media
def test_every_file_of_the_manifest_has_an_outcome(media):
    files = [entry["file"] for entry in json.loads((media / "MANIFEST.json").read_text())]
    assert {file.removeprefix("hostile/") for file in files if file.startswith("hostile/")} == set(OUTCOMES)


@pytest.mark.media
@pytest.mark.parametrize("name", OUTCOMES)
def test_what_comes_of_it(name, media, configured, tmp_path):
    outcome, config = OUTCOMES[name], configured(SOUNDS if name.endswith(".wav") else FILMS)
    inner = tmp_path / "outer/inner"  # names that climb two folders would still land where we look
    folder, output = inner / "media", inner / "out"
    folder.mkdir(parents=True)
    (folder / name).write_bytes((media / "hostile" / name).read_bytes())
    if outcome == "no media":
        with pytest.raises(UsageError, match="it holds no media"):
            curate(str(folder), str(output), config=config)
        assert not output.exists()
    else:
        told = curate(str(folder), str(output), config=config)
        assert told["num_media"] == 1
        if isinstance(outcome, str):
            (dropped,) = why(str(output), name)
            assert f"{dropped['stage']}: {dropped['reason']}" == outcome and told["num_clips"] == 0
        else:
            _check(output, outcome)
    assert {path.name for path in folder.iterdir()} == {name}
    assert {path.name for path in tmp_path.iterdir()} == {"outer", "config.yaml"}
    assert {path.name for path in inner.parent.iterdir()} == {"inner"} and {path.name for path in inner.iterdir()} <= {"media", "out"}


def _check(output: Path, outcome: Facts) -> None:
    reader = ShardReader(str(output))
    assert 1 <= len(reader) <= 2
    for number in range(len(reader)):
        facts = reader[number].metadata
        assert {name: facts[name] for name in outcome} == outcome
        assert facts["duration_s"] == pytest.approx(facts["cut"]["end_s"] - facts["cut"]["start_s"], abs=0.35), (
            "but for B frames at the end"
        )


@pytest.mark.media
def test_all_at_once(media, configured, tmp_path):
    told = curate(str(media / "hostile"), str(tmp_path / "out"), config=configured(FILMS))
    assert told["num_media"] == 12 and told["not_media"]["num_skipped"] == 3
    records = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()]
    wanted = {name: outcome for name, outcome in OUTCOMES.items() if isinstance(outcome, str) and name.endswith(".mp4")}
    told_of = {record["source"]: f"{record['stage']}: {record['reason']}" for record in records}
    assert {name: told_of.get(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, {"large.png": "too large", "long.mp4": "too many frames"}),
        ({"max_pixels": 100, "max_frames": 9}, {"large.png": "too large", "long.mp4": "too many frames", "good.mp4": "too large"}),
    ],
)
def test_bombs_are_refused_by_limits_that_can_be_set(limits, told, bombs, configured, tmp_path):
    config = configured({"probe": {"class_path": "Probe", "init_args": limits}})
    curate(str(bombs), str(tmp_path / "out"), config=config)
    records = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()]
    assert {record["source"]: record["reason"] for record in records} == told
