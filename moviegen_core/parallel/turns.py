"""Work that takes much memory for a moment, done by the processes of a machine one after the other."""

import os
import socket
from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def in_turns(work: Callable[[], T]) -> T:
    """Call `work` on every process, on each machine by one at a time; all processes must come here.

    Raises:
        Exception: what `work` raised here; a process on which it did not fail raises what another one reported, so that none waits.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return work()
    hosts: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(hosts, f"{socket.gethostname()} {_boot_id()}")
    rank = dist.get_rank()
    mine = hosts[:rank].count(hosts[rank])
    done: list[T] = []
    for turn in range(max(map(hosts.count, hosts))):
        problem: Exception | None = None
        if turn == mine:
            try:
                done.append(work())
            except Exception as error:  # the others must hear of whatever it is
                problem = error
        problems: list[Exception | None] = [None] * len(hosts)
        dist.all_gather_object(problems, problem)
        if failed := next((found for found in problems if found is not None), None):
            raise problem or failed
    return done[0]


def _boot_id() -> str:
    """Tells machines of one name apart."""
    path = "/proc/sys/kernel/random/boot_id"
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        return file.read().strip()
