"""The DAC-VAE on real sound within minutes of one CPU core, on files that it never saw, beside Opus.

    MOVIEGEN_MEDIA=... python benchmarks/dac_vae_real.py --folder FOLDER      # about 25 minutes on one core

Files of `audio/` and sound tracks of `video/` become two folders of mono sound, whole files held out, and a third of synthetic and toy
sounds; `moviegen data pack` packs them, and `moviegen fit --config dac_vae/media` trains on one thread. Measured on the held-out files,
each of which counts the same, at most `LONGEST_S` seconds of it: the untrained codec (its start as a filter bank), the trained one
(posterior mean, mean rounded to fp16, a sample), and Opus with the bits that a sample carries by the KL, and with those that fp16 takes.
Spectrograms go to FOLDER/pictures, results to benchmarks/results/dac_vae_real.json.
"""

import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import media_parser, parse_media, processor, write_record
from PIL import Image
from torch import Tensor

from moviegen_audio.bottleneck import bits_per_second
from moviegen_audio.dac_vae import DacVae
from moviegen_audio.metrics import SoundMetrics
from moviegen_audio.opus import code_with_opus
from moviegen_audio.synthetic import KINDS, draw_sound
from moviegen_core.cli import main as moviegen
from moviegen_core.media.sound import spectrogram, write_audio
from moviegen_core.memory import keep_freed_memory
from moviegen_core.weights import build_from_checkpoint
from moviegen_data.audio import read_audio
from moviegen_data.toyworld.world import World

HZ = 48000
# Of every kind of sound a file is held out, and another of the kind is learnt from.
HELD_OUT = ("speech_vctk_48k_mono", "music_bach", "ambient_hens", "sfx_car_horn", "hammer_anvil_640x360", "dog_barks_480x360_15fps")
SILENT = ("digital_silence_48k", "dog_leash_720p_silent_track")
PIECE_S = 4.0  # files are cut into pieces, so that a long one is drawn more often than a short one
LONGEST_S = 10.0
NUM_TOYS = 64


def main() -> None:
    """Prepare, train, measure, print, write."""
    parser = media_parser(__doc__, output="dac_vae_real.json")
    parser.add_argument("--folder", type=Path, default=Path("dac_vae_real"), help="where shards, runs and pictures go")
    parser.add_argument("--override", action="append", default=[], help="a further argument of the training, e.g. --seed_everything=1")
    parser.add_argument("--measure_only", action="store_true", help="measure the checkpoint that is in the folder")
    arguments = parse_media(parser, "audio", "video")
    torch.set_num_threads(1)
    keep_freed_memory()
    folder = arguments.folder
    if not (folder / "shards").is_dir():
        prepare(arguments.media, folder)
    if not arguments.measure_only:
        training = train(folder, arguments.override)
        (folder / "training.json").write_text(json.dumps(training))
    report = {"machine": machine(), "training": json.loads((folder / "training.json").read_text()), **measure(folder)}
    print(json.dumps(report, indent=2))
    write_record(report, arguments.output)


# -- sounds ------------------------------------------------------------------------------------------------------------------------


def prepare(media: Path, folder: Path) -> None:
    """Write learnt, held-out and toy sounds as mono wav, and pack them."""
    shutil.rmtree(folder / "sounds", ignore_errors=True)
    for part in ("learnt", "held_out", "toy"):
        (folder / "sounds" / part).mkdir(parents=True)
    for path in sorted([*(media / "audio").iterdir(), *(media / "video").iterdir()]):
        if path.stem in SILENT:
            continue
        try:
            audio = read_audio(path, audio_hz=HZ, channels=1).audio
        except ValueError:
            print(f"no sound: {path.name}")
            continue
        if path.stem in HELD_OUT:
            write_audio(folder / "sounds" / "held_out" / f"{path.stem}.wav", audio[:, : round(LONGEST_S * HZ)], HZ)
            continue
        for number, piece in enumerate(audio.split(round(PIECE_S * HZ), dim=1)):
            if piece.shape[1] >= HZ:
                write_audio(folder / "sounds" / "learnt" / f"{path.stem}-{number:02d}.wav", piece, HZ)
    for number in range(NUM_TOYS):
        write_audio(folder / "sounds" / "toy" / f"{number:03d}.wav", torch.from_numpy(toy_sound(number)), HZ)
    for part in ("learnt", "held_out", "toy"):
        moviegen(["data", "pack", str(folder / "sounds" / part), str(folder / "shards" / part)])


def toy_sound(number: int) -> np.ndarray:
    """Two seconds of chords, clicks, noise and sweeps, or of a toy film."""
    if number % 2:
        return draw_sound("train", number, num_samples=2 * HZ, audio_hz=HZ, audio_channels=1, kinds=KINDS, seed=0)[0]
    world = World(height=8, width=8, num_objects=2, vary_timing=True, audio_hz=HZ, music=0.3)
    return np.asarray(world.clip("train", number).audio)


# -- training ----------------------------------------------------------------------------------------------------------------------


def train(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Fit `dac_vae/media`; what it took."""
    urls = [{"urls": str(folder / "shards" / "learnt"), "weight": 4}, {"urls": str(folder / "shards" / "toy"), "weight": 1}]
    root = folder / "run"
    shutil.rmtree(root, ignore_errors=True)
    command = ["fit", "--config", "dac_vae/media", "--data.urls", json.dumps(urls), "--trainer.default_root_dir", str(root), *overrides]
    start, began = time.process_time(), time.time()
    moviegen(command)
    spent = (time.process_time() - start) / 60
    checkpoint = max(root.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    shutil.copy(checkpoint, folder / "trained.ckpt")
    steps = torch.load(checkpoint, weights_only=True, map_location="cpu")["global_step"]
    sounds = {part: sum(1 for _ in (folder / "sounds" / part).iterdir()) for part in ("learnt", "toy")}
    return {
        "command": " ".join(["moviegen", *command]).replace(str(folder), "FOLDER"),
        "processor_minutes": round(spent, 2),
        "wall_minutes": round((time.time() - began) / 60, 2),
        "steps": steps,
        "pieces": sounds,
    }


# -- measuring ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(folder: Path) -> dict[str, Any]:
    """Figures of every held-out file and their means."""
    codec = build_from_checkpoint(folder / "trained.ckpt").eval()
    torch.manual_seed(0)
    untrained = build_from_checkpoint(folder / "trained.ckpt").eval()
    untrained.reset_parameters()
    sounds = {path.stem: read_audio(path).audio[None] for path in sorted((folder / "sounds" / "held_out").iterdir())}
    files = {name: of_file(codec, untrained, audio, folder / "pictures" / f"{name}.png") for name, audio in sounds.items()}
    example = next(iter(files.values()))
    means = {
        subject: {key: round(statistics.mean(file[subject][key] for file in files.values()), 3) for key in example[subject]}
        for subject in example
    }
    latents, decoded = zip(*(difference(codec, audio) for audio in sounds.values()), strict=True)
    return {"means": means, "files": files, "chunked_less_whole": {"latent": max(latents), "audio": max(decoded)}}


def of_file(codec: DacVae, untrained: DacVae, audio: Tensor, picture: Path) -> dict[str, dict[str, float]]:
    """Figures of one sound (1, 1, s), each with what it takes in kbit/s."""
    hop, length = codec.hop_length, audio.shape[-1]
    posterior = codec.posterior(torch.nn.functional.pad(audio, (0, -length % hop)))
    torch.manual_seed(0)
    latents = {"mean": posterior.mean, "mean in fp16": posterior.mean.half().float(), "sample": posterior.sample()}
    decoded = {name: codec.decode_raw(latent)[..., :length] for name, latent in latents.items()}
    fp16, sampled = codec.latent_rate * codec.latent_channels * 16, bits_per_second(float(posterior.kl()), codec.latent_rate)
    bits = {"mean": float("nan"), "mean in fp16": fp16, "sample": sampled}
    decoded["untrained"] = untrained(audio)
    for name, budget in (("Opus at the sample's bits", sampled), ("Opus at fp16's bits", fp16)):
        coded = opus_of(audio[0], budget)
        decoded[name], bits[name] = coded.audio[None], coded.bits_per_second
    drawn = [audio, decoded["mean"], decoded["sample"], decoded["Opus at the sample's bits"], decoded["untrained"]]
    write_sheet(picture, [sound[0] for sound in drawn])
    return {name: figures(sound, audio) | kilobits(bits.get(name)) for name, sound in decoded.items()}


def opus_of(audio: Tensor, budget: float) -> Any:
    """Opus at the bit rate whose packets come nearest to the budget: it does not quite meet what it aims at."""
    low, high = 500.0, 512000.0
    for _ in range(12):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if code_with_opus(audio, bit_rate=round(middle)).bits_per_second < budget else (low, middle)
    tried = [code_with_opus(audio, bit_rate=round(rate)) for rate in (low, high)]
    return min(tried, key=lambda coded: abs(coded.bits_per_second - budget))


def figures(decoded: Tensor, audio: Tensor) -> dict[str, float]:
    """Mel and STFT distance and SI-SDR."""
    metrics = SoundMetrics(sample_rate=HZ)
    metrics.update(decoded.clamp(-1.0, 1.0), audio)
    return {name: round(float(value), 3) for name, value in metrics.compute().items()}


def kilobits(bits: float | None) -> dict[str, float]:
    """As an entry of the table, where there is such a figure."""
    return {} if bits is None or bits != bits else {"kbit_per_s": round(bits / 1000, 2)}


def difference(codec: DacVae, audio: Tensor) -> tuple[float, float]:
    """How far latents and sounds in chunks of ten latent frames are from those of the whole."""
    whole = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % codec.hop_length))
    kept = codec.encoder_chunks, codec.decoder_chunks
    codec.encoder_chunks = codec.decoder_chunks = None
    latent = codec.posterior(whole).mean
    decoded = codec.decode_raw(latent)
    pieces = torch.cat(list(codec.stream_encode(whole.split(5000, dim=-1), chunk_frames=10)), dim=-1)
    again = torch.cat(list(codec.stream_decode(pieces.split(7, dim=-1), chunk_frames=10)), dim=-1)
    codec.encoder_chunks, codec.decoder_chunks = kept
    shift, scale = codec.latent_mean[:, None], codec.latent_std[:, None]
    return float((pieces * scale + shift - latent).abs().max()), float((again - decoded).abs().max())


def write_sheet(path: Path, sounds: list[Tensor], *, hz: int = HZ) -> None:
    """Spectrograms of sounds (1, s), one below the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [spectrogram(sound, scale="mel", hz=hz, window=2048 * hz // HZ) for sound in sounds]
    width, height = pictures[0].size
    sheet = Image.new("L", (width, (height + 6) * len(pictures)), 128)
    for row, picture in enumerate(pictures):
        sheet.paste(picture, (0, row * (height + 6)))
    sheet.save(path)


def machine() -> dict[str, Any]:
    """What this ran on."""
    return {"cpu": processor(), "cores": os.cpu_count(), "threads": 1, "torch": torch.__version__, "load": os.getloadavg()[0]}


if __name__ == "__main__":
    main()
