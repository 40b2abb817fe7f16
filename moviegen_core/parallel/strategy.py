"""The Lightning strategy for training and generating on a mesh of processes: data x context x tensor."""

from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

from moviegen_core.errors import UsageError
from moviegen_core.parallel.plan import CONTEXT, DATA, TENSOR, ParallelPlan


class MeshStrategy(ModelParallelStrategy):
    """FSDP over data x context, context parallelism over the sequence, tensor and sequence parallelism within blocks (3.1.6, A.2).

    Processes that differ only in context or tensor rank see the same batch and draw the same noise.

    Args:
        data_parallel_size: processes that see different samples; "auto" takes all that the others leave.
        context_parallel_size: processes that share the sequence of a sample.
        tensor_parallel_size: processes that share every matrix of a block; keep it within a node.
        param_dtype: type in which FSDP gathers parameters and computes, e.g. "bfloat16"; as they are unless given.
        reduce_dtype: type in which FSDP reduces gradients.
        reshard_after_forward: free gathered parameters between forward and backward; more communication, less memory.
        cpu_offload: keep parameters, gradients and optimizer state in main memory.
        save_distributed_checkpoint: every process writes its share into a folder; one file where false.
        timeout_s: seconds after which a collective operation counts as stuck.
    """

    def __init__(
        self,
        *,
        data_parallel_size: Literal["auto"] | int = "auto",
        context_parallel_size: int = 1,
        tensor_parallel_size: int = 1,
        param_dtype: Literal["bfloat16", "float16", "float32"] | None = None,
        reduce_dtype: Literal["bfloat16", "float16", "float32"] = "float32",
        reshard_after_forward: bool = True,
        cpu_offload: bool = False,
        save_distributed_checkpoint: bool = True,
        timeout_s: float = 1800.0,
    ) -> None:
        super().__init__(
            data_parallel_size=data_parallel_size,
            tensor_parallel_size=tensor_parallel_size,
            save_distributed_checkpoint=save_distributed_checkpoint,
            timeout=timedelta(seconds=timeout_s),
        )
        self.context_parallel_size = context_parallel_size
        self.fsdp: dict[str, Any] = {"reshard_after_forward": reshard_after_forward}
        if param_dtype is not None:
            types = {"param_dtype": getattr(torch, param_dtype), "reduce_dtype": getattr(torch, reduce_dtype)}
            self.fsdp["mp_policy"] = MixedPrecisionPolicy(**types)
        if cpu_offload:
            self.fsdp["offload_policy"] = CPUOffloadPolicy()

    def setup_environment(self) -> None:
        """Join the process group and lay the mesh over it."""
        super(ModelParallelStrategy, self).setup_environment()
        self._setup_distributed()
        self._device_mesh = self._build_mesh()
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = self._device_mesh

    @property
    def plan(self) -> ParallelPlan:
        """What modules need to shard themselves."""
        return ParallelPlan(self.device_mesh, self.fsdp)

    def _build_mesh(self) -> DeviceMesh:
        context, tensor = self.context_parallel_size, self._tensor_parallel_size
        assert isinstance(tensor, int)
        data = self._data_parallel_size
        if data == "auto":
            data = self.world_size // (context * tensor)
        if min(data, context, tensor) < 1 or data * context * tensor != self.world_size:
            sizes = f"data {self._data_parallel_size} x context {context} x tensor {tensor}"
            raise UsageError(
                f"a mesh of {sizes} was given for {self.world_size} processes",
                "the three multiply to the number of processes",
                "change trainer.devices, trainer.num_nodes or the sizes in trainer.strategy",
            )
        return init_device_mesh(self.root_device.type, (data, context, tensor), mesh_dim_names=(DATA, CONTEXT, TENSOR))
