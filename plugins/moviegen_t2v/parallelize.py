"""How the video backbone is cut over processes: the list of the paper's 768 px plan (3.1.6, A.2)."""

from typing import TYPE_CHECKING

from moviegen_core.parallel.plan import ParallelPlan
from moviegen_core.parallel.sequence import ShardedSequence
from moviegen_core.parallel.tensor import shard_block

if TYPE_CHECKING:
    from moviegen_t2v.model import VideoTransformer


def parallelize(backbone: "VideoTransformer", plan: ParallelPlan) -> None:
    """Shard the backbone in place.

    Patchify, positions, time embedding and output are sharded by FSDP alone; the blocks' matrices by tensor parallelism too, with their
    norms and residuals on shards of the sequence; self-attention also gathers keys and values over the context.
    """
    for block in backbone.blocks:
        plan.require_heads(block.self_attention.num_heads)
    sequence = ShardedSequence(plan.context, plan.tensor)
    backbone.sequence = sequence
    for block in backbone.blocks:
        if plan.tensor.size() > 1:
            shard_block(block, plan.tensor)
        sequence.attach(block.self_attention.kernel, plan.context_method)
        plan.shard(block)
    plan.shard(backbone)
