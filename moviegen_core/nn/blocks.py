"""How the blocks of a network run: what they keep for the backward pass, and whether they are compiled.

`prepare_blocks` works on any blocks, whatever network they are from. It wraps their `forward` alone, so hooks that sharding adds later stay
outside, the names of parameters stay, and a block may be called, copied and sharded as before.
"""

from collections.abc import Callable, Hashable, Iterable
from contextlib import nullcontext
from types import FunctionType, MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint, noop_context_fn

from moviegen_core.errors import UsageError
from moviegen_core.nn.checkpointing import Contexts, ProductCounter, choose, keep

ActivationCheckpointing = Literal["none", "selective", "block"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"]
BACKEND = "inductor"


def prepare_blocks(
    blocks: Iterable[nn.Module],
    *,
    activation_checkpointing: ActivationCheckpointing = "none",
    kept_activations: float = 0.5,
    compile_blocks: CompileMode | None = None,
) -> None:
    """Set how blocks run; in place, before they are sharded.

    Args:
        blocks: modules that each hold a good part of the network; blocks of equal sizes share one choice and one compiled graph.
        activation_checkpointing: "none" keeps everything that the backward pass needs, "block" the inputs of each block alone,
            "selective" also outputs of matrix products and attention; the rest is computed again.
        kept_activations: share in [0, 1] of the bytes of those outputs that "selective" keeps.
        compile_blocks: mode of `torch.compile`, one static graph for every size; "reduce-overhead" replays CUDA graphs. None does not
            compile.

    Raises:
        UsageError: a value that is none of these.
    """
    call = BlockCall(activation_checkpointing, kept_activations, compile_blocks)
    for block in blocks:
        block.forward = MethodType(call, block)


class BlockCall:
    """The forward pass of prepared blocks.

    Which products a "selective" block keeps is known once it has run: its first pass of each size keeps nothing, is not compiled, and
    counts.

    Args:
        how: what is kept for the backward pass, see `prepare_blocks`.
        kept_activations: share of the outputs that "selective" keeps.
        compile_mode: see `prepare_blocks`.
    """

    def __init__(self, how: ActivationCheckpointing, kept_activations: float = 0.5, compile_mode: CompileMode | None = None) -> None:
        _require_known("activation_checkpointing", how, ActivationCheckpointing.__args__)
        _require_known("compile_blocks", compile_mode, (*CompileMode.__args__, None))
        if not 0.0 <= kept_activations <= 1.0:
            raise UsageError(
                f"kept_activations={kept_activations} was given",
                "it is a share of bytes, from 0 (nothing) to 1 (all matrix products and attention)",
                "give a number from 0 to 1, or activation_checkpointing none to keep everything",
            )
        if how == "block" and compile_mode == "reduce-overhead":
            raise UsageError(
                "compile_blocks=reduce-overhead was given with activation_checkpointing=block",
                "CUDA graphs of the forward pass cannot be replayed within the backward pass",
                "give activation_checkpointing selective or none, or compile_blocks default",
            )
        self.how, self.kept_activations, self.compile_mode = how, kept_activations, compile_mode
        self.ways: dict[Hashable, Callable] = {}

    def __call__(self, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The block's own forward pass."""
        how = self.how if torch.is_grad_enabled() else "none"
        size = None if self.compile_mode is None and how != "selective" else _size(block, args, kwargs)
        if (how, size) in self.ways:
            return self.ways[how, size](block, *args, **kwargs)
        if how != "selective":
            run = self._compiled(_run)
            # Around what is compiled: torch 2.13 cannot compile it with sharded tensors inside.
            self.ways[how, size] = run if how == "none" else _recomputed(run)
            return self.ways[how, size](block, *args, **kwargs)
        counter = ProductCounter()
        out = _recomputed(_run_uncached, lambda: (counter, nullcontext()))(block, *args, **kwargs)
        self.ways[how, size] = self._compiled(_recomputed(_run_uncached, keep(choose(counter.products, self.kept_activations))))
        return out

    def _compiled(self, function: Callable) -> Callable:
        """The function, compiled where it is to be."""
        if self.compile_mode is None:
            return function
        # torch keeps compiled graphs with the code of a function, a few for each; code of its own gives every size all of them.
        own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, None, function.__closure__)
        mode = None if self.compile_mode == "default" or BACKEND != "inductor" else self.compile_mode
        compiled = torch.compile(own, backend=BACKEND, mode=mode, dynamic=False, fullgraph=True)
        return compiled if self.compile_mode != "reduce-overhead" else _on_cuda(compiled)


def _run(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward pass that the block's class defines."""
    return type(block).forward(block, *args, **kwargs)


def _run_uncached(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """As `_run`, where autocast casts every weight anew: what it took from its cache the second pass would not find there."""
    device = next((leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)), "cpu")
    if torch.compiler.is_compiling() or not torch.is_autocast_enabled(device):
        return _run(block, *args, **kwargs)
    with torch.autocast(device, torch.get_autocast_dtype(device), cache_enabled=False):
        return _run(block, *args, **kwargs)


def _recomputed(run: Callable, contexts: Contexts = noop_context_fn) -> Callable:
    """The forward pass that runs again in the backward pass, but for what the contexts keep."""
    return lambda block, *args, **kwargs: checkpoint(run, block, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _on_cuda(compiled: Callable) -> Callable:
    def call(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        if devices != {"cuda"}:
            raise UsageError(
                f"compile_blocks=reduce-overhead was given on {', '.join(sorted(devices))}",
                "it replays CUDA graphs",
                "give compile_blocks default",
            )
        return compiled(block, *args, **kwargs)

    return call


def _size(block: nn.Module, args: Any, kwargs: Any) -> Hashable:
    """All that the products of a block depend on; equal blocks have equal sizes."""
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    autocast = tuple(torch.get_autocast_dtype(t) for t in {leaf.device.type for leaf in leaves} if torch.is_autocast_enabled(t))
    own = tuple((parameter.shape, parameter.requires_grad) for parameter in block.parameters())
    return type(block), own, tuple((leaf.shape, leaf.dtype, leaf.device.type) for leaf in leaves), autocast


def _require_known(name: str, given: Any, known: tuple[Any, ...]) -> None:
    if given not in known:
        shown = ", ".join("null" if value is None else value for value in known)
        raise UsageError(f"{name}={given!r} was given", f"known are {shown}", "give one of them")
