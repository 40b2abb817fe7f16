"""Memory of a billion parameters on 2 and 4 processes, held against the planner's formula; and that no process ever holds the whole model.

    python benchmarks/mesh_memory.py --meshes 2x1x1 1x1x2 2x1x2

Every process trains the 1B backbone in fp32 with AdamW for two steps on few tokens, through Trainer and MeshStrategy, and reports the
peaks of its resident memory while building and while training. It takes about 20 GiB of main memory and, on two cores, some minutes.
Results go to benchmarks/results/mesh_memory.json.
"""

import argparse
import json
import logging
import math
import multiprocessing
import os
import socket
import warnings
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from moviegen_core.batch import MediaBatch
from moviegen_core.generator import FlowModel
from moviegen_core.parallel.planner.layout import Layout
from moviegen_core.parallel.planner.memory import estimate_memory
from moviegen_core.parallel.planner.parameters import read_parameters
from moviegen_core.parallel.strategy import MeshStrategy
from moviegen_t2v.model import VideoTransformer
from moviegen_text.embedded import HashedWordConditioner

HERE = Path(__file__).parent
GIB = 2**30
SIZES = {"num_layers": 20, "width": 1792, "ffn_width": 4864, "num_heads": 14, "max_height": 32, "max_width": 32}  # model/t2v/1b.yaml
LATENT = (16, 1, 8, 8)
CONTEXT = 8


def peak_gib() -> float:
    """Most resident memory of this process since `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def forget_peak() -> None:
    """Let the peak start anew from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


class Watch(Callback):
    """Reads the peaks of building and of training."""

    def __init__(self) -> None:
        self.built = self.trained = 0.0

    def on_train_start(self, trainer, pl_module) -> None:
        """Building is over."""
        self.built = peak_gib()
        forget_peak()

    def on_train_end(self, trainer, pl_module) -> None:
        """Training is over."""
        self.trained = peak_gib()


def expected_gib(model: FlowModel, mesh: tuple[int, int, int]) -> tuple[float, float]:
    """Peaks beside the interpreter's own memory: while building, a part drawn whole beside all shards; in training, the planner's."""
    data, context, tensor = mesh
    layout = Layout(data=data, context=context, tensor=tensor, precision="fp32")
    footprint = model.backbone.footprint(LATENT, CONTEXT, context=context, tensor=tensor, element_bytes=4)
    memory = estimate_memory(read_parameters(model.backbone), footprint, layout)
    others = sum(local(p) for p in model.conditioners.parameters())
    building = 4 * (sum(local(p) for p in model.parameters()) + max(p.numel() for p in model.parameters()))
    return building / GIB, (memory.tensors + 16 * others) / GIB


def local(parameter: nn.Parameter) -> int:
    """Numbers of a parameter that this process holds."""
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()


def fit(mesh: tuple[int, int, int], sizes: dict[str, int]) -> tuple[FlowModel, Watch, Trainer]:
    """Three steps of training."""
    data, context, tensor = mesh
    batch = MediaBatch(captions=["a"], keys=["a"], latents=torch.randn(1, *LATENT))
    model = FlowModel(
        backbone=partial(VideoTransformer, **sizes), conditioners={"prompt": HashedWordConditioner}, optimizer=torch.optim.AdamW
    )
    watch = Watch()
    trainer = Trainer(
        accelerator="cpu", devices=math.prod(mesh), max_steps=3, callbacks=[watch], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        strategy=MeshStrategy(data_parallel_size=data, context_parallel_size=context, tensor_parallel_size=tensor),
    )  # fmt: skip
    forget_peak()
    trainer.fit(model, DataLoader([batch] * 3, batch_size=None, shuffle=False))
    return model, watch, trainer


def train(mesh: tuple[int, int, int], folder: Path) -> None:
    """Leaves what was measured in a file."""
    # What torch loads at its first step is the interpreter's, not the model's.
    fit(mesh, {**SIZES, "num_layers": 1, "width": 64, "ffn_width": 64, "num_heads": 4})
    forget_peak()
    base = peak_gib()
    model, watch, trainer = fit(mesh, SIZES)
    building, training = expected_gib(model, mesh)
    whole = sum(p.numel() for p in model.parameters())
    found = {
        "parameters": whole, "whole_gib": 4 * whole / GIB, "interpreter_gib": base, "built_gib": watch.built - base,
        "built_expected_gib": building, "trained_gib": watch.trained - base, "trained_expected_gib": training,
    }  # fmt: skip
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))


def enter(rank: int, count: int, port: int, mesh: tuple[int, int, int], folder: Path, num_layers: int) -> None:
    """Become one process of a mesh."""
    SIZES["num_layers"] = num_layers
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    place = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    train(mesh, folder)


def measure(mesh: tuple[int, int, int], num_layers: int) -> list[dict[str, float]]:
    """What every process of a mesh reports."""
    import tempfile

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=enter, args=(rank, math.prod(mesh), port, mesh, Path(folder), num_layers))
            for rank in range(math.prod(mesh))
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [json.loads(file.read_text()) for file in sorted(Path(folder).iterdir())]


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--meshes", nargs="+", default=["2x1x1", "1x1x2", "2x1x2"], help="data x context x tensor")
    parser.add_argument("--layers", type=int, default=SIZES["num_layers"])
    args = parser.parse_args()
    file = HERE / "results" / "mesh_memory.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for mesh in args.meshes:
        found = measure(tuple(map(int, mesh.split("x"))), args.layers)
        if not found:
            raise SystemExit(f"{mesh}: no process reported; was there enough memory?")
        for rank, told in enumerate(found):
            print(
                f"{mesh} rank {rank}: {told['parameters'] / 1e9:.2f} B parameters, {told['whole_gib']:.2f} GiB whole; "
                f"building {told['built_gib']:.2f} GiB (formula {told['built_expected_gib']:.2f}), "
                f"training {told['trained_gib']:.2f} GiB (formula {told['trained_expected_gib']:.2f})"
            )
        results[f"{mesh}, {args.layers} layers"] = found
        file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
