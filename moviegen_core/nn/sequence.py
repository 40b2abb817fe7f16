"""The place in a backbone where its sequence of tokens may be cut over processes."""

from torch import Tensor, nn


class WholeSequence(nn.Module):
    """The sequence on one process: every method gives back what it gets.

    A backbone calls `split` where its tokens enter the blocks, `replicate` on what all tokens share, and `join` where they leave. A
    parallel plan puts a `ShardedSequence` in this one's place.
    """

    def split(self, tokens: Tensor, dim: int) -> Tensor:
        """This process's share of the tokens along `dim`."""
        return tokens

    def replicate(self, shared: Tensor) -> Tensor:
        """What every token sees, in the form that goes with the tokens of `split`."""
        return shared

    def leave_tensor_group(self, tokens: Tensor) -> Tensor:
        """The tokens (b, n, d) as the tensor-parallel processes hold them together."""
        return tokens

    def join(self, tokens: Tensor) -> Tensor:
        """The tokens (b, n, ...) of all processes, in order."""
        return tokens
