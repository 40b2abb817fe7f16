"""The DAC-VAE against transformers' DacModel and EncodecModel and diffusers' AutoencoderOobleck: seconds of sound per second.

    python benchmarks/dac_vae.py        # about 8 minutes on two quiet cores

One process, random weights; every subject encodes and decodes sounds of the same duration (AutoencoderOobleck, stable audio's, of half)
once per round in turn, on one thread and on two, medians over rounds; ratios travel between machines, times do not. All subjects run with
the memory settings that `moviegen fit` sets. The real-time factor is seconds of sound per second by the clock; above 1 is faster than the
sound. "paper, folded" is the same after `fold_weight_norm`; its samples are those of "paper" within 1e-5.

DacModel has equal width, strides and weights, and must give what ours gives; quantisers and weight norm are left out beside it.
AutoencoderOobleck has its published size and is stereo; per FLOP is what compares. "train" is forward and backward through encoder and
decoder, of the smaller subjects. diffusers is needed for Oobleck only. Results go to benchmarks/results/dac_vae.json.
"""

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import RESULTS, count_flops, count_parameters, interleave, processor, write_record
from torch import Tensor
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

from moviegen_audio.codec import CodecNetwork
from moviegen_audio.convolution import fold_weight_norm
from moviegen_audio.dac_import import load_dac
from moviegen_core.memory import keep_freed_memory

PAPER = {"strides": (2, 4, 5, 6, 8), "encoder_width": 64, "decoder_width": 1536}
TOY = {
    "strides": (4, 6, 10),
    "encoder_width": 32,
    "decoder_width": 256,
    "patch_size": 8,
    "weight_norm": False,
}  # as configs/model/dac_vae/toy
DAC = {"strides": (2, 4, 8, 8), "encoder_width": 64, "decoder_width": 1536, "weight_norm": False}  # the published 44.1 kHz model
SMALL = {**DAC, "encoder_width": 16, "decoder_width": 384}
LARGEST_TRAINED = 20_000_000


@dataclass(frozen=True)
class Subject:
    """One codec with a sound, and its encoding and decoding of it.

    Args:
        seconds: duration of the sound.
        parameters: of encoder and decoder.
        latent_rate: latent frames per second.
        encode: encodes the sound.
        decode: decodes its latents.
        modules: encoder and decoder; None for those that are not trained.
        audio: the sound.
    """

    seconds: float
    parameters: int
    latent_rate: float
    encode: Callable[[], Tensor]
    decode: Callable[[], Tensor]
    modules: tuple[torch.nn.Module, torch.nn.Module] | None
    audio: Tensor

    @torch.enable_grad()
    def train(self) -> Tensor:
        """Forward and backward through both halves."""
        encoder, decoder = self.modules
        decoded = decoder(encoder(self.audio))
        loss = (decoded.float() - self.audio[..., : decoded.shape[-1]]).abs().mean()
        loss.backward()
        return loss


def ours(seconds: float, rate: int, *, folded: bool = False, **sizes) -> tuple[Subject, CodecNetwork]:
    """A network of ours."""
    network = CodecNetwork(**{"latent_channels": 128, **sizes}).eval()
    hop = sizes.get("patch_size", 1)
    for stride in sizes["strides"]:
        hop *= stride
    audio = torch.rand(1, 1, round(seconds * rate) // hop * hop) * 2 - 1
    latent = network.encode(audio)[:, :128].contiguous()
    if folded:
        expected = network.decode(latent)
        fold_weight_norm(network)
        assert (network.decode(latent) - expected).abs().max() < 1e-5, "folded it computes something else"
    encode, decode = lambda: network.encode(audio), lambda: network.decode(latent)
    modules = None if folded else (network.encoder, network.decoder)
    return Subject(audio.shape[2] / rate, count_parameters(network), rate / hop, encode, decode, modules, audio), network


def dac(seconds: float, rate: int, network: CodecNetwork, sizes: dict) -> Subject:
    """transformers' DacModel of equal width and strides; ours gets its weights, and must give what it gives."""
    config = DacConfig(
        encoder_hidden_size=sizes["encoder_width"],
        decoder_hidden_size=sizes["decoder_width"],
        downsampling_ratios=list(sizes["strides"]),
        n_codebooks=1,
        sampling_rate=rate,
    )
    model = DacModel(config).eval()
    load_dac(network, model.state_dict())
    audio = torch.rand(1, 1, round(seconds * rate) // config.hop_length * config.hop_length) * 2 - 1
    features = model.encoder(audio)
    assert (network.encoder(audio).squeeze(2) - features).abs().max() < 1e-4, "ours computes something else"
    assert (network.decoder(features.unsqueeze(2)) - model.decoder(features)).abs().max() < 1e-4, "ours computes something else"
    parameters = count_parameters(model.encoder, model.decoder)
    encode, decode = lambda: model.encoder(audio), lambda: model.decoder(features)
    return Subject(seconds, parameters, rate / config.hop_length, encode, decode, (model.encoder, model.decoder), audio)


def encodec(seconds: float) -> Subject:
    """transformers' EncodecModel at its defaults: 24 kHz, 75 frames per second, with an LSTM."""
    model = EncodecModel(EncodecConfig()).eval()
    audio = torch.rand(1, 1, round(seconds * 75) * 320) * 2 - 1
    features = model.encoder(audio)
    parameters = count_parameters(model.encoder, model.decoder)
    encode, decode = lambda: model.encoder(audio), lambda: model.decoder(features)
    return Subject(audio.shape[2] / 24000, parameters, 75.0, encode, decode, (model.encoder, model.decoder), audio)


def oobleck(seconds: float, narrower: int) -> Subject:
    """diffusers' AutoencoderOobleck at its defaults, those of stable-audio-open: 44.1 kHz, stereo, about 21 frames per second."""
    from diffusers import AutoencoderOobleck

    width = 128 // narrower  # the encoder gives means and deviations, so twice the latent's channels
    model = AutoencoderOobleck(encoder_hidden_size=width, decoder_channels=width, decoder_input_channels=width // 2).eval()
    audio = torch.rand(1, 2, round(seconds * 44100) // model.hop_length * model.hop_length) * 2 - 1
    latent = model.encode(audio).latent_dist.mean
    encode, decode = lambda: model.encode(audio).latent_dist.mean, lambda: model.decode(latent).sample
    return Subject(audio.shape[2] / 44100, count_parameters(model), 44100 / model.hop_length, encode, decode, None, audio)


def subjects(seconds: float, *, narrower: int = 1) -> dict[str, Subject]:
    """All codecs by name; `narrower` divides widths, for a quick try."""
    torch.manual_seed(0)
    paper, published, small = (thin(sizes, narrower) for sizes in (PAPER, DAC, SMALL))
    made = {"toy": ours(seconds, 48000, **TOY)[0], "paper": ours(seconds, 48000, **paper)[0]}
    made["paper, folded"] = ours(seconds, 48000, folded=True, **paper)[0]
    for name, sizes in (("DAC's size", published), ("a quarter of its width", small)):
        subject, network = ours(seconds, 44100, **sizes)
        made[f"ours at {name}"] = subject
        made[f"DacModel at {name}"] = dac(seconds, 44100, network, sizes)
    made["EncodecModel"] = encodec(seconds)
    if importlib.util.find_spec("diffusers"):
        made["AutoencoderOobleck"] = oobleck(seconds / 2, narrower)
    return made


def thin(sizes: dict[str, Any], narrower: int) -> dict[str, Any]:
    """The sizes with narrower levels."""
    return {**sizes, "encoder_width": sizes["encoder_width"] // narrower, "decoder_width": sizes["decoder_width"] // narrower}


def measure(cases: dict[str, Subject], direction: str, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of sound per second of those that are measured in a direction."""
    trainable = [name for name, case in cases.items() if case.modules and case.parameters < LARGEST_TRAINED]
    chosen = {name: cases[name] for name in (trainable if direction == "train" else cases)}
    seconds = interleave({name: getattr(case, direction) for name, case in chosen.items()}, rounds, clock)
    return {name: round(case.seconds / statistics.median(seconds[name]), 3) for name, case in chosen.items()}


def ratios(report: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Factors of ours over the peers', and for the peer of another size per floating-point operation."""
    pairs = [(name.replace("DacModel", "ours"), name) for name in report if name.startswith("DacModel")]
    pairs += [("paper, folded", "paper"), ("toy", "EncodecModel"), ("paper", "EncodecModel")]
    found = {f"{one} / {other}": quotient(report[one]["real_time_factor"], report[other]["real_time_factor"]) for one, other in pairs}
    if "AutoencoderOobleck" in report:
        pair = report["paper"], report["AutoencoderOobleck"]
        found["paper / AutoencoderOobleck"] = quotient(*(each["real_time_factor"] for each in pair))
        found["paper / AutoencoderOobleck, per FLOP"] = quotient(*(flop_rate(each) for each in pair))
    return found


def flop_rate(entry: dict[str, Any]) -> dict[str, float]:
    """Floating-point operations of encoding and decoding per second, in GFLOP."""
    work = entry["gflop_per_second"]
    return {key: factor * work[key.split()[0]] for key, factor in entry["real_time_factor"].items() if key.split()[0] in work}


def quotient(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """One over the other where both were measured."""
    return {key: round(value / other[key], 3) for key, value in one.items() if key in other}


@torch.no_grad()
def main(args: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of torch")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of the sounds")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time over threads, for a busy machine")
    parser.add_argument("--dry-run", action="store_true", help="narrow codecs; the figures mean nothing")
    parser.add_argument("--output", type=Path, default=RESULTS / "dac_vae.json", help="where results go")
    arguments = parser.parse_args(args)
    keep_freed_memory()
    cases = subjects(arguments.seconds, narrower=8 if arguments.dry_run else 1)
    report: dict[str, Any] = {
        name: {
            "parameters": case.parameters,
            "latent_hz": round(case.latent_rate, 2),
            "gflop_per_second": {way: round(count_flops(getattr(case, way)) / 1e9 / case.seconds, 2) for way in ("encode", "decode")},
            "real_time_factor": {},
        }
        for name, case in cases.items()
    }
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        clock = time.perf_counter if arguments.clock == "wall" else lambda threads=threads: time.process_time() / threads
        for precision in ("fp32", "bf16"):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                for direction in ("encode", "decode", "train"):
                    found = measure(cases, direction, arguments.rounds, clock)
                    for name, factor in found.items():
                        report[name]["real_time_factor"][f"{direction} {precision}, {threads} threads"] = factor
                    print(f"{direction} {precision}, {threads} threads:", json.dumps(found), flush=True)
    record = {
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "torch": torch.__version__, "load": os.getloadavg()[0]},
        "setting": {"seconds": arguments.seconds, "rounds": arguments.rounds, "clock": arguments.clock},
        "subjects": report,
        "ratios": ratios(report),
    }
    print(json.dumps(record["ratios"], indent=2))
    write_record(record, arguments.output)


if __name__ == "__main__":
    main()
