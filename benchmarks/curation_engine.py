"""Clips per second and core that curation works through, in one process, with workers, and on Ray.

    python benchmarks/curation_engine.py --clips 10000

The clips are the toy world's (2 s of 16 frames, 64 px). They pass through the stages of curation/small, with limits that let films of
their size through, and become shards, each time from nothing. The subjects: one process; one and two worker processes; Ray with one and
with two cores. What a subject needs to start (Python, torch, Ray) is in its time, as a user would meet it; `stages_s` is what the stages
took, summed over workers. All subjects must write the same shards, byte for byte, or the benchmark fails. Text recognition is left out
unless `--text` is given: it takes several times as long as all other stages together. Results go to
benchmarks/results/curation_engine.json.
"""

import argparse
import contextlib
import hashlib
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from measuring import RESULTS, processor, write_record

from moviegen_data.curation import Engine, LocalEngine, RayEngine, curate
from moviegen_data.toyworld.media import write_media_folder

ENGINES: dict[str, Any] = {
    "one process": LocalEngine,
    "1 worker": lambda: LocalEngine(num_workers=1),
    "2 workers": lambda: LocalEngine(num_workers=2),
    "Ray, 1 core": lambda: RayEngine(num_cpus=1),
    "Ray, 2 cores": lambda: RayEngine(num_cpus=2),
}
GROUNDS = ("stripes", "checker", "gradient")  # plain ones are seen as borders
STAGES: dict[str, Any] = {
    "duration": {"class_path": "Duration", "init_args": {"min_s": 1, "max_s": 120}},
    "resolution": {"class_path": "Resolution", "init_args": {"min_width": 64, "min_height": 64}},
    "motion": {"class_path": "Motion", "init_args": {"min_score": 0.0, "min_vector_px": 0.0, "max_vector_px": 1000.0}},
    "scenes": {"class_path": "Scenes", "init_args": {"min_s": 1, "max_s": 16, "min_scene_s": None, "head_s": 0, "max_scenes": 1}},
}


def run(folder: Path, output: Path, configs: list[str], engine: Engine) -> dict[str, Any]:
    """Curate the folder once; how long that took, and what came of it."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        told = curate(str(folder), str(output), config=configs, engine=engine, thumbnails=0)
    seconds = time.perf_counter() - start
    shards = sorted(output.glob("*.tar"))
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in shards)).hexdigest()
    spent_s = {stage["name"]: round(stage["spent_s"], 1) for stage in told["stages"]}
    return {
        "seconds": round(seconds, 1),
        "clips_per_s": round(told["num_media"] / seconds, 1),
        "kept": told["num_clips"],
        "stages_s": round(sum(spent_s.values()), 1),
        "by_stage_s": spent_s,
        "shards": digest[:16],
    }


def main() -> None:
    """Render, curate with every engine, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--text", action="store_true", help="recognise text, too")
    parser.add_argument("--folder", type=Path, help="where the clips are rendered, or lie already")
    parser.add_argument("--output", type=Path, default=RESULTS / "curation_engine.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch) / "clips"
        if not folder.is_dir():
            write_media_folder(folder, num_clips=args.clips, num_frames=16, height=64, width=64, fps=8.0, grounds=GROUNDS)
        config = Path(scratch) / "config.yaml"
        stages = STAGES | ({} if args.text else {"text": None})
        config.write_text("# Toy films\n" + yaml.safe_dump({"stages": stages}))
        for name in args.engines:
            row = table[name] = run(folder, Path(scratch) / name.replace(" ", "_"), ["curation/small", str(config)], ENGINES[name]())
            print(
                f"{name}: {row['clips_per_s']} clips/s, {row['seconds']} s, of which stages {row['stages_s']} s; {row['kept']} kept",
                flush=True,
            )
    if len({row["shards"] for row in table.values()}) > 1:
        raise SystemExit(f"the engines wrote different shards: { {name: row['shards'] for name, row in table.items()} }")
    growth = {
        f"{two} over {one}": round(table[two]["clips_per_s"] / table[one]["clips_per_s"], 2)
        for one, two in (("1 worker", "2 workers"), ("Ray, 1 core", "Ray, 2 cores"), ("one process", "2 workers"))
        if one in table and two in table
    }
    print(", ".join(f"{name}: {value}" for name, value in growth.items()))
    write_record(
        {"clips": args.clips, "text": args.text, "engines": table, "growth": growth, "machine": processor(), "cpu_count": os.cpu_count()},
        args.output,
    )
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
