"""A sequence of tokens cut over processes (3.1.6, A.2)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import _functional_collectives as collectives
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from moviegen_core.nn.sequence import WholeSequence

ContextMethod = Literal["gather", "all_to_all"]
# The older name warns from torch 2.13 on, which has the newer one.
_all_gather = getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd


class ShardedSequence(WholeSequence):
    """The sequence cut over a context-parallel group and, within each share, over a tensor-parallel group.

    Outside `split` ... `join` everything is the same on all these processes. A sequence whose length their number does not divide gets
    tokens of zeros at its end, which no real token ever sees. Within the blocks a process's gradient is that of its own tokens times the
    size of the context group (each of its processes sends back the whole gradient of `join`), so that the mean over data and context,
    which FSDP takes, is right for every parameter.

    Args:
        context: the context-parallel mesh, one-dimensional.
        tensor: the tensor-parallel mesh, one-dimensional.
    """

    def __init__(self, context: DeviceMesh, tensor: DeviceMesh) -> None:
        super().__init__()
        self.context, self.tensor = context, tensor
        # Real length by padded length, each padded length standing for one real one: what is computed again in a backward pass, when
        # other sequences have been through, finds its own.
        self.lengths: dict[int, int] = {}

    def split(self, tokens: Tensor, dim: int) -> Tensor:
        """This process's share of the tokens along `dim`; a tensor sharded over the tensor group where that is larger than 1."""
        missing = self._padded(tokens.shape[dim]) - tokens.shape[dim]
        if missing:
            tokens = F.pad(tokens, (0, 0) * (tokens.ndim - 1 - dim) + (0, missing))
        if self.context.size() > 1:
            tokens = tokens.chunk(self.context.size(), dim)[self.context.get_local_rank()]
        if self.tensor.size() > 1:
            tokens = DTensor.from_local(tokens, self.tensor, [Replicate()], run_check=False).redistribute(placements=[Shard(dim)])
        return tokens

    def _padded(self, length: int) -> int:
        """The length that goes with a real one: the next multiple of the shares that no other real length has taken."""
        num_shares = self.context.size() * self.tensor.size()
        padded = length + -length % num_shares
        while self.lengths.setdefault(padded, length) != length:
            padded += num_shares
        return padded

    def replicate(self, shared: Tensor) -> Tensor:
        """The same on every process of the tensor group; its gradient is summed over them."""
        return DTensor.from_local(shared, self.tensor, [Replicate()], run_check=False) if self.tensor.size() > 1 else shared

    def leave_tensor_group(self, tokens: Tensor) -> Tensor:
        """The tokens (b, n, d) of this process's share of the context, whole on every process of the tensor group."""
        return tokens.redistribute(placements=[Replicate()]).to_local() if isinstance(tokens, DTensor) else tokens

    def join(self, tokens: Tensor) -> Tensor:
        """The tokens (b, n, ...) of all processes, in order, without those that were added."""
        if self.context.size() > 1:
            tokens = _all_gather(tokens.contiguous(), gather_dim=1, group=self.context)
        return tokens[:, : self.lengths[tokens.shape[1]]]

    def attach(self, kernel: nn.Module, method: ContextMethod) -> None:
        """Let the kernel of a self-attention see keys and values of all tokens."""
        kernel.register_forward_pre_hook(self.gather_keys if method == "gather" or self.context.size() == 1 else self.exchange_heads)
        if method == "all_to_all" and self.context.size() > 1:
            kernel.register_forward_hook(self.exchange_tokens)

    def gather_keys(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before the kernel of self-attention: keys and values (b, a, l, e) of all tokens; backward reduce-scatters their gradients."""
        query, key, value, mask = args
        if self.context.size() > 1:
            both = _all_gather(torch.stack([key, value]).contiguous(), gather_dim=3, group=self.context)
            key, value = both.unbind(0)
        length = self.lengths[key.shape[2]]
        return query, key[:, :, :length], value[:, :, :length], mask

    def exchange_heads(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before the kernel: give up heads for tokens, (b, a, l, e) becomes (b, a / size, size · l, e)."""
        *projections, mask = args
        query, key, value = (self._exchange(tensor, split=1, join=2) for tensor in projections)
        length = self.lengths[key.shape[2]]
        return query, key[:, :, :length], value[:, :, :length], mask

    def exchange_tokens(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """After the kernel: give up tokens for heads, (b, a / size, size · l, e) becomes (b, a, l, e)."""
        return self._exchange(output, split=2, join=1)

    def _exchange(self, tensor: Tensor, *, split: int, join: int) -> Tensor:
        """Cut a dimension over the context group, and join what comes back along another."""
        parts = tensor.unflatten(split, (self.context.size(), -1)).movedim(split, 0).contiguous()
        received = collectives.all_to_all_single_autograd(parts.flatten(), None, None, self.context.get_group()).view_as(parts)
        return received.movedim(0, join).flatten(join, join + 1)
