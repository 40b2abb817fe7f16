"""What a backbone keeps, computes and exchanges for one sample, by which a plan is made before anything runs."""

from dataclasses import dataclass

from moviegen_core.nn.checkpointing import Product


@dataclass(frozen=True)
class Footprint:
    """Bytes and FLOPs of one sample on one process of a mesh, in training.

    The peak of a step is in the backward pass of one of the last blocks: what all blocks keep, plus what that block needs beyond it.

    Args:
        num_blocks: blocks of equal sizes, each sharded by FSDP as one.
        block_input: bytes that enter a block; all that is kept of it where the block is computed a second time.
        shared_input: bytes that enter every block alike; kept once where blocks are computed a second time.
        block_kept: bytes that a block keeps for its backward pass where nothing is computed a second time.
        block_peak: bytes beyond that at the worst moment early in its backward pass, gradients that flow through it included.
        again_peak: the same at the worst moment of its second computation.
        late_bytes: bytes, those that it still keeps included, at the worst moment late in its backward pass, when gradients of most
            of its weights exist: where gradients of keys and values are exchanged.
        edges_kept: bytes kept before the first and after the last block.
        edges_peak: bytes beyond all that are kept at the worst moment of the backward pass of what follows the blocks.
        edges_left: bytes of the edges that are still held while the blocks run backward.
        products: outputs of matrix products and attention in a block, of which selective checkpointing keeps a share.
        block_flops: floating-point operations of a block's forward pass.
        tensor_exchange: bytes gathered or reduce-scattered over the tensor-parallel group in a block's forward pass, at full size.
        context_exchange: bytes gathered over the context-parallel group in a block's forward pass, at full size.
    """

    num_blocks: int
    block_input: int
    shared_input: int
    block_kept: int
    block_peak: int
    again_peak: int
    late_bytes: int
    edges_kept: int
    edges_peak: int
    edges_left: int
    products: tuple[Product, ...]
    block_flops: int
    tensor_exchange: int = 0
    context_exchange: int = 0
