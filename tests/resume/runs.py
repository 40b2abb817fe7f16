"""Trainings through `moviegen fit` that are killed, terminated or crash while saving, and are compared bit for bit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from moviegen_core.weights.checkpoint_io import WholeCheckpointIO
from moviegen_core.weights.sharded import StoredTensor
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_bytes

HERE = Path(__file__).parent
NUM_BATCHES, ACCUMULATED, SAVE_EVERY, VALIDATE_EVERY = 7, 2, 3, 4
TOY_WORLD = {
    "class_path": "ToyWorldData",
    "init_args": {"num_frames": 16, "height": 16, "width": 16, "batch_size": 2, "num_train": 14, "num_val": 4, "num_workers": 2},
}


def write_latents(folder, prefix, number, frames=2):
    with ShardWriter(folder, prefix=prefix, max_samples=10) as writer:
        for index in range(number):
            generator = torch.Generator().manual_seed(index)
            latent = torch.randn((4, frames, 4, 4), generator=generator)
            record = {"caption": f"clip number {index}", "fps": 8.0, "frames": 8 * frames, "height": 32, "width": 32, "duration_s": 1.0}
            writer.write(f"{prefix}{index:03d}", {"json": record, "latent.safetensors": latent_bytes(latent, {})})


class Runs:
    """Trainings of one configuration in one folder: text-to-video on cached latents unless said otherwise.

    Args:
        folder: where.
        ranks: processes; more than one need a mesh.
        mesh: arguments of the strategy.
        data: the section `data`.
        autoencoder: train the temporal autoencoder and its discriminator.
        max_steps: optimizer steps.
        limit: batches of an epoch that are used; all unless given.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ranks: int = 1,
        mesh: dict | None = None,
        data: dict | None = None,
        autoencoder: bool = False,
        max_steps: int = 12,
        limit: int | None = None,
    ):
        self.folder, self.ranks, self.autoencoder = folder, ranks, autoencoder
        schedule = {"class_path": "moviegen_core.learning_rate.WarmupCosineLR", "init_args": {"total_steps": max_steps, "warmup_steps": 3}}
        model: dict = {"lr_scheduler": schedule}
        if not autoencoder:
            model["conditioners"] = {"prompt": {"init_args": {"dropout": 0.3}}}
        if data is None:
            data = self._latents(folder / "shards", ranks)
            model["autoencoder"] = None
        self.config = {
            "model": {"init_args": model},
            "data": data,
            "trainer": {
                "max_steps": max_steps,
                **({} if autoencoder else {"accumulate_grad_batches": ACCUMULATED, "gradient_clip_val": 0.5}),
                "val_check_interval": VALIDATE_EVERY,
                "check_val_every_n_epoch": None,
                "limit_val_batches": 2,
                "limit_train_batches": limit,
                "enable_checkpointing": True,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "devices": ranks,
                **({"strategy": {"class_path": "moviegen_core.parallel.strategy.MeshStrategy", "init_args": mesh}} if mesh else {}),
            },
        }

    def _latents(self, folder: Path, ranks: int) -> dict:
        write_latents(folder, "train", 2 * NUM_BATCHES * ranks + 1)
        write_latents(folder, "val", 4)
        urls = {"urls": str(folder / "train-*.tar"), "val_urls": str(folder / "val-*.tar")}
        return {"class_path": "ShardData", "init_args": {**urls, "latents": True, "batch_size": 2, "num_workers": 2}}

    def life(self, name: str, *, max_steps: int | None = None, **options) -> dict:
        """Of a training that keeps its checkpoint and records in a folder of that name."""
        folder = self.folder / name
        config = json.loads(json.dumps(self.config))
        config["trainer"]["max_steps"] = max_steps or config["trainer"]["max_steps"]
        config["trainer"]["default_root_dir"] = str(folder)
        config["trainer"]["callbacks"] = [
            {"class_path": "recording.Recorder", "init_args": {"folder": str(folder / "record")}},
            {"class_path": "recording.Saboteur"},
            {"class_path": "ExponentialMovingAverage", "init_args": {"decay": 0.9}},
            {"class_path": "HalveOnPlateau", "init_args": {"patience": 0, "threshold": 0.05}},
            {"class_path": "Throughput", "init_args": {"every_n_steps": 2}},
            {"class_path": "LastCheckpoint", "init_args": {"every_n_train_steps": SAVE_EVERY, "dirpath": str(folder)}},
        ]
        if self.autoencoder:  # it logs no val_loss
            del config["trainer"]["callbacks"][3]
        file = self.folder / f"{name}-{max_steps}.yaml"
        file.write_text(yaml.safe_dump(config))
        return {
            "args": ["fit", "--config", "tae/debug" if self.autoencoder else "t2v/debug", "--config", str(file), "--ckpt_path", "last"],
            "ranks": self.ranks,
            **options,
        }

    def killed(self, name: str, after: int, *, rank: int = 0, signal: int = 9, whole: bool = True) -> dict:
        """Killed when a rank has recorded so many more lines since the folder was made."""
        record = str(self.folder / name / "record" / f"{rank}.jsonl")
        return self.life(name, kill={"rank": rank, "record": record, "after": after, "signal": signal, "whole": whole})

    def run(self, *lives: dict, timeout_s: float = 560) -> list[list[int]]:
        """Run them one after the other; the exit codes of their ranks."""
        plan = self.folder / "plan.json"
        plan.write_text(json.dumps(lives))
        repository = HERE.parents[1]
        paths = [HERE, repository, repository / "plugins", repository / "data"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, str(HERE / "lives.py"), str(plan)], capture_output=True, text=True, timeout=timeout_s, env=environment
        )
        self.output = done.stdout + done.stderr
        codes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[") and line.endswith("]")]
        assert len(codes) == len(lives), self.output[-4000:]
        return codes

    def record(self, name: str, rank: int) -> list[tuple[str, object]]:
        """What a rank wrote down in all lives of a training, in order."""
        lines = (self.folder / name / "record" / f"{rank}.jsonl").read_text().splitlines()
        return [(json.dumps(key), value) for key, value in map(json.loads, lines)]

    def checkpoint(self, name: str) -> dict:
        return WholeCheckpointIO().load_checkpoint(self.folder / name / "last.ckpt")

    def require_equal(self, name: str, reference: str, *, repeated: bool = True) -> None:
        """All lives together saw and computed what the reference did, nothing else, and ended with the same state.

        Args:
            name: the training that had several lives.
            reference: the one that had one.
            repeated: whether steps may have been made again, because a life ended after its last saving.
        """
        for rank in range(self.ranks):
            expected, found = dict(self.record(reference, rank)), self.record(name, rank)
            for key, value in found:
                assert value == expected.get(key), f"rank {rank}, {key}"
            assert dict(found).keys() == expected.keys()
            assert repeated or len(found) == len(expected)
        ours, theirs = (flatten(self.checkpoint(each)) for each in (name, reference))
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if re.search(r"dirpath|last_model_path", key):
                continue
            same = torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value
            assert same, f"{key}: {ours[key]} is not {value}"


def flatten(tree, prefix=""):
    if isinstance(tree, StoredTensor):
        tree = tree.read()
    if isinstance(tree, (dict, list)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {key: value for name, part in items for key, value in flatten(part, f"{prefix}{name}/").items()}
    return {prefix: tree}
