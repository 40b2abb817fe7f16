"""A process that is stuck or gone is named, and the run ends, instead of all others waiting for it forever."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from subprocess import Popen
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d

from moviegen_core.errors import UsageError

EXIT_CODE = 70  # a run that ended because one of its processes is stuck or gone
_TERMINATED = 128 + 15  # a process that was told to end and saved itself
_MISSED_BEATS = 6


@dataclass(frozen=True)
class Beat:
    """What a process tells of itself, several times within the time limit.

    Args:
        rank: its number.
        host: its machine.
        pid: its process there.
        number: how many beats there were before.
        activity: what it began last, and at which step.
        idle_s: seconds since it last began something.
        calls: collective operations it has entered so far, by group.
        ended: true once it has nothing left to do.
    """

    rank: int
    host: str
    pid: int
    number: int = 0
    activity: str = "start"
    idle_s: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    ended: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host}, last seen at {self.activity})"


class Watchdog(threading.Thread):
    """Tells others that this process lives and goes on, and finds out for whom it waits when it does not.

    Whoever finds a process that does not arrive at a collective operation, or is gone, says so once for all, and all processes end.

    Args:
        store: a connection of its own to a store that all processes share.
        rank: this process's number.
        world_size: how many there are.
        timeout_s: seconds without anything begun after which a wait counts as a hang.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, timeout_s: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.store, self.rank, self.world_size, self.timeout_s = store, rank, world_size, timeout_s
        self.interval_s = min(max(timeout_s / 10, 0.1), 5.0)
        self.activity = "start"
        self._begun = 0
        self._failed = self._without_store = False
        self._stopped = threading.Event()
        self._beat = Beat(rank, socket.gethostname(), os.getpid())
        self._last: tuple[Any, ...] = ()
        self._since = time.monotonic()
        self._neighbour: tuple[int, float] = (-1, time.monotonic())
        self._tell(ended=False)

    def note(self, activity: str) -> None:
        """Note that this process begins something."""
        self.activity = activity
        self._begun += 1

    def stop(self) -> None:
        """Tell the others that this process ends well."""
        self._stopped.set()
        try:
            self._tell(ended=True)
        except Exception:  # the process that keeps the store has ended before
            pass

    def explain(self) -> None:
        """After a collective operation has failed: wait as long as it may take to find out why; ends the process where that is known."""
        self._failed = True
        time.sleep((2 * _MISSED_BEATS + 3) * self.interval_s)

    def run(self) -> None:
        """Beat and look until stopped."""
        while not self._stopped.wait(self.interval_s):
            if self._without_store:
                self._consider_the_end()
                continue
            try:
                self._tell(ended=False)
                self._look()
            except Exception:  # the process that keeps the store has ended; asking again would only print warnings
                self._without_store = True

    # --------------------------------------------------------------------------------------------------------------------------------

    @property
    def _idle_s(self) -> float:
        return time.monotonic() - self._since

    def _observe(self) -> dict[str, int]:
        """Note whether anything was begun since the last time."""
        calls = entered_calls()
        if (self._begun, calls) != self._last:
            self._last, self._since = (self._begun, calls), time.monotonic()
        return calls

    def _tell(self, *, ended: bool) -> None:
        calls = self._observe()
        old = self._beat
        self._beat = Beat(old.rank, old.host, old.pid, old.number + 1, self.activity, round(self._idle_s, 1), calls, ended)
        self.store.set(f"beat/{self.rank}", json.dumps(asdict(self._beat)))

    def _look(self) -> None:
        if self.store.check(["verdict"]):
            self._end(None)
        if not self._failed and self._idle_s < 2 * self.interval_s:
            return
        number, since = self._neighbour
        neighbour = self._read([(self.rank + 1) % self.world_size])[0]
        if neighbour.number != number or neighbour.ended:
            self._neighbour = neighbour.number, time.monotonic()
        elif time.monotonic() - since > _MISSED_BEATS * self.interval_s:
            self._find_gone()
        if self._idle_s >= self.timeout_s:
            beats = self._read(range(self.world_size))
            late = find_late(beats)
            if late and self.rank not in {beat.rank for beat in late}:
                self._pronounce(_late(late, self._idle_s, self.rank))

    def _find_gone(self) -> None:
        before = self._read(range(self.world_size))
        time.sleep(_MISSED_BEATS * self.interval_s)
        after = self._read(range(self.world_size))
        silent = [now for then, now in zip(before, after, strict=True) if then.number == now.number]
        gone = [beat for beat in silent if beat.rank != self.rank and not beat.ended]
        if gone:
            self._pronounce(_gone(gone))

    def _consider_the_end(self) -> None:
        """End without the store, unless this process goes on by itself, as at the end of a run."""
        self._observe()
        if self._failed or self._idle_s >= self.timeout_s:
            self._stopped.wait(2 * self.interval_s)
            if not self._stopped.is_set():
                self._end(UsageError("rank 0 is gone", "it kept what the others know of each other", _advice("its end")))

    def _read(self, ranks: Iterable[int]) -> list[Beat]:
        return [Beat(**json.loads(content)) for content in self.store.multi_get([f"beat/{rank}" for rank in ranks])]

    def _pronounce(self, verdict: UsageError) -> None:
        """Say it, unless another process was first."""
        mine = f"{self.rank}"
        self._end(verdict if self.store.compare_set("verdict", "", mine).decode() == mine else None)

    def _end(self, verdict: UsageError | None) -> None:
        if verdict is None:
            time.sleep(self.interval_s)  # the one who says it comes first
        else:
            print_error(verdict)
        if self.rank == 0:
            time.sleep(3 * self.interval_s)  # this process keeps the store, from which the others read that they are to end
        end_process()


class ChildObserver(threading.Thread):
    """Looks after the processes that a launching process has started on its machine: where one fails, it says so and ends all.

    Args:
        children: processes of the ranks that follow this one's.
        rank: this process's number.
        grace_s: seconds this process has to end by itself, where another was killed; five times as many where it failed.
    """

    def __init__(self, children: Sequence[Popen[Any]], *, rank: int = 0, grace_s: float = 2.0) -> None:
        super().__init__(name="child-observer", daemon=True)
        self.children, self.rank, self.grace_s = children, rank, grace_s
        self.watchdog: Watchdog | None = None

    def run(self) -> None:
        """Look until all have ended."""
        while None in (codes := [child.poll() for child in self.children]) or any(codes):
            failed = {self.rank + number: code for number, code in enumerate(codes, 1) if code not in (None, 0, _TERMINATED)}
            if failed:
                # What ended by an error has a cause that this process may share, and is about to tell.
                time.sleep(self.grace_s if min(failed.values()) < 0 else 5 * self.grace_s)
                for child in self.children:
                    child.kill()
                if EXIT_CODE not in failed.values():  # otherwise it has said so itself
                    print_error(self._verdict(failed))
                end_process()
            if None not in codes:
                return
            time.sleep(0.2)

    def _verdict(self, failed: dict[int, int]) -> UsageError:
        told = ", ".join(f"rank {rank} (process {self.children[rank - self.rank - 1].pid})" for rank in failed)
        codes = ", ".join(f"killed by signal {-code}" if code < 0 else f"code {code}" for code in failed.values())
        doing = f", while rank {self.rank} was at {self.watchdog.activity}" if self.watchdog else ""
        return UsageError(f"{told} of {socket.gethostname()} is gone", f"it ended with {codes}{doing}", _advice("its end"))


def entered_calls() -> dict[str, int]:
    """How many collective operations this process has entered, by group."""
    calls = {}
    for group, ranks in list(distributed_c10d._world.pg_group_ranks.items()):
        if not isinstance(group, dist.ProcessGroup):  # one that this process is no member of
            continue
        try:
            calls[f"{group.group_name}:{min(ranks)}-{max(ranks)}x{len(ranks)}"] = int(group._get_sequence_number_for_group())
        except RuntimeError:  # a backend that does not count
            continue
    return calls


def find_late(beats: Sequence[Beat]) -> list[Beat]:
    """The processes that others wait for and that wait for nobody themselves; those that others wait for where there are none."""
    behind: set[int] = set()
    waiting: set[int] = set()
    for group in {group for beat in beats for group in beat.calls}:
        counts = {beat.rank: beat.calls[group] for beat in beats if group in beat.calls}
        first = max(counts.values())
        late = {rank for rank, count in counts.items() if count < first}
        if late:
            behind |= late
            waiting |= counts.keys() - late
    causes = behind - waiting or behind
    return [beat for beat in beats if beat.rank in causes]


def is_communication_error(error: BaseException) -> bool:
    """True for what a collective operation raises when another process fails."""
    if isinstance(error, (dist.DistError, dist.DistBackendError, dist.DistNetworkError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "nccl", "connection closed", "connection reset"))


def print_error(verdict: UsageError) -> None:
    """Say it as the command line does."""
    print(f"moviegen: error: {verdict}", file=sys.stderr, flush=True)


def end_process() -> None:
    """End this process at once, whatever its main thread waits for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_CODE)


def make_store(address: str, port: int | None) -> dist.TCPStore:
    """A connection to a store of our own; the store itself where no port is known yet."""
    timeout = timedelta(seconds=60)
    return dist.TCPStore(address, port or 0, is_master=port is None, wait_for_workers=False, timeout=timeout)


def _late(late: Sequence[Beat], idle_s: float, rank: int) -> UsageError:
    return UsageError(
        f"{', '.join(map(str, late))} did not arrive at a collective operation",
        f"rank {rank} has waited for {idle_s:.0f} s",
        _advice("what it does") + ", or raise trainer.strategy.timeout_s if it is only slow",
    )


def _gone(gone: Sequence[Beat]) -> UsageError:
    return UsageError(f"{', '.join(map(str, gone))} is gone", "it gives no sign of life any more", _advice("its end"))


def _advice(what: str) -> str:
    return f"look into its log for {what}; the run can go on with `--ckpt_path last`"
