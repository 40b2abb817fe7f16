"""Sounds of four times the training's length by a trained model: how rough each method's seams are, and what memory it takes.

    moviegen quickstart                        # leaves quickstart/audio/chosen.ckpt
    python benchmarks/audio_extension.py       # minutes

Held-out silent toy scenes (nothing knocks, so all that is heard is the ground's steady ambience) are given sounds of four training lengths.
`boundary_flux` is the greatest spectral flux near the places where segments meet, over the median elsewhere; "anywhere" is the same at
places where nothing meets, in the sounds of MultiDiffusion. `frames_at_once` is the most latent frames that the network saw in one pass.
Results go to benchmarks/results/audio_extension.json.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch

from moviegen_audio import MultiDiffusion, SegmentAutoregressive, SegmentBeamSearch
from moviegen_cast.sound import load_model
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.flow.solvers import MidpointSolver
from moviegen_core.memory import keep_freed_memory
from moviegen_core.sampler import GuidedSampler
from moviegen_data.toyworld.sound_captions import sound_caption
from moviegen_data.toyworld.world import World
from moviegen_eval import boundary_flux

TRAINED_S, TIMES = 2.0, 4
WINDOW, HOP = 50, 38  # 2 s, and three quarters of it as in the paper
HERE = Path(__file__).parent


def samplers(**options: Any) -> dict[str, GuidedSampler]:
    """The methods of 6.1.5 with windows of the training's length."""
    segments = {"window": WINDOW, "hop": HOP, **options}
    return {
        "stitch": SegmentAutoregressive(context=False, trajectory=False, **segments),
        "autoregressive, context": SegmentAutoregressive(context=True, trajectory=False, **segments),
        "autoregressive, trajectory": SegmentAutoregressive(context=False, trajectory=True, **segments),
        "autoregressive, both": SegmentAutoregressive(context=True, trajectory=True, **segments),
        "autoregressive, both, beam": SegmentBeamSearch(context=True, trajectory=True, num_candidates=2, beam_width=2, **segments),
        "MultiDiffusion, uniform": MultiDiffusion(shape="uniform", **segments),
        "MultiDiffusion, triangular": MultiDiffusion(shape="triangular", **segments),
    }


def scenes(count: int) -> list[Any]:
    """Held-out scenes in which nothing knocks and the ground can be heard."""
    world = World(split="held_out", vary_timing=True, grounds=("grey", "white", "stripes", "checker", "gradient"))
    found = (world.clip("predict", index) for index in range(10_000))
    quiet = (clip for clip in found if not clip.events)
    return [next(quiet).spec for _ in range(count)]


def seams(sampler: GuidedSampler, num_frames: int, rate: float) -> list[float]:
    """Where segments begin or end within the whole, in seconds."""
    windows = sampler.segments(num_frames)
    return sorted({edge / rate for window in windows for edge in (window.start, window.stop) if 0 < edge < num_frames})


def main() -> None:
    """Generate, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="quickstart/audio/chosen.ckpt", help="a VideoToAudio trained on the toy world")
    parser.add_argument("--num_sounds", type=int, default=16, help="sounds by each method")
    parser.add_argument("--steps", type=int, default=32, help="solver steps")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "audio_extension.json", help="where the results go")
    arguments = parser.parse_args()
    keep_freed_memory()
    options = {"steps": arguments.steps, "guidance_scale": 2.0, "schedule": LinearSchedule(), "solver": MidpointSolver()}
    model = load_model(arguments.checkpoint, seed=0, steps=arguments.steps, guidance_scale=2.0)
    seen: list[int] = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    rate, duration_s = model.autoencoder.latent_rate, TRAINED_S * TIMES
    captions = [sound_caption(spec) for spec in scenes(arguments.num_sounds)]
    setting = {"num_sounds": arguments.num_sounds, "seconds": duration_s, "window": WINDOW, "hop": HOP, "steps": arguments.steps}
    record: dict[str, Any] = {"setting": setting}
    for name, sampler in samplers(**options).items():
        model.sampler, seen[:] = sampler, []
        sounds = model.generate(captions, keys=[f"long-{index}" for index in range(len(captions))], duration_s=duration_s)
        places = seams(sampler, round(duration_s * rate), rate)
        flux = [boundary_flux(sound, model.audio_hz, places) for sound in sounds]
        loud = float(sounds.square().mean().sqrt())
        record[name] = {"flux": round(statistics.median(flux), 3), "rms": round(loud, 4), "frames_at_once": max(seen)}
        if name == "MultiDiffusion, triangular":
            middles = [0.5 * (one + other) for one, other in zip(places[:-1], places[1:], strict=True)]
            anywhere = statistics.median(boundary_flux(sound, model.audio_hz, middles) for sound in sounds)
            record["anywhere"] = {"flux": round(anywhere, 3)}
        print(f"{name:28s} {record[name]}", flush=True)
    print(f"{'anywhere':28s} {record['anywhere']}")
    scratch = arguments.output.with_suffix(".tmp")
    scratch.write_text(json.dumps(record, indent=2, default=str) + "\n")
    os.replace(scratch, arguments.output)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
