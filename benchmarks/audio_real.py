"""Four real films whose sound a video-to-audio model remembers: are its onsets those of the original?

    MOVIEGEN_MEDIA=... python benchmarks/audio_real.py --folder FOLDER      # about an hour on one core

The films are cut into pieces of 4 s (64 x 64 px, 25 frames a second, sound at one level, in AAC at 16 kHz) and packed by
`moviegen data pack`; `moviegen fit` trains `dac_vae/toy_16khz` on their sound and then `audio/toy` on sound and frames of the first two
pieces of each (all of hammer and dog, 8 of 10 s of the congas, 8 of 36 s of the drummer), without captions.
Every piece is then given a sound for its frames alone, as `moviegen sound` does it, and the pieces of a film are joined. Onset F1 (within
40 ms, one to one) is against the sound of the original file; beside it stand Opus and the codec's reconstruction, which are the ceiling,
and the chance level: sounds made without the film, for another film, and for another moment of the same film.

The detector's threshold is chosen for each film by the original alone: of 1.5, 2, 2.5 and 3 that at which Opus at 24 kbit/s agrees best
with it, of equals the one that hears most, and of those the highest. Onsets in the first tenth of a second are left out on both sides: the
dog is barking already when its film begins. Every film gets `--draws` sounds from as many noises, whose hits and misses are summed.
Spectrograms go to FOLDER/pictures, results to benchmarks/results/audio_real.json.
"""

import json
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dac_vae_real import machine, write_sheet
from lightning.pytorch import LightningDataModule
from measuring import media_parser, parse_media, write_record
from torch import Tensor

from moviegen_audio.opus import code_with_opus
from moviegen_cast.sound import load_model, sounds_for
from moviegen_core.batch import MediaBatch
from moviegen_core.cli import main as moviegen
from moviegen_core.media.video import Clip, read_video, write_video
from moviegen_core.memory import keep_freed_memory
from moviegen_core.weights import build_from_checkpoint
from moviegen_data.audio import read_audio
from moviegen_data.audio_data import AudioData
from moviegen_eval import OnsetScore, detect_onsets, onset_f1

FILMS = ("hammer_anvil_640x360", "dog_barks_480x360_15fps", "congas_cut_640x360", "drummer_204x360_36s")
HZ, PIECE_S, FPS, SIZE_PX = 16000, 4.0, 25.0, 64
LEVEL = 0.1  # root mean square: the drummer is ten times as loud as the others, whose latents would be lost in the noise of his
THRESHOLDS = (1.5, 2.0, 2.5, 3.0)
BEGUN_S = 0.1
REMEMBERED = 2  # pieces of each film that the model learns; the codec learns all


def main() -> None:
    """Cut, train, generate, measure, print, write."""
    parser = media_parser(__doc__, output="audio_real.json")
    parser.add_argument("--folder", type=Path, default=Path("audio_real"), help="where shards, runs and pictures go")
    parser.add_argument("--codec_steps", type=int, default=1500, help="steps of the codec")
    parser.add_argument("--steps", type=int, default=2000, help="steps of the video-to-audio model")
    parser.add_argument("--draws", type=int, default=8, help="sounds for each film, from as many noises")
    parser.add_argument("--sampling_steps", type=int, default=32, help="solver steps")
    parser.add_argument("--guidance_scale", type=float, default=1.0, help="how strictly the film is followed")
    parser.add_argument("--only", choices=["cut", "codec", "model", "measure"], help="one stage, where the earlier ones are done")
    arguments = parse_media(parser, "video")
    torch.set_num_threads(1)
    keep_freed_memory()
    folder = arguments.folder
    stages = {
        "cut": lambda: cut(arguments.media, folder),
        "codec": lambda: fit_codec(folder, arguments.codec_steps),
        "model": lambda: fit_model(folder, arguments.steps),
    }
    for name in [arguments.only] if arguments.only else stages:
        if name in stages:
            stages[name]()
    if arguments.only not in (None, "measure"):
        return
    training = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("codec", "model")}
    report = {
        "machine": machine(),
        "training": training,
        **measure(arguments.media, folder, steps=arguments.sampling_steps, guidance_scale=arguments.guidance_scale, draws=arguments.draws),
    }
    print(json.dumps(report, indent=2))
    write_record(report, arguments.output)


# -- data --------------------------------------------------------------------------------------------------------------------------


def cut(media: Path, folder: Path) -> None:
    """Write the films' whole pieces as small mp4 files, and pack them."""
    shutil.rmtree(folder / "pieces", ignore_errors=True)
    (folder / "pieces").mkdir(parents=True)
    for name in FILMS:
        clip, sound = read_video(media / "video" / f"{name}.mp4"), original(media, name)
        for number in range(num_pieces(sound)):
            times = number * PIECE_S + (torch.arange(round(PIECE_S * FPS)) + 0.5) / FPS
            frames = clip.video[:, (times * clip.fps).long().clamp(max=clip.video.shape[1] - 1)]
            frames = torch.nn.functional.interpolate(frames.transpose(0, 1), size=(SIZE_PX, SIZE_PX), mode="area").transpose(0, 1)
            path = folder / "pieces" / f"{name}-{number:02d}.mp4"
            write_video(path, frames, fps=FPS, audio=piece(sound, number), audio_hz=HZ, crf=12)
    moviegen(["data", "pack", str(folder / "pieces"), str(folder / "shards"), "--overwrite", "true"])


def original(media: Path, name: str) -> Tensor:
    """The sound of a film (1, s), all at one level."""
    sound = read_audio(media / "video" / f"{name}.mp4", audio_hz=HZ, channels=1).audio
    return sound * min(LEVEL / float(sound.square().mean().sqrt()), 0.99 / float(sound.abs().max()))


def num_pieces(sound: Tensor) -> int:
    """Whole pieces in a sound."""
    return int(sound.shape[1] // (PIECE_S * HZ))


def piece(sound: Tensor, number: int) -> Tensor:
    """One of them."""
    size = round(PIECE_S * HZ)
    return sound[:, number * size : (number + 1) * size]


class CachedClips(LightningDataModule):
    """All pieces in every batch, decoded and encoded once, before training.

    Args:
        folder: packed pieces.
        codec: checkpoint of the autoencoder.
        repeats: how often each piece is in a batch.
        size_px: rows and columns of the frames.
    """

    def __init__(self, *, folder: str, codec: str, repeats: int = 4, size_px: int = 32) -> None:
        super().__init__()
        self.folder, self.codec, self.repeats, self.size_px = folder, codec, repeats, size_px
        self.batches: list[MediaBatch] = []

    def setup(self, stage: str) -> None:
        """Encode."""
        self.batches = [self._joined(list(self._encoded()))]

    def train_dataloader(self) -> Any:
        """The one batch, again and again."""
        return _Forever(self.batches[0])

    @torch.no_grad()
    def _encoded(self) -> Iterator[MediaBatch]:
        codec = build_from_checkpoint(self.codec).eval()
        frames = {"video": True, "fps": FPS, "height": self.size_px, "width": self.size_px}
        data = AudioData(urls=self.folder, val_urls=self.folder, durations=[PIECE_S], audio_hz=HZ, batch_size=1, min_share=0.9, **frames)
        for batch in data.val_dataloader():
            if int(batch.keys[0].rsplit("-", 1)[1]) >= REMEMBERED:
                continue
            batch.latents, batch.audio, batch.audio_hz = codec.encode(batch.audio), None, None
            yield batch

    def _joined(self, parts: list[MediaBatch]) -> MediaBatch:
        many = parts * self.repeats
        print(f"{len(parts)} pieces, latents of std {torch.cat([part.latents for part in parts]).std():.3f}", flush=True)
        return MediaBatch(
            captions=["" for _ in many],
            keys=[part.keys[0] for part in many],
            video=torch.cat([part.video for part in many]),
            fps=torch.cat([part.fps for part in many]),
            latents=torch.cat([part.latents for part in many]),
        )


class _Forever:
    """Yields one batch without end; an epoch is as long as training."""

    def __init__(self, batch: MediaBatch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[MediaBatch]:
        while True:
            yield self.batch


# -- training ----------------------------------------------------------------------------------------------------------------------


def fit_codec(folder: Path, steps: int) -> None:
    """Train the codec on the sound of the pieces."""
    shards = str(folder / "shards")
    command = [
        "fit", "--config", "dac_vae/toy_16khz", "--data", "AudioData", "--data.urls", shards, "--data.val_urls", shards,
        "--data.durations", "[1.0]", "--data.audio_hz", str(HZ), "--data.batch_size", "8", "--data.batches_per_epoch", "100",
        "--model.loss.waveform", "0", "--model.loss.relative_waveform", "20", "--model.optimizer.init_args.lr", "5e-4",
        "--trainer.val_check_interval", str(steps),
        "--trainer.callbacks+=ExponentialMovingAverage", "--trainer.callbacks.init_args.decay=0.99",
    ]  # fmt: skip
    run(folder, "codec", command, steps)


def fit_model(folder: Path, steps: int) -> None:
    """Train the video-to-audio model on the latents and frames of the pieces."""
    codec = str(folder / "codec.ckpt")
    video = {"dropout": 0.0, "envelope_weight": 1.0, "encoder": {"class_path": "moviegen_audio.EmbeddedFrameEncoder"}}
    conditioners = {
        "video": {"class_path": "VideoFrames", "init_args": video},
        "context": {"class_path": "AudioContext", "init_args": {"dropout": 1.0}},
        "caption": {"class_path": "HashedWordConditioner", "init_args": {"num_layers": 1}},
    }
    schedule = {"class_path": "moviegen_core.learning_rate.WarmupCosineLR", "init_args": {"warmup_steps": 50}}
    settings = {"joint_dropout": 0.1, "autoencoder_checkpoint": codec, "conditioners": conditioners, "lr_scheduler": schedule}
    (folder / "model.yaml").write_text(json.dumps({"model": {"init_args": settings}}))
    command = [
        "fit", "--config", "audio/toy", "--config", str(folder / "model.yaml"), "--data", "audio_real.CachedClips",
        "--data.folder", str(folder / "shards"), "--data.codec", codec, "--trainer.val_check_interval", "null",
    ]  # fmt: skip
    run(folder, "model", command, steps)


def run(folder: Path, name: str, command: list[str], steps: int) -> None:
    """Run a training, keep its last checkpoint as NAME.ckpt and what it took as NAME.json."""
    root = folder / name
    shutil.rmtree(root, ignore_errors=True)
    command = [
        *command, "--model.lr_scheduler.init_args.total_steps", str(steps), "--model.lr_scheduler.init_args.final_share", "0.02",
        "--trainer.max_steps", str(steps), "--trainer.default_root_dir", str(root),
    ]  # fmt: skip
    began, start = time.time(), time.process_time()
    moviegen(command)
    spent = {"processor_minutes": round((time.process_time() - start) / 60, 2), "wall_minutes": round((time.time() - began) / 60, 2)}
    shutil.copy(max(root.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime), folder / f"{name}.ckpt")
    told = " ".join(["moviegen", *command]).replace(str(folder), "FOLDER")
    (folder / f"{name}.json").write_text(json.dumps({"command": told, "steps": steps, **spent}))


# -- measuring ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(media: Path, folder: Path, *, steps: int, guidance_scale: float, draws: int) -> dict[str, Any]:
    """Onset F1 of every film by every source of sound, and over all films."""
    codec = build_from_checkpoint(folder / "codec.ckpt").eval()
    model = load_model(folder / "model.ckpt", seed=0, steps=steps, guidance_scale=guidance_scale)
    sounds = {name: original(media, name) for name in FILMS}
    sounds = {name: sound[:, : round(min(num_pieces(sound), REMEMBERED) * PIECE_S * HZ)] for name, sound in sounds.items()}
    paths = {name: sorted((folder / "pieces").glob(f"{name}-*.mp4"))[:REMEMBERED] for name in FILMS}
    clips = {name: [read_video(path) for path in paths[name]] for name in FILMS}
    made = {name: [joined(model, clips[name], f"{name}-{draw}") for draw in range(draws)] for name in FILMS}
    blind = {name: [joined(model, None, f"{name}-{draw}", count=len(clips[name])) for draw in range(draws)] for name in FILMS}
    films: dict[str, Any] = {}
    for name, sound in sounds.items():
        threshold = threshold_for(sound)
        heard = partial(onsets, threshold=threshold)
        rebuilt = codec.decode(codec.encode(sound[None]), num_frames=sound.shape[1])[0]
        others = [repeated(each, sound.shape[1]) for other in FILMS if other != name for each in made[other]]
        moved = [each.roll(round(PIECE_S / 2 * HZ), dims=1) for each in made[name]]
        subjects = {
            "Opus, 24 kbit/s": [code_with_opus(sound, sample_rate=HZ, bit_rate=24000).audio],
            "codec": [rebuilt],
            "generated": made[name],
            "without the film": blind[name],
            "for another film": others,
            "for another moment": moved,
        }
        reference = heard(sound)
        scores = {subject: [onset_f1(reference, heard(each)) for each in candidates] for subject, candidates in subjects.items()}
        films[name] = {"threshold": threshold, "seconds": sound.shape[1] / HZ, "onsets": len(reference)} | {
            subject: figures(score) for subject, score in scores.items()
        }
        films[name]["f1_by_threshold"] = {
            subject: {each: round(statistics.mean(agreement(sound, other, each) for other in subjects[subject]), 3) for each in THRESHOLDS}
            for subject in ("codec", "generated")
        }
        write_sheet(folder / "pictures" / f"{name}.png", [sound[:, : 8 * HZ], rebuilt[:, : 8 * HZ], made[name][0][:, : 8 * HZ]], hz=HZ)
    means = {subject: round(statistics.mean(film[subject]["f1"] for film in films.values()), 3) for subject in subjects}
    return {"sampling": {"steps": steps, "guidance_scale": guidance_scale, "draws": draws}, "mean_f1": means, "films": films}


def joined(model: Any, clips: Sequence[Clip] | None, name: str, *, count: int = 0) -> Tensor:
    """Sounds for the pieces of a film, one behind the other (1, s)."""
    count = count if clips is None else len(clips)
    keys = [f"{name}-{number:02d}" for number in range(count)]
    sounds = sounds_for(model, clips, captions=[""] * count, keys=keys, duration_s=PIECE_S)
    return torch.cat([sound.cpu() for sound in sounds], dim=1)


def threshold_for(sound: Tensor) -> float:
    """The threshold at which Opus agrees best with the original; see above."""
    coded = code_with_opus(sound, sample_rate=HZ, bit_rate=24000).audio
    return max(THRESHOLDS, key=lambda each: (agreement(sound, coded, each), len(onsets(sound, each)), each))


def agreement(sound: Tensor, other: Tensor, threshold: float) -> float:
    """Onset F1 of one sound against another."""
    return onset_f1(onsets(sound, threshold), onsets(other, threshold)).f1


def onsets(sound: Tensor, threshold: float) -> list[float]:
    """What is heard to begin in a sound, but for what may have begun before it."""
    return [time_s for time_s in detect_onsets(sound, HZ, threshold=threshold) if time_s >= BEGUN_S]


def repeated(sound: Tensor, length: int) -> Tensor:
    """A sound, again and again up to a length."""
    return sound.repeat(1, -(-length // sound.shape[1]))[:, :length]


def figures(scores: Sequence[OnsetScore]) -> dict[str, float]:
    """Of one sound, or summed over several."""
    total = sum(scores, OnsetScore())
    mean = {"found": total.num_estimate / len(scores), "matched": total.num_matched / len(scores)}
    return {"f1": round(total.f1, 3)} | {key: round(value, 1) for key, value in mean.items()}


if __name__ == "__main__":
    main()
