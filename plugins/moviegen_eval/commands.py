"""Sub-commands of `moviegen eval`."""

from json import dumps, loads
from pathlib import Path

from moviegen_core.errors import UsageError
from moviegen_core.media.video import read_video
from moviegen_data.toyworld import SceneSpec
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
    rows = [loads(line) for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
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
