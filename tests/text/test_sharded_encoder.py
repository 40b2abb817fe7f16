"""A frozen encoder sharded over two processes encodes as the whole one does."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from mesh_worker import fork, quiet
from moviegen_core.batch import MediaBatch
from moviegen_core.parallel.plan import CONTEXT, DATA, TENSOR, ParallelPlan
from moviegen_text.t5 import T5Conditioner

BATCH = MediaBatch(captions=["a red ball", "two squares meet"], keys=["a", "b"])


def encode(folder):
    torch.manual_seed(0)
    whole = T5Conditioner(8, pretrained=folder, dtype="float32")
    torch.manual_seed(0)
    sharded = T5Conditioner(8, pretrained=folder, dtype="float32", shard_encoder=True)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    load, log = sharded._frozen._load, Path(sys.argv[3])

    def loading():
        with open(log, "a") as file:
            file.write(f"begins {rank}\\n")
            file.flush()
            network = load()
            time.sleep(0.3)
            file.write(f"ends {rank}\\n")
        return network

    sharded._frozen._load = loading
    sharded.parallelize(ParallelPlan(init_device_mesh("cpu", (2, 1, 1), mesh_dim_names=(DATA, CONTEXT, TENSOR))))
    torch.testing.assert_close(sharded(BATCH).context, whole(BATCH).context)
    torch.testing.assert_close(sharded.null(BATCH).context, whole.null(BATCH).context)
    sizes = [sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in c.network.parameters()) for c in (sharded, whole)]
    assert sizes[0] < 0.6 * sizes[1], sizes
    lacking = T5Conditioner(8, pretrained=folder, dtype="float32", shard_encoder=True)
    lacking.parallelize(sharded._frozen.plan)
    if rank == 1:
        lacking._frozen._load = lambda: 1 / 0
    try:
        lacking(BATCH)
    except ZeroDivisionError:
        return
    raise AssertionError("a process that cannot load is not heard of by the other")


quiet()
fork(2, encode, sys.argv[1])
"""


def test_sharded_over_two_processes(t5: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    helpers = Path(__file__).parents[1] / "core"
    done = subprocess.run([sys.executable, "-c", SCRIPT, t5, helpers, log], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert log.read_text().split() == ["begins", "0", "ends", "0", "begins", "1", "ends", "1"], (
        "one process at a time holds the whole encoder"
    )
