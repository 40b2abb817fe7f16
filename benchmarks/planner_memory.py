"""The planner's memory against PyTorch's own tracker: the 30 B preset at 73,728 tokens, forward, backward and AdamW, without a GPU.

    python benchmarks/planner_memory.py [--layers 48] [--only 0 1] [--output benchmarks/results/planner_memory.json]

Every step runs under fake tensors and a fake process group; see `moviegen_core/parallel/planner/simulation.py` for what that sees.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import torch

from moviegen_core.parallel.planner.layout import Layout
from moviegen_core.parallel.planner.memory import GIB, estimate_memory
from moviegen_core.parallel.planner.parameters import shard_parameters
from moviegen_core.parallel.planner.simulation import simulate_step
from moviegen_t2v.model import VideoTransformer

LATENT_SHAPE, CONTEXT_LENGTH = (16, 32, 96, 96), 768  # 73,728 tokens; three encoders of 256 tokens
LAYOUTS = [
    Layout(768, 2, 4, "none"),  # the paper's mesh for the last stage at 768 px, with all that its GPUs would keep
    Layout(768, 2, 4, "selective", 0.5),
    Layout(768, 2, 4, "block"),
    Layout(512, 2, 4, "selective", 1.0),
    Layout(1536, 1, 4, "block"),
    Layout(6144, 1, 1, "block"),
    Layout(768, 1, 8, "selective", 0.25),
    Layout(768, 8, 1, "block"),
    Layout(64, 4, 4, "selective", 0.5, micro_batch=2),
    Layout(4, 2, 8, "block"),
    Layout(2, 2, 2, "block", precision="fp32"),
]


def compare(layout: Layout, num_layers: int) -> dict[str, object]:
    how = {"activation_checkpointing": layout.checkpointing, "kept_activations": layout.kept_activations}

    def build() -> VideoTransformer:
        return VideoTransformer(num_layers=num_layers, **how)

    started = time.perf_counter()
    measured = simulate_step(build, layout, LATENT_SHAPE, CONTEXT_LENGTH)
    seconds = time.perf_counter() - started
    with torch.device("meta"):
        backbone = build()
    mesh = {"context": layout.context, "tensor": layout.tensor, "element_bytes": layout.element_bytes}
    footprint = backbone.footprint(LATENT_SHAPE, CONTEXT_LENGTH, **mesh)
    estimated = estimate_memory(shard_parameters(backbone, layout.tensor), footprint, layout).tensors
    return {
        "layout": str(layout),
        "measured_gib": round(measured / GIB, 2),
        "estimated_gib": round(estimated / GIB, 2),
        "ratio": round(estimated / measured, 3),
        "seconds": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of layouts; all unless given")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    rows = []
    for layout in [LAYOUTS[number] for number in args.only or range(len(LAYOUTS))]:
        rows.append(compare(layout, args.layers))
        print(rows[-1], flush=True)
    if args.output:
        result = {"torch": torch.__version__, "layers": args.layers, "latent_shape": LATENT_SHAPE, "context": CONTEXT_LENGTH, "rows": rows}
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
