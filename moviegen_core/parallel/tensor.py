"""Tensor and sequence parallelism of the transformer block: which matrix is cut how (3.1.6, A.2)."""

from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from moviegen_core.nn.attention import Attention
from moviegen_core.nn.transformer import PlainFeedForward, SwiGLU, TransformerBlock


def shard_block(block: TransformerBlock, mesh: DeviceMesh) -> None:
    """Cut a block's matrices over a tensor-parallel mesh; its tokens come and go as shards of the sequence.

    Queries, keys, values and all but the last matrix of the feed-forward network are cut by rows, the last of either by columns; tokens
    are gathered once before each and reduce-scattered after it. Norms, gates and residuals work on shards of the sequence, with
    replicated parameters whose gradients are summed. The heads divide by the mesh (`ParallelPlan.require_heads`).
    """
    column = ColwiseParallel(input_layouts=Replicate())
    row = RowwiseParallel(input_layouts=Shard(-1), output_layouts=Shard(1), use_local_output=False)
    for attention in (block.self_attention, block.cross_attention):
        plan = {"wq": column, "wk": column, "wv": column, "wo": row}
        parallelize_module(attention, mesh, plan, src_data_rank=None)
    ffn = {name: row if name == "w2" else column for name, _ in block.ffn.named_children()}
    parallelize_module(block.ffn, mesh, ffn, src_data_rank=None)
    for part in (block.self_attention, block.cross_attention, block.ffn):
        part.register_forward_pre_hook(_gather_tokens)
    for module in block.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not isinstance(parameter, DTensor):
                replicated = distribute_tensor(parameter.detach(), mesh, [Replicate()], src_data_rank=None)
                module.register_parameter(name, nn.Parameter(replicated, requires_grad=parameter.requires_grad))


def _gather_tokens(_: Attention | SwiGLU | PlainFeedForward, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gather what is sharded along the sequence, the same tensor once."""
    out: list[Any] = []
    for i, value in enumerate(args):
        # By `is` and not by id(), which would tie a compiled block to this one tensor.
        earlier = [gathered for given, gathered in zip(args[:i], out) if given is value]
        if isinstance(value, DTensor):
            value = earlier[0] if earlier else value.redistribute(placements=[Replicate()])
        out.append(value)
    return tuple(out)
