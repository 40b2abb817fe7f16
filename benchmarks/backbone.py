"""The backbone against its own linear layers and attention calls alone (the roof), and against diffusers' video transformers.

    python benchmarks/backbone.py --threads 1 2 --rounds 9

One process, random weights, every subject timed once per round in turn, medians over rounds; ratios travel between machines, times do not.
All subjects run with the memory settings that `moviegen fit` sets; "ours compiled" is ours with `compile_blocks: default`, where there is a
C++ compiler; peers run as they are. diffusers is needed for the peers only; without it they are left out.
Results go to benchmarks/results/backbone.json.
"""

import argparse
import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from measuring import RESULTS, Roof, Subject, compare, count_flops, forward_once, interleave, processor, tell, train_once, write_record
from torch import Tensor, nn

from moviegen_core.conditioner import Conditioning
from moviegen_core.memory import keep_freed_memory
from moviegen_core.nn.blocks import CompileMode
from moviegen_t2v.model import VideoTransformer

LAYERS, WIDTH, HEADS, TEXT = 8, 512, 8, 256
LATENT = (16, 4, 32, 32)  # 1024 tokens in patches of 1 x 2 x 2
PEER_FFN = 2048
OUR_FFN = 1376  # 3·d·f of SwiGLU against 2·d·f of the peers, rounded up
SIZES = {"num_layers": LAYERS, "width": WIDTH, "ffn_width": OUR_FFN, "num_heads": HEADS}


def subjects(dtype: torch.dtype) -> dict[str, Subject]:
    """Modules and their calls on one sample."""
    t = torch.tensor([0.5])
    latent, context = torch.randn(1, *LATENT, dtype=dtype), torch.randn(1, TEXT, WIDTH, dtype=dtype)
    conditioning = Conditioning(context=context, context_mask=torch.ones(1, TEXT, dtype=torch.bool))
    tokens = torch.randn(1, 1024, WIDTH, dtype=dtype)

    roof, ours, compiled = Roof(**SIZES).to(dtype), our_backbone(None).to(dtype), our_backbone("default").to(dtype)
    found = {"roof": (roof, lambda: roof(tokens, context)), "ours": (ours, lambda: ours(latent, t, conditioning))}
    if shutil.which("g++"):
        found["ours compiled"] = (compiled, lambda: compiled(latent, t, conditioning))
    try:
        import diffusers
    except ImportError:
        print("diffusers is not installed: peers are left out")
        return found

    diffusers.logging.set_verbosity_error()
    return found | peers(diffusers, latent, context)


def our_backbone(compile_blocks: CompileMode | None) -> VideoTransformer:
    """Our transformer of the benchmark's size."""
    ours = VideoTransformer(**SIZES, max_frames=4, max_height=16, max_width=16, compile_blocks=compile_blocks)
    nn.init.normal_(ours.unpatchify.linear.weight, std=0.02)
    return ours


def peers(diffusers: ModuleType, latent: Tensor, context: Tensor) -> dict[str, Subject]:
    """diffusers' transformers of about as many FLOPs; CogVideoX, HunyuanVideo and Mochi also attend from the text."""
    dtype, head = latent.dtype, WIDTH // HEADS
    heads = {"num_attention_heads": HEADS, "attention_head_dim": head}
    step, patches, frames = torch.tensor([500]), torch.randn(1, 1024, 64, dtype=dtype), latent.transpose(1, 2)
    mask, pooled, twelve = torch.ones(1, TEXT, dtype=dtype), torch.randn(1, 768, dtype=dtype), latent[:, :12]
    wan = diffusers.WanTransformer3DModel(**heads, text_dim=WIDTH, ffn_dim=PEER_FFN, num_layers=LAYERS).to(dtype)
    ltx = diffusers.LTXVideoTransformer3DModel(
        **heads, in_channels=64, out_channels=64, cross_attention_dim=WIDTH, num_layers=LAYERS, caption_channels=WIDTH
    ).to(dtype)
    cog = diffusers.CogVideoXTransformer3DModel(
        **heads, text_embed_dim=WIDTH, num_layers=LAYERS, sample_width=32, sample_height=32, sample_frames=13, max_text_seq_length=TEXT
    ).to(dtype)
    hunyuan = diffusers.HunyuanVideoTransformer3DModel(
        **heads,
        num_layers=3,
        num_single_layers=5,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        guidance_embeds=False,
        rope_axes_dim=(16, 24, 24),
    ).to(dtype)
    mochi = diffusers.MochiTransformer3DModel(**heads, num_layers=LAYERS // 2, text_embed_dim=WIDTH, max_sequence_length=TEXT).to(dtype)
    return {
        "wan": (wan, lambda: wan(latent, step, context, return_dict=False)[0]),
        "ltx": (ltx, lambda: ltx(patches, context, step, mask, 4, 16, 16, return_dict=False)[0]),
        "cogvideox": (cog, lambda: cog(frames, context, step, return_dict=False)[0]),
        "hunyuanvideo": (hunyuan, lambda: hunyuan(latent, step, context, mask, pooled, return_dict=False)[0]),
        "mochi": (mochi, lambda: mochi(twelve, context, step, mask.bool(), return_dict=False)[0]),
    }


def measure(dtype: torch.dtype, work: Callable, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every subject in every round, interleaved."""
    return interleave({name: partial(work, module.train(), call) for name, (module, call) in subjects(dtype).items()}, rounds, clock)


def main() -> None:
    """Measure, print ratios, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    threads = sorted({1, os.cpu_count() or 1})
    parser.add_argument("--threads", type=int, nargs="+", default=threads, help="threads of torch, one run for each")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of measurement")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu counts this process alone, for a busy machine")
    parser.add_argument("--output", type=Path, default=RESULTS / "backbone.json", help="where the results go")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time

    found = subjects(torch.float32)
    flops = {name: count_flops(found["ours" if name == "ours compiled" else name][1]) for name in found}  # counters see no compiled graph
    results = {threads: measure_all(threads, flops, arguments.rounds, clock) for threads in arguments.threads}
    record = {
        "machine": {"processor": processor(), "torch": torch.__version__, "platform": platform.machine()},
        "setting": f"{LAYERS} layers, width {WIDTH}, {HEADS} heads, 1024 video and {TEXT} text tokens, one sample",
        "rounds": arguments.rounds,
        "clock": arguments.clock,
        "gflop_forward": {name: round(count / 1e9, 2) for name, count in flops.items()},
        "results_by_threads": results,
    }
    write_record(record, arguments.output)


def measure_all(threads: int, flops: dict[str, int], rounds: int, clock: Callable[[], float]) -> dict[str, dict[str, dict[str, float]]]:
    """Forward pass and training step in fp32 and bf16: milliseconds, ratios to the roof, to ours, and to ours at equal FLOPs."""
    torch.set_num_threads(threads)
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        for label, work in (("forward", forward_once), ("train", train_once)):
            seconds = measure(dtype, work, rounds, clock)
            key = f"{label} {'fp32' if dtype is torch.float32 else 'bf16'}"
            results[key] = compare(seconds, flops)
            tell(f"{threads} threads, {key}", results[key])
    return results


if __name__ == "__main__":
    main()
