"""Ray Data as the engine: one machine without any set-up, or a cluster by its address."""

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Self

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.engine import Engine, Operator, Part
from moviegen_data.curation.stage import Resources
from moviegen_data.curation.worker import portable

_MAX_BLOCKS = 10_000
_ANSWER_S = 10.0


class RayEngine(Engine):
    """Stages as pools of actors that pull parts through; Ray holds back what would pile up before a slow one.

    A worker or a machine that is lost is replaced, and its parts are done again. All machines see the folder of media and the output folder
    by the same path. In a `with` block, Ray is begun once for all runs.

    Args:
        address: `host:port` of a running cluster, or `auto` for the one this machine belongs to; unless given, a Ray of its own, here.
        num_cpus: cores that its own Ray uses; all unless given.

    Raises:
        UsageError: Ray is not installed, or a setting cannot be used.
    """

    def __init__(self, *, address: str | None = None, num_cpus: int | None = None) -> None:
        if num_cpus is not None:
            require_at_least(1, num_cpus=num_cpus)
            if address is not None:
                raise UsageError(f"num_cpus={num_cpus} was given with address={address}", "a cluster has its own", "give one of them")
        if address not in (None, "auto") and not re.fullmatch(r"[^/\s]+:\d+", address):  # Ray Data does not run through Ray's client
            exists = "a cluster's address is HOST:PORT, and `auto` on its machines; ray:// cannot be used"
            raise UsageError(f"address={address} was given", exists, "start the run on a machine of the cluster, and give `auto`")
        self.address, self.num_cpus = address, num_cpus
        self._num_blocks, self._began = 0, False

    def __enter__(self) -> Self:
        """See `Engine`."""
        self._num_blocks += 1
        return self

    def __exit__(self, *_: object) -> None:
        """See `Engine`."""
        self._num_blocks -= 1
        self._leave()

    def run(self, operators: Sequence[Operator], parts: Sequence[int]) -> Iterator[int]:
        """See `Engine.run`."""
        ray = _ray()
        if not (self._began and ray.is_initialized()):
            self._began = self._begin(ray)
        try:
            yield from self._run(ray, operators, parts)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Put a Ray that was begun here away, but for a block that may need it again."""
        if self._began and not self._num_blocks:
            _ray().shutdown()
            self._began = False

    def _begin(self, ray: Any) -> bool:
        if ray.is_initialized():
            self._require_same(ray.get_runtime_context().gcs_address)
            return False
        _require_answer(self.address)
        own = {} if self.address else {"num_cpus": self.num_cpus, "include_dashboard": False}
        try:
            ray.init(address=self.address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except ConnectionError as error:
            given = f"the Ray cluster {self.address} was given"
            raise UsageError(given, f"none answers there ({error})", "start one with `ray start --head`, or give no address") from error
        return True

    def _require_same(self, running: str) -> None:
        """Refuse settings that a Ray which runs already in this process would not heed."""
        if self.num_cpus is not None or self.address not in (None, "auto", running):
            raise UsageError(
                f"RayEngine was given address={self.address}, num_cpus={self.num_cpus}",
                f"this process already uses the Ray at {running}",
                "call `ray.shutdown()` before, or give neither",
            )

    def _run(self, ray: Any, operators: Sequence[Operator], parts: Sequence[int]) -> Iterator[int]:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        held = ray.cluster_resources()
        groups = chains(operators, held.get("GPU", 0.0))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        require_room([resources for resources, _ in groups], held, nodes)
        rows = ray.data.from_items([{"part": Part(number)} for number in parts], override_num_blocks=min(len(parts), _MAX_BLOCKS))
        for resources, chain in groups:
            most = most_workers(resources, held, len(parts))
            at_first = most if len(groups) == 1 else 1  # several groups share the machines as Ray sees their need
            pool = ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=at_first)
            shares = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus or None}
            rows = rows.map(_Worker, fn_constructor_args=(chain,), compute=pool, **shares)
        for row in rows.iter_rows():
            if isinstance(row["part"], Exception):
                raise row["part"]
            yield row["part"].number


class _Worker:
    """An actor: what its operators load, they load once."""

    def __init__(self, chain: Sequence[Callable[[Part], Part]]) -> None:
        self.chain = chain

    def __call__(self, row: dict[str, Part | Exception]) -> dict[str, Part | Exception]:
        part = row["part"]
        try:
            for function in self.chain if isinstance(part, Part) else ():
                part = function(part)
        except Exception as error:  # noqa: BLE001 - travels as a row, since Ray buries what is raised in a text of its own
            return {"part": portable(error)}
        return {"part": part}


def chains(operators: Sequence[Operator], num_gpus: float = 0.0) -> list[tuple[Resources, tuple[Callable[[Part], Part], ...]]]:
    """Neighbours of equal resources as one, and reading and writing with their neighbours, so that no core waits for a disk alone.

    Args:
        operators: the operators; the first and the last read and write.
        num_gpus: GPUs of all machines; operators that have use for one and were given no share get a whole one where there are some.
    """
    shares = []
    for operator in operators:
        wished = operator.resources.num_gpus
        given = wished if wished is not None else 1.0 if operator.uses_gpu and num_gpus else 0.0
        shares.append(replace(operator.resources, num_gpus=given))
    if len(shares) > 2:
        shares[0], shares[-1] = shares[1], shares[-2]
    groups = groupby(zip(shares, operators, strict=True), key=lambda pair: pair[0])
    return [(resources, tuple(operator.function for _, operator in group)) for resources, group in groups]


def require_room(shares: Sequence[Resources], held: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse stages whose workers can never all run at once, for which Ray would wait for ever.

    Args:
        shares: what one worker of each group of stages takes.
        held: what all machines have, by Ray's names.
        nodes: what each of them has.

    Raises:
        UsageError: that is too little, or a worker takes a whole GPU and a part of another.
    """
    for each in shares:
        num_gpus = each.num_gpus or 0.0
        if num_gpus > 1 and num_gpus % 1:
            raise UsageError(f"num_gpus={num_gpus:g} was given for a stage", "above 1, workers take whole GPUs", "give a whole number")
        if not any(node.get("CPU", 0.0) >= each.num_cpus and node.get("GPU", 0.0) >= num_gpus for node in nodes):
            given = f"a stage's worker takes {each.num_cpus:g} CPUs and {num_gpus:g} GPUs"
            raise UsageError(given, "no machine has both", "give smaller `resources`, or larger machines")
    for name, wanted in (("CPU", [each.num_cpus for each in shares]), ("GPU", [each.num_gpus or 0.0 for each in shares])):
        if sum(wanted) > held.get(name, 0.0):
            raise UsageError(
                f"the stages' workers take {' + '.join(f'{share:g}' for share in wanted)} {name}s",
                f"the machines have {held.get(name, 0.0):g}, and one worker of each must run",
                "give smaller `resources`, or more machines",
            )


def most_workers(resources: Resources, held: Mapping[str, float], num_parts: int) -> int:
    """How many workers of a group of stages have room at once.

    Args:
        resources: what one takes.
        held: what all machines have, by Ray's names.
        num_parts: parts to work on.
    """
    room = [float(num_parts), float(resources.num_workers or num_parts)]
    for name, share in (("CPU", resources.num_cpus), ("GPU", resources.num_gpus)):
        if share:
            room.append(held.get(name, 0.0) / share)
    return max(1, int(min(room)))


def _require_answer(address: str | None) -> None:
    """Refuse an address where nobody is, for which Ray would wait for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, ValueError) as error:
        given = f"the Ray cluster {address} was given"
        raise UsageError(given, f"none answers there ({error})", "start one with `ray start --head`, or give no address") from error


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        given = "the engine RayEngine was given"
        raise UsageError(given, f"Ray cannot be imported ({error})", "install `moviegen[curation]`, or use LocalEngine") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray
