"""How a training is laid out over processes, which is what a plan chooses. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["bf16", "fp32"]
Checkpointing = Literal["none", "selective", "block"]


@dataclass(frozen=True)
class Layout:
    """A mesh and what each of its processes does.

    Args:
        data: processes that see different samples.
        context: processes that share the sequence of a sample.
        tensor: processes that share every matrix of a block.
        checkpointing: what is kept for the backward pass.
        kept_activations: share of products that selective checkpointing keeps.
        precision: "bf16" gathers and computes in bf16 over fp32 weights, "fp32" in fp32.
        micro_batch: samples per data-parallel process in one pass.
        accumulate: passes per optimizer step.
    """

    data: int = 1
    context: int = 1
    tensor: int = 1
    checkpointing: Checkpointing = "none"
    kept_activations: float = 0.5
    precision: Precision = "bf16"
    micro_batch: int = 1
    accumulate: int = 1

    @property
    def num_shards(self) -> int:
        """Processes over which FSDP shards parameters."""
        return self.data * self.context

    @property
    def num_gpus(self) -> int:
        """All processes."""
        return self.data * self.context * self.tensor

    @property
    def global_batch(self) -> int:
        """Samples per optimizer step."""
        return self.data * self.micro_batch * self.accumulate

    @property
    def element_bytes(self) -> int:
        """Bytes of a number in computation."""
        return 2 if self.precision == "bf16" else 4

    def __str__(self) -> str:
        """The mesh, as data x context x tensor, and the rest."""
        kept = f" {self.kept_activations:g}" if self.checkpointing == "selective" else ""
        batch = f"micro-batch {self.micro_batch}" + (f" x {self.accumulate}" if self.accumulate > 1 else "")
        return f"{self.data} x {self.context} x {self.tensor}, checkpointing {self.checkpointing}{kept}, {self.precision}, {batch}"
