"""Clips per second of the whole way from shards to batches, beside other loaders; and megabytes per second of cached latents.

    python benchmarks/loader.py --rounds 5 --workers 0 1 2

Clips: synthetic ones of 2 s at 24 fps and 256 px (H.264), in WebDataset tars. Every subject gives batches of four clips (4, 3, 48, 256,
256) as floats in [-1, 1]. The peers read the tars with webdataset and decode with PyAV (`to_ndarray(format="rgb24")`, the usual way),
decord or torchcodec, each with one thread of its own in every process; what they give in bytes is scaled by torch where it was decoded.
With `--pixels bytes` all leave that to the device, and hand over a quarter of the memory (`scale_on_device` with our loader).

Latents: of 1 MiB in fp16, in batches of eight, read by our loader (its check for NaN included) and by webdataset's own pipeline with
safetensors; beside them the raw read of the same files, and a copy out of mapped memory, which is the limit.

All subjects are timed once per round, one after the other; figures are medians over rounds, ratios medians of the ratios of each round.
`--clock cpu` counts this process's own processor time, for a machine that others use too; it can say nothing of workers.
`decord` and `torchcodec` are left out where they are not installed. Results go to benchmarks/results/loader.json.
"""

import argparse
import importlib.metadata
import io
import mmap
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import webdataset
from measuring import RESULTS, interleave, processor, ratio, write_record
from safetensors.torch import load
from torch import Tensor

from moviegen_data.datamodule import ShardData
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_bytes

NUM_FRAMES, FPS, SIDE_PX, CLIPS_IN_BATCH, NUM_FILMS = 48, 24, 256, 4, 8
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LATENT, LATENTS_IN_BATCH = (16, 32, 32, 32), 8
GOALS = {"webdataset + PyAV": 2.0, "webdataset + decord": 1.0, "webdataset + torchcodec": 1.0, "webdataset": 1.3}


def make_clips(folder: Path, number: int) -> str:
    """Shards of drifting textures with some grain, about as hard to decode as filmed clips of their size."""
    random, films = np.random.default_rng(0), []
    with ShardWriter(folder, max_samples=16) as writer:
        for _ in range(NUM_FILMS):
            texture = random.integers(0, 256, (20, 20, 3), dtype=np.uint8).repeat(32, 0).repeat(32, 1)
            shift, grain = random.integers(1, 6, 2), random.integers(-6, 7, (SIDE_PX, SIDE_PX, 3))
            frames = [np.roll(texture, shift * time, (0, 1))[:SIDE_PX, :SIDE_PX] for time in range(NUM_FRAMES)]
            films.append(encode(np.clip(frame + np.roll(grain, time, 0), 0, 255).astype(np.uint8) for time, frame in enumerate(frames)))
        for index in range(number):
            record = {"caption": "a texture", "fps": FPS, "frames": NUM_FRAMES, "height": SIDE_PX, "width": SIDE_PX, "duration_s": 2.0}
            writer.write(f"clip{index:04d}", {"json": record, "mp4": films[index % NUM_FILMS]})
    return str(folder)


def encode(frames: Iterable[np.ndarray]) -> bytes:
    """H.264 at the quality of a web video."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = SIDE_PX, SIDE_PX, "yuv420p"
        stream.options, stream.codec_context.time_base = {"crf": "23", "preset": "fast"}, Fraction(1, FPS)
        for pixels in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        file.mux(stream.encode(None))
    return buffer.getvalue()


# -- clips -------------------------------------------------------------------------------------------------------------------------------


def by_pyav(data: bytes) -> Tensor:
    """Frames as bytes (t, 3, h, w), the way PyAV's own examples go."""
    with av.open(io.BytesIO(data)) as container:
        return torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])).permute(0, 3, 1, 2)


def by_decord(data: bytes) -> Tensor:
    """Frames as bytes (t, 3, h, w)."""
    import decord

    return torch.from_numpy(decord.VideoReader(io.BytesIO(data), num_threads=1).get_batch(range(NUM_FRAMES)).asnumpy()).permute(0, 3, 1, 2)


def by_torchcodec(data: bytes) -> Tensor:
    """Frames as bytes (t, 3, h, w)."""
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(data, num_ffmpeg_threads=1).get_frames_in_range(0, NUM_FRAMES).data


PEERS: dict[str, Callable[[bytes], Tensor]] = {"PyAV": by_pyav, "decord": by_decord, "torchcodec": by_torchcodec}


class Decoding:
    """Decodes a sample of webdataset's and scales it.

    Args:
        decode: bytes of a file to bytes (t, 3, h, w).
        floats: scale to [-1, 1].
    """

    def __init__(self, decode: Callable[[bytes], Tensor], floats: bool) -> None:
        self.decode, self.floats = decode, floats

    def __call__(self, sample: dict[str, Any]) -> Tensor:
        frames = self.decode(sample["mp4"])
        return frames.permute(1, 0, 2, 3).float().div_(127.5).sub_(1.0) if self.floats else frames.permute(1, 0, 2, 3)


def peer_clips(folder: str, decode: Callable[[bytes], Tensor], num_workers: int, floats: bool) -> Iterable[Tensor]:
    """Batches of clips through webdataset's pipeline and loader."""
    pipeline = webdataset.WebDataset(_tars(folder), shardshuffle=False, empty_check=False)
    pipeline = pipeline.map(Decoding(decode, floats)).batched(CLIPS_IN_BATCH, collation_fn=torch.stack)
    return webdataset.WebLoader(pipeline, batch_size=None, num_workers=num_workers, persistent_workers=num_workers > 0)


def our_clips(folder: str, num_workers: int, floats: bool) -> Iterable[Tensor]:
    """Batches of clips through our loader, shuffled and at the seed's places as in training."""
    data = ShardData(
        urls=folder, num_frames=NUM_FRAMES, height=SIDE_PX, width=SIDE_PX, fps=FPS, batch_size=CLIPS_IN_BATCH, num_workers=num_workers,
        scale_on_device=not floats,
    )  # fmt: skip
    return Tensors(data.train_dataloader(), "video")


class Tensors:
    """One tensor of each of our batches; an epoch every time it is iterated.

    Args:
        loader: our loader.
        name: the tensor's name in a batch.
    """

    def __init__(self, loader: Iterable[Any], name: str) -> None:
        self.loader, self.name = loader, name

    def __iter__(self) -> Iterator[Tensor]:
        return (getattr(batch, self.name) for batch in self.loader)


# -- latents -----------------------------------------------------------------------------------------------------------------------------


def make_latents(folder: Path, number: int) -> str:
    """Shards of noise of 1 MiB each."""
    generator = torch.Generator().manual_seed(0)
    with ShardWriter(folder, max_samples=64) as writer:
        for index in range(number):
            latent = torch.randn(LATENT, generator=generator).half()
            writer.write(f"latent{index:05d}", {"json": {"caption": "noise"}, "latent.safetensors": latent_bytes(latent, {"encoder": "x"})})
    return str(folder)


def our_latents(folder: str, num_workers: int) -> Iterable[Tensor]:
    """Batches of latents through our loader."""
    data = ShardData(urls=folder, latents=True, batch_size=LATENTS_IN_BATCH, num_workers=num_workers)
    return Tensors(data.train_dataloader(), "latents")


def peer_latents(folder: str, num_workers: int) -> Iterable[Tensor]:
    """Batches of latents through webdataset's pipeline and loader."""
    pipeline = webdataset.WebDataset(_tars(folder), shardshuffle=False, empty_check=False)
    pipeline = pipeline.map(_unpack).batched(LATENTS_IN_BATCH, collation_fn=torch.stack)
    return webdataset.WebLoader(pipeline, batch_size=None, num_workers=num_workers, persistent_workers=num_workers > 0)


def _unpack(sample: dict[str, Any]) -> Tensor:
    return load(sample["latent.safetensors"])["latent"]


def raw_read(folder: str) -> None:
    """Read the same files, a mebibyte at a time into one buffer."""
    buffer = bytearray(1 << 20)
    for path in _tars(folder):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def mapped_copy(folder: str) -> None:
    """Copy the same files out of mapped memory, batch by batch into new tensors."""
    size = LATENTS_IN_BATCH << 20
    for path in _tars(folder):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = np.frombuffer(mapped, dtype=np.uint8)
            for start in range(0, len(view), size):
                torch.empty(min(size, len(view) - start), dtype=torch.uint8).numpy()[:] = view[start : start + size]
            del view


def _tars(folder: str) -> list[str]:
    return [str(path) for path in sorted(Path(folder).glob("*.tar"))]


# -- timing ------------------------------------------------------------------------------------------------------------------------------


def drain(batches: Iterable[Tensor], expected: int) -> None:
    """Take all batches of an epoch, touching each as a model would."""
    count = 0
    for batch in batches:
        count += len(batch)
        batch[..., 0, 0].sum()
    assert count == expected, f"{count} samples of {expected}"


def measure(cases: dict[str, Callable[[], None]], args: argparse.Namespace, amount: float) -> dict[str, dict[str, float]]:
    """Rates of all cases, and our rate over theirs."""
    seconds = interleave(cases, args.rounds, CLOCKS[args.clock])
    table = {}
    for name, times in seconds.items():
        table[name] = {"per_s": round(amount / sorted(times)[len(times) // 2], 1)}
        if name != "ours":
            table[name]["ours_over_it"] = round(ratio(times, seconds["ours"]), 2)
    return table


def clips_table(folder: str, args: argparse.Namespace, num_workers: int) -> dict[str, dict[str, float]]:
    """Clips per second of all that are installed."""
    floats = args.pixels == "floats"
    loaders = {"ours": our_clips(folder, num_workers, floats)}
    loaders |= {f"webdataset + {name}": peer_clips(folder, PEERS[name], num_workers, floats) for name in installed()}
    cases = {name: partial(drain, loader, args.clips) for name, loader in loaders.items()}
    return measure(cases, args, args.clips)


def latents_table(folder: str, args: argparse.Namespace, num_workers: int) -> dict[str, dict[str, float]]:
    """Megabytes per second of latents."""
    loaders = {"ours": our_latents(folder, num_workers), "webdataset": peer_latents(folder, num_workers)}
    cases: dict[str, Callable[[], None]] = {name: partial(drain, loader, args.latents) for name, loader in loaders.items()}
    cases |= {"mapped copy": partial(mapped_copy, folder), "raw read": partial(raw_read, folder)}
    return measure(cases, args, float(args.latents * np.prod(LATENT) * 2 / 1e6))


def installed() -> dict[str, str]:
    """Versions of the peers that can be imported."""
    found = {}
    for name, package in (("PyAV", "av"), ("decord", "decord"), ("torchcodec", "torchcodec")):
        try:
            __import__("torchcodec.decoders" if package == "torchcodec" else package)
            found[name] = importlib.metadata.version(package)
        except Exception as error:  # torchcodec raises what its libraries raise
            print(f"{name} is left out: {type(error).__name__}: {str(error).splitlines()[0]}")
    return found


def main() -> None:
    """Time everything, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--latents", type=int, default=512)
    parser.add_argument("--pixels", choices=["floats", "bytes"], default="floats")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in every process")
    parser.add_argument("--output", type=Path, default=RESULTS / "loader.json")
    args = parser.parse_args()
    if args.clock == "cpu" and max(args.workers):
        parser.error("--clock cpu was given with workers, whose time it does not count; give --workers 0, or --clock wall")
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    record: dict[str, Any] = {"clips_per_s": {}, "latents_mb_per_s": {}}
    with tempfile.TemporaryDirectory() as scratch:
        clips, latents = make_clips(Path(scratch) / "clips", args.clips), make_latents(Path(scratch) / "latents", args.latents)
        for num_workers in args.workers:
            for what, table in (("clips", clips_table(clips, args, num_workers)), ("latents", latents_table(latents, args, num_workers))):
                record["clips_per_s" if what == "clips" else "latents_mb_per_s"][num_workers] = table
                for name, row in table.items():
                    goal = f" (at least {GOALS[name]:g} wanted)" if name in GOALS else ""
                    over = f", ours over it {row['ours_over_it']:.2f}{goal}" if "ours_over_it" in row else ""
                    print(
                        f"{what}, {num_workers} workers: {name} {row['per_s']:.1f} {'clips' if what == 'clips' else 'MB'}/s{over}",
                        flush=True,
                    )
    write_record(
        record | {
            "pixels": args.pixels, "clock": args.clock, "rounds": args.rounds, "peers": installed(), "webdataset": webdataset.__version__,
            "machine": processor(), "cpu_count": os.cpu_count(), "torch": torch.__version__,
        },
        args.output,
    )  # fmt: skip
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
