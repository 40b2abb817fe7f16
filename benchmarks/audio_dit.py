"""The audio transformer against diffusers' port of stable-audio-tools' and against a joint transformer of MMAudio's size.

    python benchmarks/audio_dit.py                       # about 8 minutes on two quiet cores
    python benchmarks/audio_dit.py --dry-run             # tiny sizes; the figures mean nothing

Two sizes, 10 s and 30 s of sound at 25 latent frames a second, 128 text tokens, forward pass and training step, fp32 and bf16, one thread
and two. One process, random weights, every subject timed once per round in turn, medians over rounds; ratios travel between machines, times
do not. "roof" is our matrix products and attention calls alone. At each size subjects have equal depth and width, so `to_ours` is time at
equal sizes, `to_ours_per_flop` time per floating-point operation; above 1 is slower than ours. To keep it short a twelfth or a quarter of
the layers runs (layers are alike; what all layers share, which is ours' modulation above all, then weighs more than in the whole), and
"whole" is a forward pass of all layers.

- stable-audio-open: 24 layers of 1536, the defaults of `StableAudioDiTModel`. It has rotary positions and half as many heads for keys and
  values in cross-attention, and one token more for the time, in place of our modulation of every layer, tables of positions, and doors for
  audio context and frames of video.
- MMAudio small: 157 million parameters in 12 layers, 4 of which attend jointly to sound, frames and text and 8 to sound alone. It is not on
  PyPI. Of equal size and kind is `FluxTransformer2DModel` with 4 joint and 8 single blocks of 768, whose single blocks see text as well;
  MMAudio's own are narrower (448), and have convolutions of 3 taps in place of linear layers. Its blocks are modulated one by one.

Ours has gated feed-forward networks of 4 d here, as stable audio has; "ours, gelu", at the smaller size, has the paper's plain ones, of as
many FLOPs (6 d).
diffusers is needed for the peers only; without it they are left out. Results go to benchmarks/results/audio_dit.json.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import (
    RESULTS,
    Roof,
    Subject,
    compare,
    count_flops,
    count_parameters,
    forward_once,
    interleave,
    processor,
    tell,
    train_once,
    write_record,
)
from torch import Tensor, nn

from moviegen_audio.model import AudioTransformer
from moviegen_core.conditioner import Conditioning
from moviegen_core.memory import keep_freed_memory

CHANNELS, TEXT, TEXT_WIDTH, HEAD, LATENT_HZ = 128, 128, 768, 64, 25
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
WORK = {"forward": forward_once, "train": train_once}


@dataclass(frozen=True)
class Size:
    """A peer's size.

    Args:
        peer: its kind, "stable" or "joint".
        num_layers: of the whole.
        timed_layers: of the part that is timed in every setting.
        width: of the tokens.
    """

    peer: str
    num_layers: int
    timed_layers: int
    width: int

    @property
    def num_heads(self) -> int:
        """Attention heads."""
        return self.width // HEAD


SIZES = {"stable-audio-open": Size("stable", 24, 2, 1536), "MMAudio small": Size("joint", 12, 3, 768)}
TINY = {"stable-audio-open": Size("stable", 2, 1, 128), "MMAudio small": Size("joint", 3, 3, 128)}


class Ours(nn.Module):
    """Our transformer behind a linear layer for the text, told of frames and of audio context as well."""

    def __init__(self, *, num_layers: int, width: int, num_heads: int, feed_forward: str, ffn_width: int) -> None:
        super().__init__()
        self.text = nn.Linear(TEXT_WIDTH, width)
        self.backbone = AudioTransformer(
            num_layers=num_layers,
            width=width,
            ffn_width=ffn_width,
            num_heads=num_heads,
            in_channels=CHANNELS,
            extra_channels=CHANNELS,
            feed_forward=feed_forward,
        )
        nn.init.normal_(self.backbone.unpatchify.linear.weight, std=0.02)

    def forward(self, latent: Tensor, t: Tensor, text: Tensor, frames: Tensor) -> Tensor:
        """Predict the velocity."""
        mask = torch.ones(text.shape[:2], dtype=torch.bool)
        return self.backbone(latent, t, Conditioning(context=self.text(text), context_mask=mask, channels=latent, aligned=frames))


def subjects(size: Size, num_tokens: int, dtype: torch.dtype) -> dict[str, Subject]:
    """Ours and the peer at a size, and their calls on one sample."""
    latent, text = torch.randn(1, CHANNELS, num_tokens, dtype=dtype), torch.randn(1, TEXT, TEXT_WIDTH, dtype=dtype)
    t, frames = torch.tensor([0.5]), torch.randn(1, num_tokens, size.width, dtype=dtype)
    ours = Ours(**sizes_of(size), feed_forward="swiglu", ffn_width=4 * size.width).to(dtype)
    found: dict[str, Subject] = {"ours": (ours, lambda: ours(latent, t, text, frames))}
    try:
        import diffusers
    except ImportError:
        print("diffusers is not installed: peers are left out")
        return found
    diffusers.logging.set_verbosity_error()
    name, peer = {"stable": ("StableAudioDiTModel", stable_audio), "joint": ("FluxTransformer2DModel", joint)}[size.peer]
    return found | {name: peer(size, latent, text)}


def references(size: Size, num_tokens: int, dtype: torch.dtype) -> dict[str, Subject]:
    """The roof, and at the smaller size ours with the paper's feed-forward networks."""
    roof = Roof(**sizes_of(size), ffn_width=4 * size.width).to(dtype)
    tokens, context = (torch.randn(1, n, size.width, dtype=dtype, requires_grad=True) for n in (num_tokens, TEXT))
    found: dict[str, Subject] = {"roof": (roof, lambda: roof(tokens, context))}
    if size.peer == "joint":
        plain = Ours(**sizes_of(size), feed_forward="gelu", ffn_width=6 * size.width).to(dtype)
        latent, text = torch.randn(1, CHANNELS, num_tokens, dtype=dtype), torch.randn(1, TEXT, TEXT_WIDTH, dtype=dtype)
        frames = torch.randn(1, num_tokens, size.width, dtype=dtype)
        found["ours, gelu"] = (plain, lambda: plain(latent, torch.tensor([0.5]), text, frames))
    return found


def sizes_of(size: Size) -> dict[str, int]:
    """The sizes that all of ours take."""
    return {"num_layers": size.num_layers, "width": size.width, "num_heads": size.num_heads}


def stable_audio(size: Size, latent: Tensor, text: Tensor) -> Subject:
    """diffusers' port of the transformer of stable-audio-tools, told of seconds and time by one token."""
    from diffusers import StableAudioDiTModel
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    model = StableAudioDiTModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=size.num_layers,
        attention_head_dim=HEAD,
        num_attention_heads=size.num_heads,
        num_key_value_attention_heads=size.num_heads // 2,
    ).to(latent.dtype)
    seconds = torch.randn(1, 1, 1536, dtype=latent.dtype)
    rotary = get_1d_rotary_pos_embed(HEAD // 2, latent.shape[2] + 1, use_real=True, repeat_interleave_real=False)
    return model, lambda: model(latent, torch.tensor([0.5]), text, seconds, rotary, return_dict=False)[0]


def joint(size: Size, latent: Tensor, text: Tensor) -> Subject:
    """diffusers' Flux, a third of whose blocks have weights of their own for the text."""
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        in_channels=CHANNELS,
        num_layers=size.num_layers // 3,
        num_single_layers=size.num_layers - size.num_layers // 3,
        attention_head_dim=HEAD,
        num_attention_heads=size.num_heads,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        axes_dims_rope=(16, 24, 24),
    ).to(latent.dtype)
    tokens, pooled = latent.transpose(1, 2).contiguous(), text.mean(1)
    places, text_places = torch.zeros(latent.shape[2], 3), torch.zeros(TEXT, 3)
    places[:, 1] = torch.arange(latent.shape[2])
    t = torch.tensor([0.5], dtype=latent.dtype)
    return model, lambda: model(tokens, text, pooled, t, places, text_places, return_dict=False)[0]


def measure(size: Size, num_seconds: int, options: argparse.Namespace, clock: Callable[[], float]) -> dict[str, Any]:
    """All settings of a part of a size at one length: for each subject milliseconds, and ratios to the roof and to ours."""
    part, num_tokens, flops = replace(size, num_layers=size.timed_layers), num_seconds * LATENT_HZ, {}
    found: dict[str, Any] = {}
    for precision in NAMES:
        made = references(part, num_tokens, precision) | subjects(part, num_tokens, precision)
        flops = flops or {name: count_flops(call) for name, (_, call) in made.items()}
        for threads in options.threads:
            torch.set_num_threads(threads)
            for label, work in WORK.items():
                cases = {name: partial(work, *subject) for name, subject in made.items()}
                seconds = interleave(cases, options.rounds, clock, warm_up=threads == options.threads[0])
                key = f"{label} {NAMES[precision]}, {threads} threads"
                found[key] = compare(seconds, flops)
                tell(f"{num_seconds} s, {key}", found[key])
    return {"gflop_forward": {name: round(count / 1e9, 2) for name, count in flops.items()}, **found}


def measure_whole(size: Size, num_seconds: int, options: argparse.Namespace, clock: Callable[[], float]) -> dict[str, Any]:
    """A forward pass of all layers with the most threads: what one step of a solver takes, without guidance."""
    torch.set_num_threads(max(options.threads))
    found, flops = {}, {}
    for precision in NAMES:
        made = subjects(size, num_seconds * LATENT_HZ, precision)
        flops = flops or {name: count_flops(call) for name, (_, call) in made.items()}
        found["parameters"] = {name: count_parameters(module) for name, (module, _) in made.items()}
        cases = {name: partial(forward_once, *subject) for name, subject in made.items()}
        key = f"forward {NAMES[precision]}, {max(options.threads)} threads"
        found[key] = compare(interleave(cases, min(options.rounds, 2), clock), flops)
        tell(f"whole, {num_seconds} s, {key}", found[key])
    return found


def main(args: list[str] | None = None) -> None:
    """Measure, print ratios, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of torch")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30], help="lengths of the sound")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="sizes to measure")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu counts this process alone, for a busy machine")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes")
    parser.add_argument("--output", type=Path, default=RESULTS / "audio_dit.json", help="where the results go")
    options = parser.parse_args(args)
    keep_freed_memory()
    torch.manual_seed(0)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    record: dict[str, Any] = {
        "machine": {"processor": processor(), "torch": torch.__version__, "platform": platform.machine(), "load": os.getloadavg()[0]},
        "rounds": options.rounds,
        "clock": options.clock,
        "sizes": {},
    }
    for name in options.sizes:
        size = (TINY if options.dry_run else SIZES)[name]
        print(f"{name}: {size.timed_layers} of {size.num_layers} layers of {size.width}", flush=True)
        found = record["sizes"][name] = {"width": size.width, "num_layers": size.num_layers, "timed_layers": size.timed_layers}
        for num_seconds in options.seconds:
            found[f"{num_seconds} s"] = measure(size, num_seconds, options, clock)
        found["whole"] = measure_whole(size, options.seconds[0], options, clock)
    write_record(record, options.output)


if __name__ == "__main__":
    main()
