"""Sounds beyond the training's length by a trained model: how rough each method's seams are, what comes in time, what memory it takes.

    moviegen quickstart                        # leaves quickstart/audio/chosen.ckpt
    python benchmarks/audio_extension.py       # minutes

Windows are as long as the training's sounds, and their ends three quarters of that apart, as in the paper.

- `flux`: held-out toy scenes in which nothing knocks, so that all that is heard is the ground's steady ambience, are given sounds of four
  training lengths by their captions. Told is the greatest spectral flux near the places where segments meet, over the median elsewhere;
  `flux_between` is the same half-way between these places ("anywhere": that of MultiDiffusion), `rms` how loud the sounds are.
- `onset_f1`: four held-out silent clips one after the other are a film; the oracle's onsets within 40 ms of the truth. Beside it are what
  the same sounds score for another film, and the model's score for the clips one by one ("single clips").
- `peak_mib`: most memory of tensors in sampling one sound of four and of eight training lengths, the decoder left out; `frames_at_once`:
  the most latent frames that the network saw in one pass.

Results go to benchmarks/results/audio_extension.json.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from measuring import RESULTS, peak_bytes, processor, write_record
from torch import Tensor

from moviegen_audio import MultiDiffusion, SegmentAutoregressive, SegmentBeamSearch
from moviegen_cast.sound import load_model
from moviegen_core.flow.schedules import LinearSchedule
from moviegen_core.flow.solvers import MidpointSolver
from moviegen_core.memory import keep_freed_memory
from moviegen_core.sampler import FlowSampler, GuidedSampler
from moviegen_data.toyworld.sound_captions import sound_caption
from moviegen_data.toyworld.stream import to_pixels
from moviegen_data.toyworld.world import World
from moviegen_eval import boundary_flux
from moviegen_eval.hearing import SoundOracle
from moviegen_eval.hearing_score import distinct_onsets
from moviegen_eval.onsets import OnsetScore, onset_f1

TIMES = 4
LOUD_GROUNDS = ("grey", "white", "stripes", "checker", "gradient")


@dataclass(frozen=True)
class Film:
    """A film whose truth is known.

    Args:
        video: pixels in [-1, 1] (3, t, h, w).
        fps: frames per second.
        onsets_s: when something is heard.
    """

    video: Tensor
    fps: float
    onsets_s: list[float]


def samplers(window: int, **options: Any) -> dict[str, GuidedSampler]:
    """The methods of 6.1.5 with windows of so many latent frames."""
    segments = {"window": window, "hop": 3 * window // 4, **options}
    return {
        "stitch": SegmentAutoregressive(context=False, trajectory=False, **segments),
        "autoregressive, context": SegmentAutoregressive(context=True, trajectory=False, **segments),
        "autoregressive, trajectory": SegmentAutoregressive(context=False, trajectory=True, **segments),
        "autoregressive, both": SegmentAutoregressive(context=True, trajectory=True, **segments),
        "autoregressive, both, beam": SegmentBeamSearch(context=True, trajectory=True, num_candidates=2, beam_width=2, **segments),
        "MultiDiffusion, uniform": MultiDiffusion(shape="uniform", **segments),
        "MultiDiffusion, triangular": MultiDiffusion(shape="triangular", **segments),
    }


def quiet_captions(world: World, count: int) -> list[str]:
    """Captions of scenes in which nothing knocks."""
    clips = (world.clip("predict", index) for index in range(10_000))
    quiet = (clip for clip in clips if not clip.events)
    return [sound_caption(next(quiet).spec) for _ in range(count)]


def films(world: World, count: int, clips_each: int) -> list[Film]:
    """Films of clips, one after the other."""
    made, duration_s = [], world.num_frames / world.fps
    for number in range(count):
        clips = [world.clip("predict", number * clips_each + index) for index in range(clips_each)]
        onsets = [place * duration_s + onset for place, clip in enumerate(clips) for onset in distinct_onsets(clip.events)]
        made.append(Film(torch.cat(list(to_pixels(clips)), dim=1), world.fps, onsets))
    return made


def seams(sampler: GuidedSampler, num_frames: int, rate: float) -> list[float]:
    """Where segments begin or end within the whole, in seconds."""
    windows = sampler.segments(num_frames)
    return sorted({edge / rate for window in windows for edge in (window.start, window.stop) if 0 < edge < num_frames})


def roughness(model: Any, captions: Sequence[str], duration_s: float) -> dict[str, float]:
    """Spectral flux of the model's sounds at the seams and half-way between them, and how loud they are."""
    sounds = model.generate(captions, keys=[f"long-{index}" for index in range(len(captions))], duration_s=duration_s)
    rate = model.autoencoder.latent_rate
    places = seams(model.sampler, round(duration_s * rate), rate)
    middles = [0.5 * (one + other) for one, other in zip(places[:-1], places[1:], strict=True)]
    at, between = (statistics.median(boundary_flux(sound, model.audio_hz, where) for sound in sounds) for where in (places, middles))
    return {"flux": round(at, 3), "flux_between": round(between, 3), "rms": round(float(sounds.square().mean().sqrt()), 4)}


def timing(model: Any, shown: Sequence[Film]) -> dict[str, float]:
    """Onset F1 of the model's sounds for films, and of the same sounds for the film after."""
    video, fps = torch.stack([film.video for film in shown]), torch.tensor([film.fps for film in shown])
    sounds = model.generate([""] * len(shown), keys=[f"film-{index}" for index in range(len(shown))], video=video, fps=fps)
    heard = [[knock.time_s for knock in SoundOracle().read(sound, model.audio_hz).knocks] for sound in sounds]
    truths = [film.onsets_s for film in shown]
    own, other = (sum(map(onset_f1, truth, heard), OnsetScore()).f1 for truth in (truths, [*truths[1:], truths[0]]))
    return {"onset_f1": round(own, 4), "onset_f1_other_film": round(other, 4)}


def peak_mib(model: Any, caption: str, duration_s: float) -> float:
    """Peak memory of sampling one sound without decoding it."""
    with mock.patch.object(model, "decode", lambda latents, num_samples: latents):
        return round(peak_bytes(lambda: model.generate([caption], duration_s=duration_s)) / 2**20, 2)


def main(args: list[str] | None = None) -> None:
    """Generate, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="quickstart/audio/chosen.ckpt", help="a VideoToAudio trained on the toy world")
    parser.add_argument("--num_sounds", type=int, default=8, help="sounds, and films, by each method")
    parser.add_argument("--steps", type=int, default=16, help="solver steps")
    parser.add_argument("--guidance_scale", type=float, default=2.0, help="guidance scale")
    parser.add_argument(
        "--world", type=json.loads, default={"height": 32, "width": 32, "fps": 16.0}, help="settings of the World trained on, as JSON"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "audio_extension.json", help="where the results go")
    arguments = parser.parse_args(args)
    keep_freed_memory()
    model = load_model(arguments.checkpoint, seed=0, steps=arguments.steps, guidance_scale=arguments.guidance_scale)
    seen: list[int] = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))

    window, duration_s = round(model.duration_s * model.autoencoder.latent_rate), model.duration_s * TIMES
    settings = {"split": "held_out", "vary_timing": True, **arguments.world}
    settings["num_frames"] = round(model.duration_s * settings.get("fps", World.fps))
    captions = quiet_captions(World(**{**settings, "grounds": LOUD_GROUNDS}), arguments.num_sounds)
    world = World(**settings)
    long, short = films(world, arguments.num_sounds, TIMES), films(world, TIMES * arguments.num_sounds, 1)

    shared = {"steps": arguments.steps, "guidance_scale": arguments.guidance_scale}
    setting = {"num_sounds": arguments.num_sounds, "seconds": duration_s, "window": window, **shared, "world": arguments.world}
    record: dict[str, Any] = {"machine": {"processor": processor(), "load": os.getloadavg()[0]}, "setting": setting, "methods": {}}
    shared |= {"schedule": LinearSchedule(), "solver": MidpointSolver()}
    model.sampler = FlowSampler(**shared)
    record["single clips"] = timing(model, short)
    print(f"{'single clips':28s} {record['single clips']}", flush=True)
    for name, sampler in samplers(window, **shared).items():
        model.sampler, seen[:] = sampler, []
        found: dict[str, Any] = {**roughness(model, captions, duration_s), **timing(model, long), "frames_at_once": max(seen)}
        sampler.steps = 2  # memory is that of any step
        found["peak_mib"] = {f"{times} x": peak_mib(model, captions[0], times * model.duration_s) for times in (TIMES, 2 * TIMES)}
        record["methods"][name] = found
        print(f"{name:28s} {found}", flush=True)
    record["anywhere"] = record["methods"]["MultiDiffusion, triangular"]["flux_between"]
    write_record(record, arguments.output)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
