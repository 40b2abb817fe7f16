"""Sub-commands of `moviegen eval`."""

from collections.abc import Mapping
from json import dumps, loads
from pathlib import Path
from typing import Any

from moviegen_core.errors import UsageError
from moviegen_core.media.video import read_video
from moviegen_data.audio import read_audio
from moviegen_data.toyworld import SceneSpec
from moviegen_eval.hearing import SoundOracle
from moviegen_eval.hearing_score import compare, events_of, hearing_chance, summarise
from moviegen_eval.oracle import Oracle, chance


def oracle(folder: Path, *, ground_truth: Path | None = None, json: bool = False) -> None:
    """Read toy clips with the oracle and print how often it reads what the scene says.

    Args:
        folder: holds the clips.
        ground_truth: json lines with "file" and "scene"; `ground_truth.jsonl` in the folder unless given.
        json: print one json object and nothing else.
    """
    table = ground_truth or folder / "ground_truth.jsonl"
    if not table.is_file():
        exists, advice = "the oracle compares with json lines of file and scene", "give --ground_truth FILE"
        raise UsageError(f"there is no ground truth at {table}", exists, f"{advice}, or a folder that `write_media_folder` wrote")
    rows = [loads(line) for line in table.read_text(encoding="utf-8").split("\n") if line.strip()]
    absent = [row["file"] for row in rows if not (folder / row["file"]).is_file()]
    if absent:
        raise UsageError(f"{table} names {absent[0]}", f"{folder} lacks {len(absent)} of its {len(rows)} files", "render or copy them")
    score = Oracle().score([read_video(folder / row["file"]).video for row in rows], [SceneSpec.from_dict(row["scene"]) for row in rows])
    report = {"oracle": score.to_dict(), "chance": chance(), "num_objects": score.num_objects, "num_scored": score.num_scored}
    if json:
        print(dumps(report))
        return
    for name, value in report["oracle"].items():
        print(f"{name:8} {value:6.1%}   chance {report['chance'][name]:.1%}")


def sound(folder: Path, *, ground_truth: Path | None = None, tolerance_s: float = 0.04, json: bool = False) -> None:
    """Hear toy sounds with the oracle and print how often it hears what happens in the scene, beside chance.

    The sounds are what `moviegen predict` wrote with its json files (NAME.json beside NAME.wav or NAME.mp4), or files of a table.

    Args:
        folder: holds the sounds.
        ground_truth: json lines with "file", "scene" and "events"; `ground_truth.jsonl` in the folder, or the json files, unless given.
        tolerance_s: how far an onset may be from its event, in seconds.
        json: print one json object and nothing else.
    """
    table = ground_truth or folder / "ground_truth.jsonl"
    pairs = _listed(folder, table) if table.is_file() or ground_truth else _predicted(folder)
    truths = [events_of(metadata) for _, metadata in pairs]
    oracle = SoundOracle()
    heard = [oracle.read(sound.audio, sound.audio_hz) for sound in (read_audio(path) for path, _ in pairs)]
    score = summarise([compare(hearing, *truth, tolerance_s=tolerance_s) for hearing, truth in zip(heard, truths, strict=True)])
    guess = hearing_chance([events for _, events in truths], tolerance_s=tolerance_s)
    if json:
        counts = {"num_clips": score.num_clips, "num_onsets": score.onsets.num_reference}
        print(dumps({"oracle": score.to_dict(), "chance": guess, **counts}))
        return
    for name, value in score.to_dict().items():
        print(f"{name:15} {value:6.1%}" + (f"   chance {guess[name]:.1%}" if name in guess else ""))


def _listed(folder: Path, table: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Files and metadata of a table of json lines."""
    if not table.is_file():
        raise UsageError(f"ground_truth={table} was given", "there is no such file", "give json lines of file, scene and events")
    rows = [loads(line) for line in table.read_text(encoding="utf-8").split("\n") if line.strip()]
    return _present([(folder / row["file"], row) for row in rows], table)


def _predicted(folder: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Files and metadata of a folder of predictions; a wav goes before an mp4, whose sound is compressed."""
    pairs = []
    for description in sorted(folder.glob("*.json")):
        metadata = loads(description.read_text(encoding="utf-8")).get("metadata", {})
        base = description.with_suffix("")
        wav, mp4 = base.with_name(f"{base.name}.wav"), base.with_name(f"{base.name}.mp4")
        pairs.append((wav if wav.is_file() else mp4, metadata))
    return _present(pairs, folder)


def _present(pairs: list[tuple[Path, Mapping[str, Any]]], source: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    if not pairs:
        exists = "the oracle wants json files of `moviegen predict`, or a ground_truth.jsonl"
        raise UsageError(f"{source} holds no description of a sound", exists, "give the folder that predictions were written to")
    absent = [path for path, _ in pairs if not path.is_file()]
    if absent:
        raise UsageError(f"{source} names {absent[0].name}", f"{len(absent)} of its {len(pairs)} files are absent", "predict or copy them")
    return pairs
