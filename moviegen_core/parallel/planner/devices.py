"""GPUs and the links between them, from the makers' data sheets. Imports no torch."""

from dataclasses import dataclass, replace

from moviegen_core.errors import UsageError, what_exists


@dataclass(frozen=True)
class Device:
    """A GPU in a node of several.

    Args:
        memory_gib: memory as a data sheet counts it, in GiB.
        bf16_tflops: dense (not sparse) matrix products in bf16, TFLOP/s.
        fp32_tflops: the same in fp32, without TF32.
        memory_gb_s: memory bandwidth, GB/s.
        link_gb_s: bandwidth to the other GPUs of the node, GB/s in one direction.
        network_gb_s: bandwidth to other nodes per GPU, GB/s in one direction.
        gpus_per_node: GPUs that the links join.
        source: where the figures are from.
    """

    memory_gib: float
    bf16_tflops: float
    fp32_tflops: float
    memory_gb_s: float
    link_gb_s: float
    network_gb_s: float
    gpus_per_node: int = 8
    source: str = ""


_H100 = Device(80, 989, 67, 3350, 450, 50, source="NVIDIA H100 SXM data sheet; 400 Gb/s per GPU between nodes as in 3.1.6")
_A100 = Device(80, 312, 19.5, 2039, 300, 25, source="NVIDIA A100 SXM data sheet; 200 Gb/s per GPU between nodes, as in a DGX A100")
DEVICES = {
    "h100-80gb": _H100,
    "h200-141gb": replace(_H100, memory_gib=141, memory_gb_s=4800, source="NVIDIA H200 SXM data sheet; network as for h100-80gb"),
    "a100-80gb": _A100,
    "a100-40gb": replace(_A100, memory_gib=40, memory_gb_s=1555, source="NVIDIA A100 40GB SXM data sheet; network as for a100-80gb"),
    "b200-180gb": Device(180, 2250, 75, 7700, 900, 50, source="NVIDIA DGX B200 data sheet, an eighth of the system's figures"),
    "l40s-48gb": Device(48, 362, 91.6, 864, 32, 12.5, source="NVIDIA L40S data sheet; PCIe 4.0 x16 between GPUs, 100 Gb/s per GPU"),
    "rtx4090-24gb": Device(24, 165, 82.6, 1008, 32, 3.1, source="NVIDIA Ada white paper; PCIe 4.0 x16 between GPUs, 25 Gb/s per GPU"),
}


def find_device(name: str) -> Device:
    """Look a GPU up.

    Args:
        name: as in `DEVICES`, e.g. h100-80gb.

    Raises:
        UsageError: it is not in the table.
    """
    found = DEVICES.get(name.lower())
    if found is None:
        raise UsageError(f"--gpu {name} was given", what_exists(name, DEVICES, noun="GPU"), f"give one of {', '.join(DEVICES)}")
    return found
