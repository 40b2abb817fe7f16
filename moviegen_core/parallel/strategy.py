"""The Lightning strategy for training and generating on a mesh of processes: data x context x tensor."""

from datetime import timedelta
from functools import cached_property
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from moviegen_core.errors import UsageError
from moviegen_core.parallel.plan import CONTEXT, DATA, TENSOR, ParallelPlan
from moviegen_core.parallel.sequence import ContextMethod


class MeshStrategy(ModelParallelStrategy):
    """FSDP over data x context, context parallelism over the sequence, tensor and sequence parallelism within blocks (3.1.6, A.2).

    Processes that differ only in context or tensor rank see the same batch and draw the same noise.

    Args:
        data_parallel_size: processes that see different samples; "auto" takes all that the others leave.
        context_parallel_size: processes that share the sequence of a sample.
        tensor_parallel_size: processes that share every matrix of a block; keep it within a node.
        context_method: how self-attention sees the whole sequence: `gather` collects keys and values of all processes; `all_to_all`
            exchanges tokens for heads, less to send where the heads of a process divide by context_parallel_size.
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
        context_method: ContextMethod = "gather",
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
        self.context_method = context_method
        self.cpu_offload = cpu_offload
        self.fsdp: dict[str, Any] = {"reshard_after_forward": reshard_after_forward}
        if param_dtype is not None:
            # Inputs keep their type: half precision is too coarse for a flow time.
            types = {"param_dtype": getattr(torch, param_dtype), "reduce_dtype": getattr(torch, reduce_dtype)}
            self.fsdp["mp_policy"] = MixedPrecisionPolicy(**types, cast_forward_inputs=False)
        if cpu_offload:
            self.fsdp["offload_policy"] = CPUOffloadPolicy(pin_memory=torch.cuda.is_available())

    def _configure_launcher(self) -> None:
        # Before any process is started.
        self._check_sizes()
        super()._configure_launcher()

    def setup_environment(self) -> None:
        """Join the process group and lay the mesh over it."""
        super(ModelParallelStrategy, self).setup_environment()
        self._setup_distributed()
        self._device_mesh = init_device_mesh(self.root_device.type, self._check_sizes(), mesh_dim_names=(DATA, CONTEXT, TENSOR))
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = self._device_mesh

    def setup(self, trainer: Trainer) -> None:
        """Set up model and optimizers; evaluation then runs without gradients but not in inference mode, which has no sharded tensors."""
        for loop in (trainer.validate_loop, trainer.test_loop, trainer.predict_loop, trainer.fit_loop.epoch_loop.val_loop):
            loop.inference_mode = False
        self._require_shards()
        super().setup(trainer)

    def model_to_device(self) -> None:
        """Move the model; where parameters are offloaded, only those that are not sharded."""
        if not self.cpu_offload:
            super().model_to_device()
            return
        assert self.model is not None
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            if not isinstance(tensor, DTensor):
                tensor.data = tensor.data.to(self.root_device)

    @cached_property
    def plan(self) -> ParallelPlan:
        """What modules need to shard themselves."""
        device = torch.device("cpu") if self.cpu_offload else self.root_device
        return ParallelPlan(self.device_mesh, device, self.context_method, self.fsdp)

    @property
    def leads_replica(self) -> bool:
        """True on the first of the processes that see the same samples."""
        return self.device_mesh[CONTEXT].get_local_rank() == 0 and self.device_mesh[TENSOR].get_local_rank() == 0

    def _require_shards(self) -> None:
        """Refuse a model that has not sharded what it trains: every process would go its own way."""
        assert self.model is not None
        parameters = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad and not isinstance(p, DTensor)]
        if parameters and self.world_size > 1:
            raise UsageError(
                f"{type(self.lightning_module).__name__} was given with MeshStrategy",
                f"it leaves {len(parameters)} trained parameters unsharded, e.g. '{parameters[0][0]}'",
                "use `trainer.strategy: ddp`, or shard them in configure_model with `self.trainer.strategy.plan`",
            )

    def _check_sizes(self) -> tuple[int, int, int]:
        """The mesh's sizes over data, context and tensor; refused where they are not those of the processes there are."""
        world_size = self.num_nodes * self.num_processes
        data, context, tensor = self._data_parallel_size, self.context_parallel_size, self._tensor_parallel_size
        sizes = f"a mesh of data {data} x context {context} x tensor {tensor} was given for {world_size} processes"
        if data == "auto":
            data = world_size // max(1, context * int(tensor))
        if min(data, context, int(tensor)) < 1 or data * context * int(tensor) != world_size:
            exists = "the three multiply to the number of processes"
            raise UsageError(sizes, exists, "change trainer.devices, trainer.num_nodes or the sizes in trainer.strategy")
        return data, context, int(tensor)
