"""Runs `moviegen` several times, each time in processes of their own, some of which it kills: `python lives.py plan.json`.

Everything is imported once and forked, so that a life costs seconds less. The plan is a list of lives:
{"args": [...], "ranks": 1, "env": {}, "kill": {"rank": 0, "record": FILE, "after": LINES, "signal": 9, "whole": true}}.
The exit codes of every life, a list for its ranks, are printed as JSON lines.
"""

import importlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch

from moviegen_core.cli import main

for _module in ("lightning_cli", "parallel.checkpointing", "parallel.strategy"):
    importlib.import_module(f"moviegen_core.{_module}")
for _module in ("moviegen_data", "moviegen_t2v.training", "moviegen_text"):
    importlib.import_module(_module)

TIME_LIMIT_S = 120


def live(life):
    ranks = life.get("ranks", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(ranks):
        process = os.fork()
        if process == 0:
            os.setpgid(0, 0)
            place = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()} if ranks > 1 else {})
            os.environ.update(life.get("env", {}))
            run(life["args"])
        processes.append(process)
    kill = life.get("kill")
    codes = [None] * ranks
    start = time.monotonic()
    while None in codes:
        for rank, process in enumerate(processes):
            if codes[rank] is None:
                found, status = os.waitpid(process, os.WNOHANG)
                codes[rank] = os.waitstatus_to_exitcode(status) if found else None
        if kill and lines(kill["record"]) >= kill["after"]:
            victims = range(ranks) if kill.get("whole") else [kill["rank"]]
            for rank in victims:
                if codes[rank] is None:
                    os.killpg(processes[rank], kill["signal"])
            kill = None
        if time.monotonic() - start > TIME_LIMIT_S:
            for rank, process in enumerate(processes):
                if codes[rank] is None:
                    os.killpg(process, signal.SIGKILL)
        time.sleep(0.003)
    for process in processes:  # workers of loaders
        try:
            os.killpg(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return codes


def run(args):
    code = 0
    try:
        main(args)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def lines(record):
    path = Path(record)
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    for life in json.loads(Path(sys.argv[1]).read_text()):
        print(json.dumps(live(life)), flush=True)
