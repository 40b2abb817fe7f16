"""The DAC-VAE against transformers' DacModel of equal width and strides, and against EncodecModel: seconds of sound per second.

    python benchmarks/dac_vae.py --rounds 5

One process, random weights; every subject encodes and decodes sounds of the same duration once per round in turn, on one thread and on
two, medians over rounds; ratios travel between machines, times do not. Times are the process's own processor time divided by the threads,
so that what else the machine does is not counted; with two threads that holds on a quiet machine only, since threads that wait spin.
Quantisers and weight norm are left out beside DacModel. "chunked" encodes and decodes four seconds at a time, with the result of the
whole. "train" is forward and backward through encoder and decoder, of the smaller subjects. Results go to benchmarks/results/dac_vae.json.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

from moviegen_audio.codec import CodecNetwork
from moviegen_audio.dac_import import load_dac
from moviegen_audio.streaming import ChunkedMap

HERE = Path(__file__).parent
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
        modules: encoder and decoder.
        audio: the sound.
    """

    seconds: float
    parameters: int
    latent_rate: float
    encode: Callable[[], Tensor]
    decode: Callable[[], Tensor]
    modules: tuple[torch.nn.Module, torch.nn.Module]
    audio: Tensor

    @torch.enable_grad()
    def train(self) -> Tensor:
        """Forward and backward through both halves."""
        encoder, decoder = self.modules
        decoded = decoder(encoder(self.audio))
        loss = (decoded.float() - self.audio[..., : decoded.shape[-1]]).abs().mean()
        loss.backward()
        return loss


def ours(seconds: float, rate: int, *, chunk_frames: int | None = None, **sizes) -> tuple[Subject, CodecNetwork]:
    """A network of ours."""
    network = CodecNetwork(**{"latent_channels": 128, **sizes}).eval()
    hop = sizes.get("patch_size", 1)
    for stride in sizes["strides"]:
        hop *= stride
    audio = torch.rand(1, 1, round(seconds * rate) // hop * hop) * 2 - 1
    latent = network.encode(audio)[:, :128].contiguous()
    encode, decode = lambda: network.encode(audio), lambda: network.decode(latent)
    if chunk_frames is not None:
        encoder = ChunkedMap(network.encoder_layers(), chunk_frames=chunk_frames, input_per_frame=hop, output_per_frame=1)
        decoder = ChunkedMap(network.decoder_layers(), chunk_frames=chunk_frames, input_per_frame=1, output_per_frame=hop)
        encode, decode = lambda: encoder(network.encode, audio), lambda: decoder(network.decode, latent)
    return Subject(seconds, count(network), rate / hop, encode, decode, (network.encoder, network.decoder), audio), network


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
    parameters = count(model.encoder) + count(model.decoder)
    encode, decode = lambda: model.encoder(audio), lambda: model.decoder(features)
    return Subject(seconds, parameters, rate / config.hop_length, encode, decode, (model.encoder, model.decoder), audio)


def encodec(seconds: float) -> Subject:
    """transformers' EncodecModel at its defaults: 24 kHz, 75 frames per second, with an LSTM."""
    model = EncodecModel(EncodecConfig()).eval()
    audio = torch.rand(1, 1, round(seconds * 24000)) * 2 - 1
    features = model.encoder(audio)
    parameters = count(model.encoder) + count(model.decoder)
    encode, decode = lambda: model.encoder(audio), lambda: model.decoder(features)
    return Subject(seconds, parameters, 75.0, encode, decode, (model.encoder, model.decoder), audio)


def subjects(seconds: float) -> dict[str, Subject]:
    """All codecs by name."""
    torch.manual_seed(0)
    made = {"toy, 48 kHz": ours(seconds, 48000, **TOY)[0], "paper, 48 kHz": ours(seconds, 48000, **PAPER)[0]}
    made["paper chunked, 48 kHz"] = ours(seconds, 48000, **PAPER, chunk_frames=100)[0]
    for name, sizes in (("DAC's size, 44.1 kHz", DAC), ("a quarter of its width, 44.1 kHz", SMALL)):
        subject, network = ours(seconds, 44100, **sizes)
        made[f"ours at {name}"] = subject
        made[f"DacModel at {name}"] = dac(seconds, 44100, network, sizes)
    made["EncodecModel, 24 kHz"] = encodec(seconds)
    return made


def measure(cases: dict[str, Callable[[], Tensor]], rounds: int, threads: int) -> dict[str, float]:
    """Median seconds of each case, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(rounds + 1):
        for name, run in cases.items():
            start = time.process_time()
            run()
            if round_number:
                times[name].append((time.process_time() - start) / threads)
    return {name: statistics.median(values) for name, values in times.items()}


def count(module: torch.nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def processor() -> str:
    """Its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


@torch.no_grad()
def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of torch")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of the sounds")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "dac_vae.json", help="where results go")
    arguments = parser.parse_args()
    cases = subjects(arguments.seconds)
    report: dict = {
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "torch": torch.__version__, "load_average": os.getloadavg()[0]},
        "unit": "seconds of sound per second of processor time and thread",
        "sound": {"seconds": arguments.seconds, "rounds": arguments.rounds},
        "subjects": {
            name: {"parameters": case.parameters, "latent_frames_per_second": round(case.latent_rate, 2)} for name, case in cases.items()
        },
        "ratios": {},
    }
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for precision in ("fp32", "bf16"):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                for direction in ("encode", "decode", "train"):
                    chosen = [name for name, case in cases.items() if direction != "train" or case.parameters < LARGEST_TRAINED]
                    seconds = measure({name: getattr(cases[name], direction) for name in chosen}, arguments.rounds, threads)
                    for name, value in seconds.items():
                        report["subjects"][name][f"{direction}_{precision}_{threads}_threads"] = round(arguments.seconds / value, 3)
    for name, entry in report["subjects"].items():
        if name.startswith("DacModel"):
            base = report["subjects"][name.replace("DacModel", "ours")]
            report["ratios"][f"ours / {name}"] = {key: round(base[key] / entry[key], 2) for key in entry if "threads" in key}
        if name.startswith(("toy", "paper,")):
            other = report["subjects"]["EncodecModel, 24 kHz"]
            report["ratios"][f"{name} / EncodecModel, 24 kHz"] = {
                key: round(entry[key] / other[key], 2) for key in entry if "threads" in key
            }
    print(json.dumps(report, indent=2))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.output.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(temporary, arguments.output)


if __name__ == "__main__":
    main()
