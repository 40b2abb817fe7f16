"""Checkpoints of which every process writes and reads its own shards: atomic, asynchronous where asked for, for any mesh."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from moviegen_core.errors import UsageError
from moviegen_core.files import explained, partial_path, publish, recover, remove
from moviegen_core.weights.checkpoint_io import by_number, save_torch
from moviegen_core.weights.loading import load_into, require_same_model
from moviegen_core.weights.reading import SHARDED_REST, ShardedWeights, load_torch, open_weights
from moviegen_core.weights.sharded import REST, ShardedFolder, key_of, take_out


class ShardedSaver:
    """Writes the checkpoints of all processes, one at a time.

    A checkpoint is written into a hidden folder beside its name. Once every process is done and everything is flushed, one rename makes it
    visible; what had its name is valid until then and removed after.

    Args:
        strategy: whose processes save.
        asynchronous: copy the state to main memory and write it while training goes on.
    """

    def __init__(self, strategy: Strategy, *, asynchronous: bool = False) -> None:
        self.strategy = strategy
        self.asynchronous = asynchronous
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: tuple[Path, Future[None]] | None = None
        self._outdated: list[str] = []
        self._group: dist.ProcessGroup | None = None

    def save(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Save on all processes; an asynchronous saving that is still under way is waited for first.

        Raises:
            UsageError: this saving failed, or the one before it; the checkpoint that had the name before is still there.
        """
        self.wait()
        temporary = partial_path(path)
        rest = dict(checkpoint)
        state = {"state_dict": rest.pop("state_dict")}
        state |= {f"optimizer_{number}": part for number, part in enumerate(rest.pop("optimizer_states", []))}
        shards = take_out(rest, DTensor)
        state |= {key_of(place): tensor for place, tensor in shards.items()}
        rest[SHARDED_REST] = [(list(place), key_of(place)) for place in shards]

        self._on_first(path, lambda: _begin(temporary, path, rest))
        writer = dcp.FileSystemWriter(temporary, single_file_per_rank=True, sync_files=True)
        if not self.asynchronous:
            try:
                dcp.save(state, storage_writer=writer)
            except dcp.CheckpointException as error:
                self._discard(temporary)
                raise _failure(path, error) from error
            self._on_first(path, lambda: publish(temporary, path))
            return
        if self._group is None and dist.is_initialized():
            self._group = dist.new_group(backend="gloo", group_desc="checkpoint")
        written: Any = dcp.async_save(state, storage_writer=writer, process_group=self._group)
        self._pending = path, self._executor.submit(self._finish, written, temporary, path)

    def wait(self) -> None:
        """Wait, on all processes, until the last saving is done.

        Raises:
            UsageError: it failed.
        """
        if self._pending is None:
            return
        path, problem = self._pending[0], self._wait_alone()
        problem = self.strategy.broadcast(problem) or problem  # only the first process knows of a failed rename
        outdated, self._outdated = self._outdated, []
        if problem is not None:
            raise UsageError(*problem)
        for old in outdated:
            if Path(old) != path:
                self.remove(old)

    def abandon(self) -> None:
        """After an exception, which not all processes may have met: finish what is under way where the others do, and say what failed."""
        problem = self._wait_alone()
        outdated, self._outdated = self._outdated, []
        if problem is not None:
            rank_zero_warn("; ".join(problem))
        elif self.strategy.is_global_zero:
            for old in outdated:
                remove(Path(old))

    def remove(self, path: str) -> None:
        """Remove a checkpoint, though not before the one that takes its place is whole."""
        if self._pending is not None:
            self._outdated.append(path)
        elif self.strategy.is_global_zero:
            remove(Path(path))

    def _wait_alone(self) -> tuple[str, str, str] | None:
        if self._pending is None:
            return None
        (path, pending), self._pending = self._pending, None
        try:
            pending.result()
        except Exception as error:
            told = error if isinstance(error, UsageError) else _failure(path, error)
            return told.given, told.exists, told.advice
        return None

    def _finish(self, written: Future[Any], temporary: Path, path: Path) -> None:
        try:
            written.result()
        except dcp.CheckpointException as error:
            self._discard(temporary)
            raise _failure(path, error) from error
        if self.strategy.is_global_zero:
            with explained(path):
                publish(temporary, path)

    def _discard(self, temporary: Path) -> None:
        """Give back the space of what could not be finished."""
        if self.strategy.is_global_zero:
            remove(temporary)

    def _on_first(self, path: Path, work: Callable[[], None]) -> None:
        """Let the first process work; all fail where it does."""
        problem: UsageError | None = None
        if self.strategy.is_global_zero:
            try:
                with explained(path):
                    work()
            except Exception as error:  # whatever it is, the others wait to hear of it
                problem = _failure(path, error)
                self._discard(partial_path(path))
        told = self.strategy.broadcast(None if problem is None else (problem.given, problem.exists, problem.advice))
        if told is not None:
            raise UsageError(*told)


def load_sharded(path: Path, model: nn.Module, optimizers: Sequence[Optimizer], *, strict: bool = True) -> dict[str, Any]:
    """Load shards into a model and its optimizers, however they are cut; returns what else the checkpoint holds.

    Raises:
        UsageError: the checkpoint is damaged, unfinished, or of another model; or an optimizer is to be resumed and it holds none.
    """
    weights = ShardedWeights(path)
    weights.folder.require_rest()
    state = get_model_state_dict(model)
    require_same_model(state, weights.infos, source=path, module=model, strict=strict)
    known = {"state_dict": {name: tensor for name, tensor in state.items() if name in weights.infos}}
    absent = [number for number, _ in enumerate(optimizers) if not _has_optimizer(weights.folder, number)]
    if absent:
        raise _weights_only(path)
    weights.folder.load(known, together=True)
    set_model_state_dict(model, known["state_dict"], options=StateDictOptions(strict=strict))
    for number, optimizer in enumerate(optimizers):
        _load_optimizer(weights.folder, f"optimizer_{number}", model, optimizer)
    return dict(weights.metadata)


def load_file(path: Path, model: nn.Module, optimizers: Sequence[Optimizer], *, strict: bool = True) -> dict[str, Any]:
    """Load the file of a single process, or of a mesh that gathered its state, into sharded weights and optimizers.

    Raises:
        UsageError: the checkpoint is damaged or of another model; or an optimizer is to be resumed and it holds none.
    """
    open_weights(path)  # tells what is wrong with it
    content = load_torch(path, mmap=True)
    load_into(model, content.pop("state_dict"), source=path, strict=strict)
    states = content.pop("optimizer_states", [])
    if len(states) < len(optimizers):
        raise _weights_only(path)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for optimizer, state in zip(optimizers, states, strict=False):
        order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
        named = {
            "state": {order[number]: values for number, values in state["state"].items()},
            "param_groups": [{**group, "params": [order[number] for number in group["params"]]} for group in state["param_groups"]],
        }
        _set_optimizer(model, optimizer, named, StateDictOptions(full_state_dict=True, strict=False))
    return content


def gathered_optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's state as a single process would save it, on the first process; empty on the others."""
    state = get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return by_number(state) if state else {}


def _load_optimizer(folder: ShardedFolder, key: str, model: nn.Module, optimizer: Optimizer) -> None:
    """Load what was saved of an optimizer; parameters that had no state yet have none again."""
    state = get_optimizer_state_dict(model, optimizer)
    paths = [path for path in folder.index.planner_data.values() if path[0] == key]
    saved = {path[2] for path in paths if path[1] == "state" and len(path) > 2}
    state["state"] = {name: values for name, values in state["state"].items() if name in saved}
    wanted = {(key, "state", name, entry) for name, values in state["state"].items() for entry in values}
    missing = {key_of(path[2:]) for path in wanted - set(paths)}
    options = {path[3] for path in paths if path[1] == "param_groups" and len(path) > 3}
    missing |= {option for group in state["param_groups"] for option in group if options and option not in options}
    if missing:
        raise UsageError(
            f"the checkpoint {folder.path} was given to resume from",
            f"it was saved with another optimizer than {type(optimizer).__name__}: it has no {min(missing)}",
            "resume with the optimizer it was saved with, or start from its weights with `init_checkpoint`",
        )
    folder.load({key: state}, together=True)
    _set_optimizer(model, optimizer, state, StateDictOptions(strict=False))


def _set_optimizer(model: nn.Module, optimizer: Optimizer, state: dict[str, Any], options: StateDictOptions) -> None:
    set_optimizer_state_dict(model, optimizer, optim_state_dict=state, options=options)
    for name, parameter in model.named_parameters():
        if name.replace("_orig_mod.", "") not in state["state"]:
            optimizer.state.pop(parameter, None)


def _has_optimizer(folder: ShardedFolder, number: int) -> bool:
    return any(path[0] == f"optimizer_{number}" for path in folder.index.planner_data.values())


def _weights_only(path: Path) -> UsageError:
    return UsageError(
        f"the checkpoint {path} was given to resume from", "it holds no optimizer state", "start from its weights with `init_checkpoint`"
    )


def _begin(temporary: Path, path: Path, rest: dict[str, Any]) -> None:
    """Clear away what crashed savings left, and write what is not sharded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path.parent, path.suffix or path.name)
    temporary.mkdir()
    save_torch(rest, temporary / REST)


def _failure(path: Path, error: Exception) -> UsageError:
    cause: Any = error
    who = "it"
    if isinstance(error, dcp.CheckpointException) and error.failures:
        rank, (cause, _) = next(iter(error.failures.items()))
        who = f"process {rank}"
    told = f"{who} failed: {str(cause).splitlines()[0] if str(cause) else type(cause).__name__}"
    return UsageError(f"the checkpoint {path} was to be saved", told, "what had this name before is still valid; free space and resume")
