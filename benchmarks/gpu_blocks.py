"""Blocks of the 30 B model on one GPU: how much of its matrix-product rate a training step reaches, and where the rest goes.

    python benchmarks/gpu_blocks.py                 # as many layers as fit, at 8,192 and at 73,728 tokens
    python benchmarks/gpu_blocks.py --dry-run       # tiny sizes, on a CPU too; the figures mean nothing, and nothing is written

bf16 weights and activations, forward and backward pass of a stack of blocks without an optimizer, medians over steps. MFU counts the
model's FLOPs alone (a backward pass as two forward passes, recomputation not at all) against the rate of an 8192 x 8192 x 8192 bf16 matrix
product measured here, and against the data sheet's. Every setting, every attention kernel and a profile of one step go to
benchmarks/results/gpu_blocks.json.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from moviegen_core.nn import blocks as blocks_module
from moviegen_core.nn.blocks import prepare_blocks
from moviegen_core.nn.transformer import TransformerBlock

HERE = Path(__file__).parent
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
SETTINGS: dict[str, dict[str, Any]] = {
    "eager, block": {"activation_checkpointing": "block"},
    "compiled, none": {"compile_blocks": "default"},
    "compiled, selective 1.0": {"compile_blocks": "default", "activation_checkpointing": "selective", "kept_activations": 1.0},
    "compiled, selective 0.5": {"compile_blocks": "default", "activation_checkpointing": "selective", "kept_activations": 0.5},
    "compiled, block": {"compile_blocks": "default", "activation_checkpointing": "block"},
    "CUDA graphs, none": {"compile_blocks": "reduce-overhead"},
}
ATTENTION, PRODUCT = (
    ("attention", "flash", "fmha", "sdpa", "mha"),
    ("gemm", "matmul", "cutlass", "nvjet", "::mm", "::bmm", "::addmm", "xmma"),
)


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    width: int = 6144
    ffn_width: int = 16384
    num_heads: int = 48
    context: int = 512
    tokens: tuple[int, ...] = (8192, 73_728)
    matmul: int = 8192
    max_layers: int = 8
    steps: int = 5


TINY = Sizes(width=64, ffn_width=160, num_heads=4, context=8, tokens=(32,), matmul=64, max_layers=2, steps=2)


class Machine:
    """The device, its clock and its memory."""

    def __init__(self, dry_run: bool) -> None:
        self.cuda = torch.cuda.is_available() and not dry_run
        self.device = torch.device("cuda" if self.cuda else "cpu")

    def seconds(self, work: Callable[[], Any], steps: int) -> float:
        """Median time of the work once it is warm."""
        times = []
        for step in range(steps + 2):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            if step >= 2:
                times.append(time.perf_counter() - start)
        return statistics.median(times)

    def wait(self) -> None:
        """Until all that was asked for is done."""
        if self.cuda:
            torch.cuda.synchronize()

    def clear(self) -> None:
        """Forget graphs and memory."""
        torch._dynamo.reset()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float | None:
        """Most memory held since the last `clear`."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.cuda else None

    def data_sheet_tflops(self) -> float | None:
        """What the maker promises for dense bf16 products."""
        flops = get_available_flops(self.device, torch.bfloat16) if self.cuda else None
        return None if flops is None else flops / 1e12


class Stack(nn.Module):
    """Blocks and their inputs."""

    def __init__(self, sizes: Sizes, num_layers: int, num_tokens: int, device: torch.device, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        arguments = {"width": sizes.width, "ffn_width": sizes.ffn_width, "num_heads": sizes.num_heads}
        with torch.device(device):
            self.blocks = nn.ModuleList(TransformerBlock(**arguments) for _ in range(num_layers)).to(torch.bfloat16)
            self.x = torch.randn(1, num_tokens, sizes.width, dtype=torch.bfloat16, requires_grad=True)
            self.positions = torch.randn(num_tokens, sizes.width, dtype=torch.bfloat16)
            self.modulation = torch.randn(1, 6, sizes.width, dtype=torch.bfloat16)
            self.context = torch.randn(1, sizes.context, sizes.width, dtype=torch.bfloat16)
            self.mask = (torch.arange(sizes.context) < sizes.context // 2).view(1, 1, 1, -1)
        prepare_blocks(self.blocks, **settings)

    def step(self) -> None:
        """One forward and backward pass."""
        x = self.x
        for block in self.blocks:
            x = block(x, self.positions, self.modulation, self.context, self.mask)
        x.float().square().mean().backward()
        for tensor in (self.x, *self.parameters()):
            tensor.grad = None


def num_flops(sizes: Sizes, num_tokens: int) -> tuple[int, int]:
    """Floating-point operations of one block's forward pass, as the backbone counts them: all, and those of attention alone."""
    n, m, d = num_tokens, sizes.context, sizes.width
    attention = 4 * n * n * d + 4 * n * m * d
    return 8 * n * d * d + 4 * (n + m) * d * d + 6 * n * d * sizes.ffn_width + attention, attention


def layers_that_fit(machine: Machine, sizes: Sizes, num_tokens: int, settings: dict[str, Any]) -> int:
    """As many as the memory holds by a rough count, at most `max_layers`."""
    if not machine.cuda:
        return sizes.max_layers
    per_token = 2 * num_tokens
    weights = 2 * 2 * (8 * sizes.width**2 + 3 * sizes.width * sizes.ffn_width)  # and their gradients
    block, products = per_token * (24 * sizes.width + 5 * sizes.ffn_width), per_token * (9 * sizes.width + 2 * sizes.ffn_width)
    how = settings.get("activation_checkpointing", "none")
    kept = block if how == "none" else settings.get("kept_activations", 0.0) * products + per_token * sizes.width
    free = 0.9 * torch.cuda.mem_get_info()[0] - block - 10 * per_token * sizes.width
    return max(1, min(sizes.max_layers, int(free / (weights + kept))))


def measure_setting(
    machine: Machine, sizes: Sizes, num_tokens: int, peaks: dict[str, float | None], settings: dict[str, Any]
) -> dict[str, Any]:
    """Time, rates and memory of a training step; the reason where it cannot be had."""
    machine.clear()
    num_layers = layers_that_fit(machine, sizes, num_tokens, settings)
    try:
        stack = Stack(sizes, num_layers, num_tokens, machine.device, **settings)
        seconds = machine.seconds(stack.step, sizes.steps)
    except (RuntimeError, ValueError) as error:  # out of memory, not compilable, refused
        return {"num_layers": num_layers, "failed": str(error).splitlines()[0][:200]}
    tflops = 3 * num_layers * num_flops(sizes, num_tokens)[0] / seconds / 1e12
    rates = {"tflops": tflops} | {f"mfu_of_{name}": tflops / peak for name, peak in peaks.items() if peak}
    return {"num_layers": num_layers, "ms": 1e3 * seconds, **rates, "peak_gib": machine.peak_gib(), "parts": profile(machine, stack)}


def profile(machine: Machine, stack: Stack) -> dict[str, float]:
    """Shares of a step's kernel time: attention, matrix products, the rest."""
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if machine.cuda else activity.CPU]) as profiled:
        stack.step()
        machine.wait()
    times = {"attention": 0.0, "products": 0.0, "rest": 0.0}
    for event in profiled.key_averages():
        name = event.key.lower()
        part = "attention" if any(word in name for word in ATTENTION) else "products" if any(w in name for w in PRODUCT) else "rest"
        times[part] += event.self_device_time_total if machine.cuda else event.self_cpu_time_total
    whole = sum(times.values()) or 1.0
    return {part: round(spent / whole, 4) for part, spent in times.items()}


def measure_kernels(machine: Machine, sizes: Sizes, num_tokens: int) -> dict[str, dict]:
    """Every attention kernel, forward and backward, self-attention and masked cross-attention."""
    found: dict[str, dict] = {}
    head = sizes.width // sizes.num_heads
    mask = (torch.arange(sizes.context, device=machine.device) < sizes.context // 2).view(1, 1, 1, -1)
    for part, length, given in (("self", num_tokens, None), ("cross", sizes.context, mask)):
        query, key, value = (
            torch.randn(1, sizes.num_heads, n, head, dtype=torch.bfloat16, device=machine.device, requires_grad=True)
            for n in (num_tokens, length, length)
        )
        gradient = torch.randn_like(query)
        for name, kernel in KERNELS.items():

            def work(kernel=kernel, query=query, key=key, value=value, given=given, gradient=gradient) -> tuple[Tensor, ...]:
                with sdpa_kernel(kernel):
                    out = F.scaled_dot_product_attention(query, key, value, attn_mask=given)
                return torch.autograd.grad(out, (query, key, value), gradient)

            try:
                seconds = machine.seconds(work, sizes.steps)
            except RuntimeError as error:
                found[f"{part} {name}"] = {"failed": str(error).splitlines()[0][:200]}
                continue
            # Two products forward, five backward.
            found[f"{part} {name}"] = {"ms": 1e3 * seconds, "tflops": 14 * num_tokens * length * sizes.width / seconds / 1e12}
    return found


def measure(machine: Machine, sizes: Sizes) -> dict[str, Any]:
    """All figures."""
    a = torch.randn(sizes.matmul, sizes.matmul, dtype=torch.bfloat16, device=machine.device)
    peaks = {
        "measured_peak": 2 * sizes.matmul**3 / machine.seconds(lambda: a @ a, 4 * sizes.steps) / 1e12,
        "data_sheet": machine.data_sheet_tflops(),
    }
    del a
    runs = {}
    for num_tokens in sizes.tokens:
        flops, attention = num_flops(sizes, num_tokens)
        run: dict[str, Any] = {"attention_share_of_flops": attention / flops, "settings": {}}
        for name, settings in SETTINGS.items():
            run["settings"][name] = found = measure_setting(machine, sizes, num_tokens, peaks, settings)
            print(f"{num_tokens} tokens, {name}: {json.dumps(found)}", flush=True)
        machine.clear()
        run["attention_kernels"] = measure_kernels(machine, sizes, num_tokens)
        print(f"{num_tokens} tokens, attention: {json.dumps(run['attention_kernels'])}", flush=True)
        runs[str(num_tokens)] = run
    name = torch.cuda.get_device_name() if machine.cuda else "none"
    return {"device": name, "torch": torch.__version__, "peaks_tflops": peaks, "sizes": asdict(sizes), "runs": runs}


def main(args: list[str] | None = None) -> int:
    """Measure, print, write; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, nothing is compiled to code and nothing written")
    parser.add_argument("--tokens", type=int, nargs="+", help="sequence lengths; 8192 and 73728 unless given")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "gpu_blocks.json", help="where the results go")
    arguments = parser.parse_args(args)
    if not arguments.dry_run and not torch.cuda.is_available():
        print("no CUDA device here; --dry-run tries the script on the CPU", file=sys.stderr)
        return 2
    sizes = TINY if arguments.dry_run else Sizes(tokens=tuple(arguments.tokens or Sizes.tokens))
    if arguments.dry_run:
        blocks_module.BACKEND = "eager"
    record = measure(Machine(arguments.dry_run), sizes)
    if not arguments.dry_run:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        scratch = arguments.output.with_suffix(".tmp")
        scratch.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(scratch, arguments.output)
        print(f"written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
