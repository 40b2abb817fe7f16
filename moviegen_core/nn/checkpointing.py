"""Selective activation checkpointing: which outputs of a block are kept for its backward pass, and which are computed a second time.

Operations are seen as torch dispatches them, so autocast, sharded tensors and attention kernels need nothing of their own; collectives
within a block run again with it. `moviegen_core.nn.blocks` puts it to use.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

Contexts = Callable[[], tuple[AbstractContextManager, AbstractContextManager]]


@dataclass(frozen=True)
class Product:
    """A matrix product or an attention call of a block: what computing it again costs, and what keeping its output holds.

    Args:
        key: the operation and the shapes it was given.
        num_flops: floating-point operations.
        num_bytes: size of the output.
    """

    key: Hashable
    num_flops: int
    num_bytes: int


def choose(products: Sequence[Product], kept_activations: float) -> list[Product]:
    """The products whose outputs are kept: the most FLOPs saved per byte first, the earlier one of equals, as long as they fit.

    Args:
        products: a block's products in the order in which they run.
        kept_activations: share of the bytes of all outputs that may be kept, in [0, 1].
    """
    left = kept_activations * sum(product.num_bytes for product in products)
    kept = []
    for product in sorted(products, key=lambda product: -product.num_flops / max(1, product.num_bytes)):
        if product.num_bytes <= left:
            left -= product.num_bytes
            kept.append(product)
    return kept


def keep(products: Sequence[Product]) -> Contexts:
    """Contexts for `torch.utils.checkpoint` that keep the outputs of these products, counting per operation and shapes."""
    wanted = Counter(product.key for product in products)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        seen: Counter[Hashable] = Counter()

        def policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
            if not is_product(operation):
                return CheckpointPolicy.PREFER_RECOMPUTE
            key = _key(operation, args)
            # torch before 2.13 asks a second time while it recomputes, and must hear the same.
            seen[context.is_recompute, key] += 1
            return CheckpointPolicy.MUST_SAVE if seen[context.is_recompute, key] <= wanted[key] else CheckpointPolicy.MUST_RECOMPUTE

        return create_selective_checkpoint_contexts(policy)

    return contexts


class ProductCounter(TorchDispatchMode):
    """Writes down the matrix products and attention calls that run within it."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if is_product(func):
            tensors = [_local(leaf) for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
            local_args, local_kwargs = tree_map(_local, (args, kwargs or {}))
            num_flops = _flops(func, local_args, local_kwargs, tree_map(_local, out))
            self.products.append(Product(_key(func, args), num_flops, sum(tensor.numel() * tensor.itemsize for tensor in tensors)))
        return out


def is_product(operation: Any) -> bool:
    """Whether the operation is a matrix product, a convolution or attention, and returns its output (not `out=`)."""
    packet = getattr(operation, "_overloadpacket", operation)
    return (packet in flop_registry or packet in _CPU_ATTENTION) and getattr(operation, "_overloadname", "default") == "default"


# torch 2.11 to 2.13 leave it out of their table.
_CPU_ATTENTION = (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,)


def _flops(operation: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    packet = getattr(operation, "_overloadpacket", operation)
    if packet not in flop_registry:
        return sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
    return int(flop_registry[packet](*args, **kwargs, out_val=out))


def _key(operation: Any, args: Sequence[Any]) -> Hashable:
    return str(operation), tuple(tuple(_local(leaf).shape) for leaf in tree_leaves(args) if isinstance(leaf, Tensor))


def _local(value: Any) -> Any:
    """This process's share of a sharded tensor; anything else as it is."""
    with torch.no_grad():
        return value.to_local() if hasattr(value, "to_local") else value
