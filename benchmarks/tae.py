"""The temporal autoencoder against its own plain form and against diffusers' video autoencoders of about its size.

    python benchmarks/tae.py --threads 1 --rounds 5

One process, random weights; every subject encodes and decodes the same clip once per round in turn, medians over rounds; ratios travel
between machines, times do not. Times are the process's own processor time divided by the threads, so that what else the machine does is
not counted. "Plain" is the same model with channels-last Conv3d for every convolution, F.interpolate, and torch's own normalisation.
diffusers is needed for the peers only; without it they are left out. Results go to benchmarks/results/tae.json.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import RESULTS, interleave, processor, write_record
from torch import Tensor, nn
from torch.nn import functional as F

from moviegen_tae.model import Attention, AutoencoderNetwork, ResidualBlock, VideoConv, VideoUpsample

OURS = {"base_channels": 48, "channel_multipliers": (1, 2, 4, 4), "num_res_blocks": 2, "latent_channels": 16, "norm_groups": 8}


class Plain(nn.Module):
    """Our network computed the straightforward way, with the same weights."""

    def __init__(self, network: AutoencoderNetwork) -> None:
        super().__init__()
        self.network = network

    def encode(self, video: Tensor) -> Tensor:
        """Parameters of the posterior."""
        encoder = self.network.encoder
        x = self._conv(encoder.conv_in, video.contiguous(memory_format=torch.channels_last_3d))
        for layer in [*encoder.layers, encoder.middle]:
            x = self._layer(layer, x)
        x = self._conv(encoder.conv_out, self._norm(encoder.norm_out, x))
        return F.conv3d(x, self.network.quant_conv.weight.unsqueeze(2), self.network.quant_conv.bias)

    def decode(self, latent: Tensor) -> Tensor:
        """Frames."""
        decoder, post = self.network.decoder, self.network.post_quant_conv
        x = F.conv3d(latent.contiguous(memory_format=torch.channels_last_3d), post.weight.unsqueeze(2), post.bias)
        x = self._conv(decoder.conv_in, x)
        for layer in [decoder.middle, *decoder.layers]:
            x = self._layer(layer, x)
        return self._conv(decoder.conv_out, self._norm(decoder.norm_out, x))

    def _layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, ResidualBlock):
            h = self._conv(layer.conv1, self._norm(layer.norm1, x))
            h = self._conv(layer.conv2, self._norm(layer.norm2, h))
            if isinstance(layer.shortcut, nn.Conv2d):
                x = F.conv3d(x, layer.shortcut.weight.unsqueeze(2), layer.shortcut.bias)
            return x + h
        if isinstance(layer, VideoConv):
            return self._conv(layer, x)
        if isinstance(layer, VideoUpsample):
            x = F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
            x = F.conv3d(x, layer.spatial.weight.unsqueeze(2), layer.spatial.bias, padding=(0, 1, 1))
            x = F.interpolate(x, scale_factor=(2.0 if layer.doubles_time else 1.0, 1.0, 1.0), mode="nearest")
            return self._temporal(layer.temporal, x, 1)
        x = self._layer(layer.block1, x)
        x = self._attend(layer.attention, x)
        x = self._attend(layer.temporal_attention, x)
        return self._layer(layer.block2, x)

    def _conv(self, layer: VideoConv, x: Tensor) -> Tensor:
        stride = layer.spatial.stride[0]
        x = F.pad(x, (0, 1, 0, 1)) if stride == 2 else x
        padding = (0, 0, 0) if stride == 2 else (0, 1, 1)
        x = F.conv3d(x, layer.spatial.weight.unsqueeze(2), layer.spatial.bias, stride=(1, stride, stride), padding=padding)
        return self._temporal(layer.temporal, x, layer.temporal.stride)

    @staticmethod
    def _temporal(layer: nn.Module, x: Tensor, stride: int) -> Tensor:
        x = F.pad(x, (0, 0, 0, 0, 1, 1), mode="replicate").contiguous(memory_format=torch.channels_last_3d)
        return F.conv3d(x, layer.weight[..., None, None], layer.bias, stride=(stride, 1, 1))

    @staticmethod
    def _norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
        b, _, t, _, _ = x.shape
        y = F.silu(F.group_norm(x.transpose(1, 2).flatten(0, 1), norm.num_groups, norm.weight, norm.bias, norm.eps))
        return y.unflatten(0, (b, t)).transpose(1, 2)

    @staticmethod
    def _attend(layer: Attention, x: Tensor) -> Tensor:
        b, _, t, _, _ = x.shape
        return layer(x.transpose(1, 2).flatten(0, 1), b).unflatten(0, (b, t)).transpose(1, 2)


def peers() -> dict[str, tuple[nn.Module, str]]:
    """diffusers' video autoencoders at about our number of parameters, with their compression."""
    try:
        from diffusers import AutoencoderKLCogVideoX, AutoencoderKLLTXVideo, AutoencoderKLWan
    except ImportError:
        return {}
    down, up = ("CogVideoXDownBlock3D",) * 4, ("CogVideoXUpBlock3D",) * 4
    return {
        "Wan": (AutoencoderKLWan(base_dim=32), "4x8x8"),
        "CogVideoX": (
            AutoencoderKLCogVideoX(
                block_out_channels=(32, 64, 64, 128), down_block_types=down, up_block_types=up, layers_per_block=3, norm_num_groups=8
            ),
            "4x8x8",
        ),
        "LTX": (
            AutoencoderKLLTXVideo(
                block_out_channels=(32, 64, 128, 128),
                decoder_block_out_channels=(32, 64, 128, 128),
                layers_per_block=(4, 3, 3, 3, 4),
                decoder_layers_per_block=(4, 3, 3, 3, 4),
            ),
            "8x32x32",
        ),
    }


def subjects(frames: int, size: int) -> dict[str, tuple[str, int, float, Callable[[], Tensor], Callable[[], Tensor]]]:
    """By name: compression, parameters, million voxels of its clip, and encoding and decoding of that."""
    torch.manual_seed(0)
    made = {}
    for name, factor in (("ours", 8), ("ours at 4x", 4)):
        network = AutoencoderNetwork(**OURS, temporal_factor=factor, dimensionality="2.5d").eval()
        made[name] = (network, f"{factor}x8x8", lambda x, network=network: network.encode(x)[0], network.decode)
    plain = Plain(made["ours"][0])
    made["ours, plain"] = (plain, "8x8x8", lambda x: plain.encode(x)[:, :16], plain.decode)
    for name, (model, compression) in peers().items():
        model.eval()
        encode = lambda x, model=model: model.encode(x).latent_dist.mean  # noqa: E731
        made[name] = (model, compression, encode, lambda z, model=model: model.decode(z).sample)
    # Causal peers take one frame more than a multiple of their factor.
    clips = {name: torch.rand(1, 3, frames + (not name.startswith("ours")), size, size) * 2 - 1 for name in made}
    clips["ours, plain"] = clips["ours"]
    latents = {name: encode(clips[name]) for name, (_, _, encode, _) in made.items()}
    reference = made["ours"][0].decode(latents["ours"])
    assert (plain.decode(latents["ours"]) - reference).abs().max() < 1e-3, "the plain form computes something else"
    assert (latents["ours, plain"] - latents["ours"]).abs().max() < 1e-3, "the plain form computes something else"
    return {
        name: (
            compression,
            sum(p.numel() for p in model.parameters()),
            clips[name][0, 0].numel() / 1e6,
            lambda encode=encode, clip=clips[name]: encode(clip),
            lambda decode=decode, latent=latents[name]: decode(latent),
        )
        for name, (model, compression, encode, decode) in made.items()
    }


def measure(cases: dict[str, Callable[[], Tensor]], rounds: int, threads: int) -> dict[str, float]:
    """Median seconds of each case, run in turn."""
    seconds = interleave(cases, rounds, lambda: time.process_time() / threads)
    return {name: statistics.median(times) for name, times in seconds.items()}


def training_step(network: AutoencoderNetwork | Plain, video: Tensor) -> None:
    """Forward and backward through both halves, in bf16."""
    with torch.autocast("cpu", torch.bfloat16):
        if isinstance(network, Plain):
            decoded = network.decode(network.encode(video)[:, :16])
        else:
            decoded = network.decode(network.encode(video)[0])
    (decoded.float() - video).abs().mean().backward()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--frames", type=int, default=16, help="frames of the clip; peers, which are causal, take one more")
    parser.add_argument("--size", type=int, default=128, help="rows and columns in pixels")
    parser.add_argument("--output", type=Path, default=RESULTS / "tae.json", help="where results go")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report: dict = {
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "threads": arguments.threads, "torch": torch.__version__},
        "clip": {"frames": arguments.frames, "size": arguments.size, "rounds": arguments.rounds, "load_average": os.getloadavg()[0]},
        "unit": "million raw voxels per second of processor time and thread",
        "subjects": {},
        "ratios": {},
    }
    with torch.no_grad():
        cases = subjects(arguments.frames, arguments.size)
        for precision in ("fp32", "bf16"):
            for index, direction in ((3, "encode"), (4, "decode")):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    seconds = measure({name: case[index] for name, case in cases.items()}, arguments.rounds, arguments.threads)
                for name, (compression, parameters, voxels, *_) in cases.items():
                    entry = report["subjects"].setdefault(name, {"compression": compression, "parameters": parameters})
                    entry[f"{direction}_{precision}"] = round(voxels / seconds[name], 4)
    for name, entry in report["subjects"].items():
        if name != "ours":
            base = report["subjects"]["ours at 4x" if entry["compression"] == "4x8x8" and name != "ours at 4x" else "ours"]
            report["ratios"][f"ours / {name}"] = {
                key: round(base[key] / entry[key], 2) for key in ("encode_fp32", "decode_fp32", "encode_bf16", "decode_bf16")
            }
    common = {"num_res_blocks": 1, "latent_channels": 16, "temporal_factor": 8, "dimensionality": "2.5d", "norm_groups": 4}
    toy = AutoencoderNetwork(patch_size=2, base_channels=32, channel_multipliers=(1, 2, 4), **common)  # as configs/model/tae/toy.yaml
    whole = AutoencoderNetwork(base_channels=16, channel_multipliers=(1, 2, 4, 8), **common)
    clips = torch.rand(4, 3, 16, 64, 64) * 2 - 1
    toys = {"toy": lambda: training_step(toy, clips), "toy without patches": lambda: training_step(whole, clips)}
    seconds = measure(toys, arguments.rounds, arguments.threads)
    report["toy_training_step_bf16_s"] = {name: round(value, 3) for name, value in seconds.items()}
    report["ratios"]["toy training step, without patches / with"] = round(seconds["toy without patches"] / seconds["toy"], 2)
    print(json.dumps(report, indent=2))
    write_record(report, arguments.output)


if __name__ == "__main__":
    main()
