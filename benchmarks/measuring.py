"""What the benchmarks share: interleaved rounds, FLOPs, the roof of a transformer, the machine, where media are and results go."""

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

RESULTS = Path(__file__).parent / "results"
Subject = tuple[nn.Module, Callable[[], Tensor]]  # a module, and its call on one sample


class Roof(nn.Module):
    """The matrix products and attention calls of our transformer, and nothing else.

    Args:
        num_layers: layers.
        width: width of the tokens and of the context.
        ffn_width: inner width of the gated feed-forward networks.
        num_heads: attention heads.
    """

    def __init__(self, *, num_layers: int, width: int, ffn_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        square = partial(nn.Linear, width, width, bias=False)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {name: square() for name in ("q", "k", "v", "o", "cq", "ck", "cv", "co")}
                | {name: nn.Linear(width, ffn_width, bias=False) for name in ("w1", "w3")}
                | {"w2": nn.Linear(ffn_width, width, bias=False)}
            )
            for _ in range(num_layers)
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Run the products."""
        for layer in self.layers:
            x = layer.o(self._attend(layer.q(x), layer.k(x), layer.v(x)))
            x = layer.co(self._attend(layer.cq(x), layer.ck(context), layer.cv(context)))
            x = layer.w2(_Fork.apply(layer.w1(x), layer.w3(x)))
        return x

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)


class _Fork(torch.autograd.Function):
    """Passes the first tensor on and lets gradients reach both, without any arithmetic."""

    @staticmethod
    def forward(ctx, first, second):
        """Hand the first on."""
        return first.view_as(first)

    @staticmethod
    def backward(ctx, gradient):
        """Hand the gradient to both."""
        return gradient, gradient


def count_flops(call: Callable[[], Tensor]) -> int:
    """Floating-point operations of a forward pass, attention counted as matrix products."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def count_parameters(*modules: nn.Module) -> int:
    """Parameters of all the modules."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def forward_once(module: nn.Module, call: Callable[[], Tensor]) -> None:
    """One forward pass without gradients."""
    with torch.no_grad():
        call()


def train_once(module: nn.Module, call: Callable[[], Tensor]) -> None:
    """One forward and backward pass."""
    call().square().mean().backward()
    module.zero_grad(set_to_none=True)


def interleave(
    cases: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float], *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of every case in every round, one after the other in turn; a round before them, to warm up, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-warm_up, rounds):
        for name, run in cases.items():
            start = clock()
            run()
            if number >= 0:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: list[float], to: list[float]) -> float:
    """Median over rounds of one case's seconds over another's of the same round."""
    return statistics.median(a / b for a, b in zip(seconds, to, strict=True))


def peak_bytes(run: Callable[[], Any]) -> int:
    """Most memory that tensors take on top of what there was before, while something runs on the CPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    events = [event["args"] for event in sorted(events, key=lambda event: event["ts"])]
    totals = [event["Total Allocated"] for event in events]
    return max(totals) - (totals[0] - events[0]["Bytes"]) if totals else 0


def compare(seconds: Mapping[str, list[float]], flops: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Of every subject milliseconds, and its time over the roof's, over ours', and over ours' at equal FLOPs, where these are there."""
    table = {}
    for name, times in seconds.items():
        table[name] = {"ms": round(1e3 * statistics.median(times), 2)}
        if "roof" in seconds:
            table[name]["to_roof"] = round(ratio(times, seconds["roof"]), 3)
        table[name]["to_ours"] = round(ratio(times, seconds["ours"]), 3)
        table[name]["to_ours_per_flop"] = round(ratio(times, seconds["ours"]) * flops["ours"] / flops[name], 3)
    return table


def tell(setting: str, table: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of `compare` on a line."""
    told = (f"{name} {found['ms']:.0f} ms, {found.get('to_roof', found['to_ours_per_flop']):.3f};" for name, found in table.items())
    print(f"{setting}:", *told, flush=True)


def media_parser(description: str | None, *, output: str) -> argparse.ArgumentParser:
    """Arguments of a benchmark over real media, to which it adds its own; `parse_media` reads them.

    Args:
        description: the benchmark's docstring.
        output: name of the file of results.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=os.environ.get("MOVIEGEN_MEDIA"), help="folder of real media")
    parser.add_argument("--output", type=Path, default=RESULTS / output, help="where results go")
    return parser


def parse_media(parser: argparse.ArgumentParser, *folders: str) -> argparse.Namespace:
    """Read the command line; it ends where `--media` is no folder that holds some others."""
    arguments = parser.parse_args()
    if arguments.media is None or not all((arguments.media / folder).is_dir() for folder in folders):
        parser.error(f"give --media, or MOVIEGEN_MEDIA, a folder with {' and '.join(f'{folder}/' for folder in folders)}")
    return arguments


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write results as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(scratch, path)
