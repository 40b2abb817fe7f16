"""How the video backbone is cut over processes: the list of the paper's 768 px plan (3.1.6, A.2)."""

from typing import TYPE_CHECKING

from moviegen_core.errors import UsageError
from moviegen_core.parallel.plan import ParallelPlan
from moviegen_core.parallel.sequence import ShardedSequence
from moviegen_core.parallel.tensor import shard_block

if TYPE_CHECKING:
    from moviegen_t2v.model import VideoTransformer


def parallelize(backbone: "VideoTransformer", plan: ParallelPlan) -> None:
    """Shard the backbone in place.

    Patchify, positions, time embedding and output are sharded by FSDP alone; the blocks' matrices by tensor parallelism too, with their
    norms and residuals on shards of the sequence; self-attention also gathers keys and values over the context.

    Raises:
        UsageError: the heads do not divide by the mesh, or the blocks cannot be compiled on it.
    """
    for block in backbone.blocks:
        plan.require_heads(block.self_attention.num_heads)
        plan.require_divisible("ffn_width", block.ffn.w1.out_features)
    _require_compilable(backbone, plan)
    sequence = ShardedSequence(plan.context, plan.tensor)
    backbone.sequence = sequence
    for block in backbone.blocks:
        if plan.tensor.size() > 1:
            shard_block(block, plan.tensor)
        sequence.attach(block.self_attention.kernel, plan.context_method)
        plan.shard(block)
    plan.shard(backbone)


def _require_compilable(backbone: "VideoTransformer", plan: ParallelPlan) -> None:
    if backbone.compile_blocks == "reduce-overhead":
        raise UsageError(
            "compile_blocks=reduce-overhead was given with a mesh of processes",
            "CUDA graphs read parameters where they lay when recorded, and FSDP gathers them elsewhere each time",
            "give compile_blocks default, or train on one GPU without MeshStrategy",
        )
    if backbone.compile_blocks and backbone.activation_checkpointing == "selective" and plan.tensor.size() > 1:
        raise UsageError(
            f"compile_blocks and activation_checkpointing=selective were given with tensor_parallel_size={plan.tensor.size()}",
            "torch cannot compile all three together yet, any two of them work",
            "give activation_checkpointing block or none, or compile_blocks null",
        )
