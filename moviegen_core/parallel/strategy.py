"""The Lightning strategy for training and generating on a mesh of processes: data x context x tensor."""

from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from moviegen_core.errors import UsageError
from moviegen_core.parallel.launcher import ObservingLauncher
from moviegen_core.parallel.plan import CONTEXT, DATA, TENSOR, ParallelPlan
from moviegen_core.parallel.sequence import ContextMethod
from moviegen_core.weights.checkpoint_io import WholeCheckpointIO
from moviegen_core.weights.sharded import looks_sharded

if TYPE_CHECKING:
    from moviegen_core.parallel.checkpointing import ShardedSaver
    from moviegen_core.parallel.liveness import Watchdog


class MeshStrategy(ModelParallelStrategy):
    """FSDP over data x context, context parallelism over the sequence, tensor and sequence parallelism within blocks (3.1.6, A.2).

    Processes that differ only in context or tensor rank see the same batch and draw the same noise.

    Args:
        data_parallel_size: processes that see different samples; "auto" takes all that the others leave.
        context_parallel_size: processes that share the sequence of a sample.
        tensor_parallel_size: processes that share every matrix of a block; keep it within a node.
        context_method: how self-attention sees the whole sequence: `gather` collects keys and values of all processes; `all_to_all`
            exchanges tokens for heads, less to send where the heads of a process divide by context_parallel_size.
        param_dtype: type in which FSDP gathers parameters and computes; as they are unless given.
        reduce_dtype: type in which FSDP reduces gradients; that of the computation unless given.
        reshard_after_forward: free gathered parameters between forward and backward; more communication, less memory.
        cpu_offload: keep parameters, gradients and optimizer state in main memory.
        save_distributed_checkpoint: every process writes its share into a folder; one file where false.
        async_checkpoint: write such a folder while training goes on, from a copy of the state in main memory.
        timeout_s: seconds without progress after which a process that others wait for counts as stuck; the run then ends with exit code
            70 and a message that names it.
    """

    saves_shards_of_callbacks = True

    def __init__(
        self,
        *,
        data_parallel_size: Literal["auto"] | int = "auto",
        context_parallel_size: int = 1,
        tensor_parallel_size: int = 1,
        context_method: ContextMethod = "gather",
        param_dtype: Literal["bfloat16", "float32"] | None = None,
        reduce_dtype: Literal["bfloat16", "float32"] | None = None,
        reshard_after_forward: bool = True,
        cpu_offload: bool = False,
        save_distributed_checkpoint: bool = True,
        async_checkpoint: bool = False,
        timeout_s: float = 1800.0,
    ) -> None:
        if async_checkpoint and not save_distributed_checkpoint:
            raise UsageError(
                "async_checkpoint was given with save_distributed_checkpoint=false",
                "only folders of shards are written asynchronously",
                "leave one of the two out",
            )
        super().__init__(
            data_parallel_size=data_parallel_size,
            tensor_parallel_size=tensor_parallel_size,
            save_distributed_checkpoint=save_distributed_checkpoint,
            timeout=timedelta(seconds=2 * timeout_s + 60),  # the backends' own errors name nobody, so the watchdog comes first
        )
        if timeout_s <= 0:
            raise UsageError(f"timeout_s={timeout_s} was given", "it is a time in seconds", "give 1800 for half an hour")
        self.timeout_s = timeout_s
        self._watchdog: Watchdog | None = None
        self.checkpoint_io = WholeCheckpointIO()
        self.async_checkpoint = async_checkpoint
        self._saver: ShardedSaver | None = None
        self.context_parallel_size = context_parallel_size
        self.context_method = context_method
        self.cpu_offload = cpu_offload
        self.fsdp: dict[str, Any] = {"reshard_after_forward": reshard_after_forward}
        types = {"param_dtype": param_dtype, "reduce_dtype": reduce_dtype}
        given = {name: getattr(torch, dtype) for name, dtype in types.items() if dtype is not None}
        if given:
            # Inputs keep their type: half precision is too coarse for a flow time.
            self.fsdp["mp_policy"] = MixedPrecisionPolicy(**given, cast_forward_inputs=False)
        if cpu_offload:
            self.fsdp["offload_policy"] = CPUOffloadPolicy(pin_memory=torch.cuda.is_available())

    def _configure_launcher(self) -> None:
        self._check_sizes()  # before any process is started
        if not self.cluster_environment.creates_processes_externally:
            self._launcher = ObservingLauncher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_environment(self) -> None:
        """Join the process group and lay the mesh over it."""
        super(ModelParallelStrategy, self).setup_environment()
        self._setup_distributed()
        self._device_mesh = init_device_mesh(self.root_device.type, self._check_sizes(), mesh_dim_names=(DATA, CONTEXT, TENSOR))
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = self._device_mesh
        self._start_watchdog()

    def setup(self, trainer: Trainer) -> None:
        """Set up model and optimizers; evaluation then runs without gradients but not in inference mode, which has no sharded tensors."""
        for loop in (trainer.validate_loop, trainer.test_loop, trainer.predict_loop, trainer.fit_loop.epoch_loop.val_loop):
            loop.inference_mode = False
        self._require_shards()
        self._require_one_precision(trainer)
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

    def _get_process_group_backend(self) -> str:
        if self.cpu_offload and self.root_device.type == "cuda":
            return "cpu:gloo,cuda:nccl"  # the norm of offloaded gradients is summed in main memory
        return super()._get_process_group_backend()

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
        if parameters:
            raise UsageError(
                f"{type(self.lightning_module).__name__} was given with MeshStrategy",
                f"it leaves {len(parameters)} trained parameters unsharded, e.g. '{parameters[0][0]}'",
                "use `trainer.strategy: ddp`, or shard them in configure_model with `self.trainer.strategy.plan`",
            )

    def _require_one_precision(self, trainer: Trainer) -> None:
        policy = self.fsdp.get("mp_policy")
        if policy is not None and policy.param_dtype is not None and trainer.precision in ("bf16-true", "16-true"):
            raise UsageError(
                f"param_dtype={str(policy.param_dtype).removeprefix('torch.')} was given with trainer.precision={trainer.precision}",
                "the one keeps weights in fp32 and computes in half, the other keeps them in half",
                "give param_dtype with precision 32-true, or leave it out",
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

    # -- liveness --------------------------------------------------------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """As the base class; the watchdog hears of it."""
        self._note("training step")
        return super().training_step(*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """As the base class; the watchdog hears of it."""
        self._note("validation")
        return super().validation_step(*args, **kwargs)

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """As the base class; the watchdog hears of it."""
        self._note("prediction")
        return super().predict_step(*args, **kwargs)

    def _note(self, activity: str) -> None:
        if self._watchdog is not None:
            self._watchdog.note(f"{activity} after step {self.lightning_module.global_step}")

    def _start_watchdog(self) -> None:
        if self.world_size == 1 or self._watchdog is not None:
            return
        from moviegen_core.parallel.liveness import Watchdog, make_store

        address = self.cluster_environment.main_address
        own = make_store(address, None) if self.is_global_zero else None
        port = self.broadcast(own.port if own is not None else None)
        self._watchdog = Watchdog(own or make_store(address, port), self.global_rank, self.world_size, self.timeout_s)
        self.barrier()  # everyone's first beat is there
        self._watchdog.start()
        if isinstance(self._launcher, ObservingLauncher) and self._launcher.observer is not None:
            self._launcher.observer.watchdog = self._watchdog

    # -- checkpoints -----------------------------------------------------------------------------------------------------------------

    @property
    def saver(self) -> "ShardedSaver":
        """Writes the sharded checkpoints of this run."""
        if self._saver is None:
            from moviegen_core.parallel.checkpointing import ShardedSaver

            self._saver = ShardedSaver(self, asynchronous=self.async_checkpoint)
        return self._saver

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: _PATH, storage_options: Any | None = None) -> None:
        """Save a folder of shards, or one file; either takes its name in one step."""
        if self._save_distributed_checkpoint:
            if storage_options is not None:
                raise UsageError("storage_options were given", "a folder of shards takes none", "leave them out")
            self.saver.save(checkpoint, Path(self.broadcast(filepath)))
        elif self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: _PATH, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a folder of shards, saved on any mesh, or one file; always weights-only."""
        path = Path(self.broadcast(checkpoint_path))
        assert self.lightning_module is not None and self.model is not None
        strict = self.lightning_module.strict_loading
        from moviegen_core.parallel.checkpointing import load_file, load_sharded

        self.saver.wait()
        fitting = self.lightning_module.trainer.state.fn == TrainerFn.FITTING
        load = load_sharded if looks_sharded(path) else load_file
        return load(path, self.model, self.optimizers if fitting else [], strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state of an optimizer: by name and in shards, or as a single process would have it."""
        if self._save_distributed_checkpoint:
            return super().optimizer_state(optimizer)
        from moviegen_core.parallel.checkpointing import gathered_optimizer_state

        assert self.model is not None
        return gathered_optimizer_state(self.model, getattr(optimizer, "_optimizer", optimizer))

    def remove_checkpoint(self, filepath: _PATH) -> None:
        """Remove a checkpoint, though not before the one that takes its place is whole."""
        self.saver.remove(str(filepath))

    def on_train_end(self) -> None:
        """Wait for the last checkpoint."""
        self.saver.wait()

    def on_exception(self, exception: BaseException) -> None:
        """Find out whose fault it is where another process failed; wait for the last checkpoint, and say if it failed."""
        if self._watchdog is not None:
            from moviegen_core.parallel.liveness import is_communication_error

            if is_communication_error(exception):
                self._watchdog.explain()
        if self._saver is not None:
            self._saver.abandon()

    def teardown(self) -> None:
        """Leave nothing unwritten."""
        if self._saver is not None:
            self._saver.abandon()
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        super().teardown()
