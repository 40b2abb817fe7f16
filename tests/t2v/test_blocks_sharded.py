"""Checkpointed and compiled blocks on two processes: what they learn is what plain blocks of the same mesh learn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json
import sys
import warnings

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.nn import blocks
from moviegen_core.parallel.plan import CONTEXT, DATA, TENSOR, ParallelPlan
from moviegen_t2v.model import VideoTransformer

warnings.simplefilter("ignore")
torch.set_num_threads(1)
blocks.BACKEND = "aot_eager"
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)


def step(mesh, **settings):
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "width": 32, "ffn_width": 48, "num_heads": 4, "in_channels": 4, "patch_size": (1, 1, 1)}
    backbone = VideoTransformer(**sizes, max_frames=4, max_height=4, max_width=4, **settings)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    names = list(backbone.state_dict())
    backbone.parallelize(ParallelPlan(init_device_mesh("cpu", mesh, mesh_dim_names=(DATA, CONTEXT, TENSOR))))
    assert list(backbone.state_dict()) == names
    x, context, mask = torch.randn(2, 4, 3, 3, 3), torch.randn(2, 5, 32), torch.rand(2, 5) < 0.7
    for _ in range(3):  # the first pass of "selective" counts
        backbone.zero_grad()
        loss = (backbone(x, torch.tensor([0.2, 0.7]), Conditioning(context=context, context_mask=mask)) - x).square().mean()
        loss.backward()
    full = lambda g: g.full_tensor() if isinstance(g, DTensor) else g
    return [loss.detach(), *(full(p.grad) for p in backbone.parameters())]


far, refused = {}, []
for name, mesh in {"dp2": (2, 1, 1), "cp2": (1, 2, 1), "tp2": (1, 1, 2)}.items():
    plain = step(mesh)
    for how in ("none", "selective", "block"):
        for compiled in (None, "default"):
            if how != "none" or compiled:
                try:
                    found = step(mesh, activation_checkpointing=how, compile_blocks=compiled)
                except UsageError as error:
                    refused.append(str(error))
                    continue
                far[f"{name} {how} {compiled}"] = max(((a - b).norm() / b.norm()).item() for a, b in zip(found, plain))
try:
    step((2, 1, 1), compile_blocks="reduce-overhead")
except UsageError as error:
    refused.append(str(error))
if dist.get_rank() == 0:
    print(json.dumps({"far": far, "refused": refused}))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "meeting"), str(rank)],
            env=os.environ | paths,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=500) for rank in ranks]
    assert not any(rank.returncode for rank in ranks), outputs[0][1][-3000:] + outputs[1][1][-3000:]
    found = json.loads(outputs[0][0].splitlines()[-1])
    assert set(found["far"]) == {
        f"{mesh} {how} {compiled}"
        for mesh in ("dp2", "cp2", "tp2")
        for how in ("none", "selective", "block")
        for compiled in (None, "default")
        if (how, compiled) != ("none", None) and (mesh, how, compiled) != ("tp2", "selective", "default")
    }
    assert max(found["far"].values()) < 1e-5, found["far"]
    assert len(found["refused"]) == 2
    assert "tensor_parallel_size=2" in found["refused"][0] and "reduce-overhead" in found["refused"][1]
