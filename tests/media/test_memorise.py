"""The whole road with real clips: pack them, train an autoencoder, learn eight of them by heart from their captions, make them anew.

With MOVIEGEN_MEDIA_OUTPUT set, a contact sheet and the figures are left in that folder.
"""

import csv
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moviegen_core.cli import main
from moviegen_core.files import write_bytes
from moviegen_core.media.images import contact_sheet
from moviegen_core.media.video import read_video
from moviegen_core.weights import build_from_checkpoint
from moviegen_data.datamodule import ShardData

pytestmark = [
    pytest.mark.media,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),  # predicting needs no LastCheckpoint
    pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices"),  # batches bring their own keys
]

# Small files, so that decoding them over and over costs little beside training; every one a different scene.
LEARNT = (
    "carphone_176x144.mp4",
    "cat_368x480_20fps.mp4",
    "dog_barks_480x360_15fps.mp4",
    "drummer_204x360_36s.mp4",
    "goldfish_480x480.mp4",
    "makeup_320x240.avi",
    "swans_480x480.mp4",
    "weightlifting_320x240.mp4",
)
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
MAX_LOSS_DB = 2.0


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - start, 1)


@pytest.fixture
def all_cores() -> Iterator[int]:
    """Training is the one test that gains by several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    yield torch.get_num_threads()
    torch.set_num_threads(before)


def write_captions(path: Path, captions: Mapping[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "caption"), *captions.items()])
    return path


def read_clips(shards: Path) -> dict[str, Tensor]:
    """The clips that are trained on, by key."""
    data = ShardData(urls=str(shards), num_frames=16, height=64, width=64, fps=8, batch_size=1, clip_position="first")
    return {batch.keys[0]: batch.video[0].clone() for batch in data.predict_dataloader()}


def psnr_db(video: Tensor, reference: Tensor) -> float:
    return -10.0 * math.log10(float((video - reference).square().mean()) / 4.0)


def mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()


def test_eight_real_clips_are_learnt_by_heart(media, tmp_path, monkeypatch, all_cores):
    output = Path(os.environ["MOVIEGEN_MEDIA_OUTPUT"]).resolve() if "MOVIEGEN_MEDIA_OUTPUT" in os.environ else None
    monkeypatch.chdir(tmp_path)
    clock = Stopwatch()
    notes = {
        Path(entry["file"]).name: entry["note"] for entry in json.loads((media / "MANIFEST.json").read_text()) if entry["kind"] == "video"
    }
    folder = str(media / "video")

    with clock("pack"):
        captions = write_captions(tmp_path / "all.csv", notes)
        main(["data", "pack", folder, "all", "--captions", str(captions)])
        captions = write_captions(tmp_path / "eight.csv", {name: notes[name] for name in LEARNT})
        main(["data", "pack", folder, "eight", "--captions", str(captions)])
    report = json.loads(Path("all/pack-report.json").read_text())
    assert report["num_samples"] == len(list((media / "video").iterdir())) and not report["num_without_caption"], report
    assert json.loads(Path("eight/pack-report.json").read_text())["num_samples"] == len(LEARNT)

    with clock("tae"):
        main(["fit", "--config", "media/tae", "--data.urls=eight", "--data.val_urls=eight", "--trainer.default_root_dir=tae", *QUIET])
    weights = Path("tae/checkpoints/last.ckpt")
    with clock("latents"):
        args = ["--data.predict_urls=eight", "--trainer.callbacks.output=latents", *QUIET]
        main(["predict", "--config", "media/latents", f"--ckpt_path={weights}", *args])
    with clock("t2v"):
        args = [
            "--data.urls=latents",
            "--data.val_urls=latents",
            f"--model.autoencoder_checkpoint={weights}",
            "--trainer.default_root_dir=t2v",
            *QUIET,
        ]
        main(["fit", "--config", "media/t2v", *args])
    with clock("predict"):
        prompts = [{"key": Path(name).stem, "caption": notes[name]} for name in LEARNT]
        Path("prompts.json").write_text(json.dumps(prompts))
        args = ["--data.prompts=prompts.json", "--trainer.callbacks.output=films", *QUIET]
        main(["predict", "--config", "media/predict", "--ckpt_path=t2v/checkpoints/last.ckpt", *args])

    with clock("compare"):
        sources = read_clips(Path("all"))
        keys = [prompt["key"] for prompt in prompts]
        generated = {key: read_video(f"films/{key}.mp4").video for key in keys}
        autoencoder = build_from_checkpoint(weights).eval()
        with torch.no_grad():
            truth = torch.stack([sources[key] for key in keys])
            rebuilt = dict(zip(keys, autoencoder.decode(autoencoder.encode(truth), num_frames=16).clamp(-1, 1), strict=True))
    own = {key: psnr_db(rebuilt[key], sources[key]) for key in keys}
    made = {key: psnr_db(generated[key], sources[key]) for key in keys}
    nearest = {key: max(sources, key=lambda other, key=key: psnr_db(generated[key], sources[other])) for key in keys}
    figures = {
        "nearest_correct": sum(key == found for key, found in nearest.items()),
        "num_learnt": len(keys),
        "num_candidates": len(sources),
        "mean_reconstruction_db": round(mean(own), 2),
        "mean_generated_db": round(mean(made), 2),
        "clips": {
            key: {"reconstruction_db": round(own[key], 2), "generated_db": round(made[key], 2), "nearest": nearest[key]} for key in keys
        },
        "seconds": clock.seconds | {"all": round(sum(clock.seconds.values()), 1)},
        "date": date.today().isoformat(),
        "machine": f"{processor()}, {all_cores} threads",
    }
    print(json.dumps(figures, indent=1))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_bytes(output / "media.json", (json.dumps(figures, indent=2) + "\n").encode())
        rows = [
            (f"{key}: {name}", clips[key])
            for key in keys
            for name, clips in (("source", sources), ("rebuilt", rebuilt), ("generated", generated))
        ]
        contact_sheet(output / "media.png", [clip for _, clip in rows], [title for title, _ in rows], columns=3)
    assert nearest == {key: key for key in keys}
    assert mean(made) >= mean(own) - MAX_LOSS_DB
