"""Start-up of the command line as ratios to `import lightning.pytorch.cli`, measured in turns in one run.

python benchmarks/startup.py [--repeats 7] [--output benchmarks/results/startup.json]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PEER = "import lightning.pytorch.cli"
CASES = {
    PEER: [sys.executable, "-c", PEER],
    "import torch": [sys.executable, "-c", "import torch"],
    "moviegen --version": [sys.executable, "-m", "moviegen_core", "--version"],
    "moviegen plugins": [sys.executable, "-m", "moviegen_core", "plugins"],
    "moviegen plugins list": [sys.executable, "-m", "moviegen_core", "plugins", "list"],
    "moviegen presets list": [sys.executable, "-m", "moviegen_core", "presets", "list"],
    "moviegen fit --help": [sys.executable, "-m", "moviegen_core", "fit", "--help"],
}


def cpu_seconds(command: list[str]) -> float:
    """Processor time of one run: other work on the machine disturbs it less than the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imports_torch(command: list[str]) -> bool:
    """Whether `python -X importtime` names torch."""
    told = subprocess.run([command[0], "-X", "importtime", *command[1:]], check=True, capture_output=True, text=True).stderr
    return any(line.rpartition("|")[2].strip() == "torch" for line in told.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "startup.json")
    args = parser.parse_args()
    for command in CASES.values():
        cpu_seconds(command)  # fills the disk cache and writes the bytecode
    times = {name: [] for name in CASES}
    for _ in range(args.repeats):
        for name, command in CASES.items():
            times[name].append(cpu_seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    cases = {
        name: {"cpu_s": round(median, 3), "ratio": round(median / medians[PEER], 3), "imports_torch": imports_torch(CASES[name])}
        for name, median in medians.items()
    }
    record = {
        "peer": PEER,
        "repeats": args.repeats,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {package: version(package) for package in ("moviegen", "lightning", "torch", "jsonargparse")},
        "cases": cases,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = args.output.with_suffix(".tmp")
    unfinished.write_text(json.dumps(record, indent=2) + "\n")
    unfinished.replace(args.output)
    for name, case in cases.items():
        print(f"{name:<32} {case['cpu_s']:7.3f} s  {case['ratio']:6.3f} x  {'torch' if case['imports_torch'] else 'no torch'}")


if __name__ == "__main__":
    main()
