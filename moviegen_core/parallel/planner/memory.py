"""The memory a process needs, by what it is needed for.

The estimate is of blocks as torch runs them one operation after the other; compiled blocks need less. `simulation.py` measures what it
estimates, except for the allowance, which no tracker sees.
"""

from dataclasses import asdict, dataclass

from moviegen_core.footprint import Footprint
from moviegen_core.nn.checkpointing import choose
from moviegen_core.parallel.planner.layout import Layout
from moviegen_core.parallel.planner.parameters import Parameters

FP32, GIB = 4, 2**30
# CUDA context, NCCL's buffers for three groups, workspaces of matrix products; and what the allocator loses to fragments, as a share of
# what comes and goes. Both are our own guesses.
UNSEEN_GIB, FRAGMENTS = 2.5, 0.03


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at the fullest moment of a step.

    Args:
        parameters: its shard of the weights, in fp32.
        gradients: its shard of the gradients, as far as they exist at that moment.
        optimizer: both moments of AdamW.
        activations: what blocks keep for the backward pass.
        gathered: parameters that FSDP has gathered, and gradients it is about to scatter.
        temporary: what the fullest block needs beyond that; with recomputation, all that it computes again.
        edges: latents, contexts, and what is kept before and after the blocks.
        frozen: encoders without gradients.
        allowance: what no tracker of tensors sees: CUDA context, NCCL, workspaces, fragments.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    gathered: int
    temporary: int
    edges: int
    frozen: int = 0
    allowance: int = 0

    @property
    def tensors(self) -> int:
        """What a tracker of tensors sees."""
        return self.total - self.allowance

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


def estimate_memory(parameters: Parameters, footprint: Footprint, layout: Layout, *, frozen: int = 0) -> Memory:
    """Estimate the fullest moment of a training step with AdamW.

    Args:
        parameters: of the trained network.
        footprint: of one sample on one process of the layout's mesh.
        layout: mesh, checkpointing, precision and micro-batch.
        frozen: bytes of encoders on each process.
    """
    shard = parameters.kept(layout.num_shards) * FP32
    fullest = max(_moments(parameters, footprint, layout), key=lambda moment: sum(moment.values()))
    tensors = 3 * shard + sum(fullest.values()) + frozen
    allowance = int(UNSEEN_GIB * GIB + FRAGMENTS * (tensors - 3 * shard))
    return Memory(parameters=shard, optimizer=2 * shard, frozen=frozen, allowance=allowance, **fullest)


def kept_by_blocks(footprint: Footprint, layout: Layout) -> int:
    """Bytes that one block keeps of one sample between its forward and its backward pass."""
    if layout.checkpointing == "none":
        return footprint.block_kept
    chosen = choose(footprint.products, layout.kept_activations) if layout.checkpointing == "selective" else []
    return footprint.block_input + sum(product.num_bytes for product in chosen)


def _moments(parameters: Parameters, footprint: Footprint, layout: Layout) -> list[dict[str, int]]:
    """The moments of which one is the fullest: after the last block, within blocks, at the optimizer's step."""
    size, count, shards = layout.micro_batch, footprint.num_blocks, layout.num_shards
    recomputed = layout.checkpointing != "none"
    kept = kept_by_blocks(footprint, layout) * size
    chosen = kept - footprint.block_input * size if recomputed else kept
    again = footprint.block_kept * size - chosen if recomputed else 0
    peak = max(footprint.block_peak, footprint.again_peak if recomputed else 0) * size
    left = (footprint.edges_left + (footprint.shared_input if recomputed else 0)) * size
    shard, block_shard = parameters.kept(shards) * FP32, parameters.largest.kept(shards) * FP32
    # A whole network gathers nothing, but autocast keeps a copy of it in bf16.
    has_copies = parameters.sharded or layout.precision == "bf16"
    root = parameters.root.gathered(shards) * layout.element_bytes if has_copies else 0
    weights, scatter = (parameters.largest.gathered(shards) * width for width in (layout.element_bytes, FP32))

    def moment(activations: int, gathered: int, temporary: int, edges: int, gradients: int) -> dict[str, int]:
        before = shard if layout.accumulate > 1 else 0
        return dict(activations=activations, gathered=gathered, temporary=temporary, edges=edges, gradients=max(before, gradients))

    def within(number: int) -> list[dict[str, int]]:
        """Early and late in the backward pass of a block: the next one's weights come and the last one's gradients leave."""
        gathered = root + weights * (2 if number > 1 else 1) + (scatter if number < count else 0)
        gradients = (count - number) * block_shard
        early = moment(number * kept, gathered + weights // 4, again + peak, left, gradients)
        late = moment(number * kept - (0 if recomputed else kept), gathered + weights, footprint.late_bytes * size, left, gradients)
        return [early, late]

    head = moment(count * kept, root + weights, footprint.edges_peak * size, footprint.edges_kept * size, 0)
    update = moment(0, 0, shard, 0, shard)
    return [head, update, *(moment for number in {count, max(1, count - 1), 1} for moment in within(number))]
