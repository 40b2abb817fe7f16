"""How long a step takes, from what is computed, moved and sent: a model good enough to rank plans, not a promise."""

import math
from dataclasses import asdict, dataclass

from moviegen_core.footprint import Footprint
from moviegen_core.nn.checkpointing import choose
from moviegen_core.parallel.planner.devices import Device
from moviegen_core.parallel.planner.layout import Layout
from moviegen_core.parallel.planner.parameters import Parameters

# What large operations reach of a data sheet's figures. Public trainings of video transformers on H100 reach 45 to 52 % over a whole step.
PRODUCTS, MOVES, LINKS, NETWORK = 0.65, 0.8, 0.75, 0.75
# From asking for a collective operation to its first bytes, per doubling of the group.
LATENCY_S = 10e-6
# Kernels of a block's forward pass in eager mode, and what starting one costs; short ones wait for the CPU.
KERNELS, START_S = 60, 6e-6
# Reads and writes of what a block keeps: forward, and backward.
FORWARD_PASSES, BACKWARD_PASSES = 2, 3


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step; waits that computation hides are left out.

    Args:
        products: matrix products and attention of the model itself.
        again: what is computed a second time in the backward pass.
        moves: everything else that is computed, bounded by memory bandwidth.
        tensor: exchanges of the tensor-parallel group.
        context: exchanges of keys and values.
        starts: starting kernels, as far as they are too short to hide it.
        shards: gathering parameters and scattering gradients, as far as computation does not hide it.
        optimizer: the update.
    """

    products: float
    again: float
    moves: float
    tensor: float
    context: float
    starts: float
    shards: float
    optimizer: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(asdict(self).values())


def estimate_time(num_flops: int, parameters: Parameters, footprint: Footprint, layout: Layout, device: Device) -> StepTime:
    """Estimate one optimizer step.

    Args:
        num_flops: of one sample's forward pass on all processes together, by the backbone's own formula.
        parameters: of the trained network.
        footprint: of one sample on one process of the layout's mesh.
        layout: mesh, checkpointing, precision, micro-batch and accumulation.
        device: the GPU and its links.
    """
    size, count = layout.micro_batch, footprint.num_blocks
    peak = (device.bf16_tflops if layout.precision == "bf16" else device.fp32_tflops) * 1e12 * PRODUCTS
    share = _share_again(footprint, layout)
    products = 3 * num_flops * size / (layout.context * layout.tensor) / peak
    again = share * count * footprint.block_flops * size / peak
    touched = FORWARD_PASSES * (1 if layout.checkpointing == "none" else 2) + BACKWARD_PASSES
    moves = touched * footprint.block_kept * count * size / (device.memory_gb_s * 1e9 * MOVES)
    rounds = count * (2 if layout.checkpointing == "none" else 3)
    tensor = rounds * _exchange_s(footprint.tensor_exchange * size, layout.tensor, layout.tensor, 1, device)
    span = layout.context * layout.tensor
    context = rounds * _exchange_s(footprint.context_exchange * size, layout.context, span, layout.tensor, device)
    computed = products + again + moves
    starts = max(0.0, 1.5 * rounds * KERNELS * START_S - computed)
    shards = _exposed_shards(parameters, layout, device, hidden_by=computed + starts)
    optimizer = parameters.kept(layout.num_shards) * 40 / (device.memory_gb_s * 1e9 * MOVES)
    times = layout.accumulate
    passes = (products, again, moves, tensor, context, starts, shards)
    return StepTime(*(seconds * times for seconds in passes), optimizer=optimizer)  # type: ignore[call-arg]


def utilisation(num_flops: int, layout: Layout, device: Device, seconds: float) -> float:
    """Share of the device's bf16 peak that the model's own operations use (MFU); recomputation does not count."""
    return 3 * num_flops * layout.global_batch / (seconds * layout.num_gpus * device.bf16_tflops * 1e12)


def _share_again(footprint: Footprint, layout: Layout) -> float:
    """Share of a block's operations that are computed a second time."""
    if layout.checkpointing == "none":
        return 0.0
    chosen = choose(footprint.products, layout.kept_activations) if layout.checkpointing == "selective" else []
    return 1.0 - sum(product.num_flops for product in chosen) / sum(product.num_flops for product in footprint.products)


def _exposed_shards(parameters: Parameters, layout: Layout, device: Device, *, hidden_by: float) -> float:
    """FSDP of one pass: parameters gathered twice, gradients scattered once in fp32; the first and the last block's are never hidden."""
    per_number = 2 * layout.element_bytes + 4

    def seconds(numbers: int, each: int) -> float:
        return _exchange_s(numbers * each, layout.num_shards, layout.num_gpus, layout.tensor, device)

    everything = [parameters.root, *parameters.blocks]
    total = sum(seconds(unit.gathered(layout.num_shards), per_number) for unit in everything)
    ends = seconds(parameters.largest.gathered(layout.num_shards), layout.element_bytes + 4)
    return max(total - hidden_by, ends) if layout.num_shards > 1 else 0.0


def _exchange_s(num_bytes: int, group: int, span: int, stride: int, device: Device) -> float:
    """Seconds of a gather or reduce-scatter of so many bytes at full size.

    Args:
        num_bytes: at full size.
        group: processes that take part.
        span: consecutive processes among which they are found.
        stride: distance between them; those of one node share its network interfaces.
        device: the GPU and its links.
    """
    if group == 1 or num_bytes == 0:
        return 0.0
    bandwidth = device.link_gb_s * LINKS
    if span > device.gpus_per_node:
        members = max(1, device.gpus_per_node // stride)
        bandwidth = min(bandwidth, device.network_gb_s * members * NETWORK)
    return num_bytes * (group - 1) / group / (bandwidth * 1e9) + LATENCY_S * math.log2(group)
