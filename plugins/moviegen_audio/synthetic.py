"""Synthetic sounds, drawn while training: chords, clicks, noise bursts and sweeps, with the truth about them as metadata."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from scipy import signal
from torch.utils.data import IterableDataset, get_worker_info

from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.parallel.place import data_place
from moviegen_data.toyworld.stream import ResumableLoader

KINDS = ("chord", "clicks", "noise", "sweep")
_STAGES = ("train", "val", "predict")


class SyntheticSounds(LightningDataModule):
    """Sounds mixed of one to three sources; a sound is a function of the seed, the stage and its number alone.

    The metadata of each tells what is in it: `kinds`, and `clicks_s`, the times of the clicks in seconds.

    Args:
        duration_s: seconds of a sound.
        audio_hz: samples per second.
        audio_channels: channels of a sound; each source has its own place between left and right.
        kinds: what to draw from: chord, clicks, noise, sweep.
        batch_size: sounds per batch and rank.
        num_train: sounds of a training epoch over all ranks; every epoch draws new ones.
        num_val: sounds of a validation over all ranks, always the same ones.
        num_predict: sounds of a prediction over all ranks.
        num_workers: processes that draw; 0 draws in the main one.
        seed: root of all randomness.

    Raises:
        UsageError: a number is out of its range, or a kind is unknown.
    """

    def __init__(
        self,
        *,
        duration_s: float = 1.0,
        audio_hz: int = 48000,
        audio_channels: int = 1,
        kinds: Sequence[str] = KINDS,
        batch_size: int = 4,
        num_train: int = 4096,
        num_val: int = 32,
        num_predict: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= duration_s * audio_hz < math.inf or audio_channels < 1:
            raise UsageError(
                f"sounds of {duration_s} s at {audio_hz} Hz with {audio_channels} channels were asked for",
                "a sound has at least one sample and one channel",
                "correct duration_s, audio_hz or audio_channels",
            )
        require_at_least(1, batch_size=batch_size)
        require_at_least(0, num_workers=num_workers)
        if not kinds or set(kinds) - set(KINDS):
            raise UsageError(f"kinds={list(kinds)} was given", f"known are {', '.join(KINDS)}", "give one or more of them")
        self.counts = {"train": num_train, "val": num_val, "predict": num_predict}
        self.batch_size, self.num_workers, self.durations = batch_size, num_workers, [duration_s]
        self.drawing: dict[str, Any] = {
            "num_samples": round(duration_s * audio_hz),
            "audio_hz": audio_hz,
            "audio_channels": audio_channels,
            "kinds": tuple(kinds),
            "seed": seed,
        }

    def train_dataloader(self) -> ResumableLoader:
        """New sounds in every epoch."""
        loader = self._loader("train", fresh_epochs=True)
        loader.used = None if self.trainer is None else lambda: self.trainer.num_training_batches
        return loader

    def val_dataloader(self) -> ResumableLoader:
        """The same sounds at every validation."""
        return self._loader("val")

    def test_dataloader(self) -> ResumableLoader:
        """Sounds of neither training nor validation."""
        return self._loader("predict")

    predict_dataloader = test_dataloader

    def _loader(self, stage: str, *, fresh_epochs: bool = False) -> ResumableLoader:
        place = data_place(self.trainer)
        stream = _SoundStream(
            stage,
            count=self.counts[stage],
            batch_size=self.batch_size,
            fresh_epochs=fresh_epochs,
            rank=place.rank,
            world_size=place.count,
            drawing=self.drawing,
        )
        return ResumableLoader(stream, num_workers=self.num_workers)


class _SoundStream(IterableDataset[MediaBatch]):
    """Whole batches; a batch's number and the epoch decide what is in it."""

    def __init__(
        self, stage: str, *, count: int, batch_size: int, fresh_epochs: bool, rank: int, world_size: int, drawing: dict[str, Any]
    ) -> None:
        if count < batch_size * world_size:
            raise UsageError(
                f"{count} sounds for batches of {batch_size} on {world_size} rank(s) were given",
                "there is at least one whole batch per rank",
                f"raise num_{stage} or lower batch_size",
            )
        self.stage, self.count, self.batch_size, self.fresh_epochs = stage, count, batch_size, fresh_epochs
        self.rank, self.world_size, self.drawing = rank, world_size, drawing
        self.epoch, self.first_batch = 0, 0

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[MediaBatch]:
        worker = get_worker_info()
        skip, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(self.first_batch + skip, len(self), step):
            yield self.batch(number)

    def batch(self, number: int) -> MediaBatch:
        """The batch of this number in the current epoch."""
        first = ((self.epoch * self.fresh_epochs * len(self) + number) * self.world_size + self.rank) * self.batch_size
        made = [draw_sound(self.stage, first + index, **self.drawing) for index in range(self.batch_size)]
        return MediaBatch(
            captions=[" and ".join(truth["kinds"]) for _, truth in made],
            keys=[f"sound-{self.stage}-{first + index:08d}" for index in range(self.batch_size)],
            audio=torch.from_numpy(np.stack([sound for sound, _ in made])),
            audio_hz=self.drawing["audio_hz"],
            metadata=[truth for _, truth in made],
        )


def draw_sound(
    stage: str, index: int, *, num_samples: int, audio_hz: int, audio_channels: int, kinds: Sequence[str], seed: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw one sound, float32 (a, s) with a peak of about 0.2 to 0.9 over a faint noise, and what is in it."""
    rng = np.random.default_rng([seed, _STAGES.index(stage), index])
    chosen = list(rng.choice(kinds, size=min(len(kinds), int(rng.integers(1, 4))), replace=False))
    times = np.arange(num_samples) / audio_hz
    mix, clicks_s = np.zeros((audio_channels, num_samples)), []
    for kind in chosen:
        if kind == "clicks":
            source, clicks_s = _clicks(rng, times, audio_hz)
        else:
            source = {"chord": _chord, "noise": _noise, "sweep": _sweep}[kind](rng, times, audio_hz)
        gains = rng.uniform(0.3, 1.0, audio_channels) if audio_channels > 1 else np.ones(1)
        mix += rng.uniform(0.3, 1.0) * gains[:, None] * source
    mix *= rng.uniform(0.2, 0.9) / max(1e-6, float(np.abs(mix).max()))
    mix += 10.0 ** rng.uniform(-3.5, -2.5) * rng.standard_normal(mix.shape)  # no room is silent
    return mix.astype(np.float32), {"kinds": [str(kind) for kind in chosen], "clicks_s": [float(time) for time in clicks_s]}


def _chord(rng: np.random.Generator, times: np.ndarray, audio_hz: int) -> np.ndarray:
    """Two to four notes with overtones, struck at one time and fading."""
    struck = rng.uniform(0.0, 0.5) * times[-1]
    sound = np.zeros_like(times)
    for _ in range(int(rng.integers(2, 5))):
        pitch = 55.0 * 2.0 ** rng.uniform(0.0, 4.0)
        for overtone in range(1, 6):
            if overtone * pitch < 0.45 * audio_hz:
                sound += np.sin(2 * np.pi * overtone * pitch * (times - struck) + rng.uniform(0, 6.28)) / overtone ** rng.uniform(1.0, 2.0)
    return 0.3 * sound * _envelope(times, struck, attack_s=rng.uniform(0.002, 0.05), decay_s=rng.uniform(0.1, 0.8))


def _clicks(rng: np.random.Generator, times: np.ndarray, audio_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """One to five short ringing strokes at known times."""
    count = int(rng.integers(1, 6))
    struck = np.sort(rng.uniform(0.02, 0.95, count)) * times[-1]
    ringing_hz, decay_s = rng.uniform(800.0, min(8000.0, 0.4 * audio_hz)), rng.uniform(0.002, 0.012)
    since = [times - time for time in struck]
    sound = sum(np.cos(2 * np.pi * ringing_hz * time) * np.exp(-np.maximum(time, 0.0) / decay_s) * (time >= 0.0) for time in since)
    return sound, struck


def _noise(rng: np.random.Generator, times: np.ndarray, audio_hz: int) -> np.ndarray:
    """A burst of noise within a band."""
    low = 100.0 * 2.0 ** rng.uniform(0.0, 5.0)
    high = min(low * 2.0 ** rng.uniform(0.5, 4.0), 0.45 * audio_hz)
    band = signal.butter(2, [min(low, 0.5 * high), high], btype="bandpass", fs=audio_hz, output="sos")
    sound = signal.sosfilt(band, rng.standard_normal(times.size))
    sound /= max(1e-6, float(np.abs(sound).max()))
    return sound * _envelope(times, rng.uniform(0.0, 0.7) * times[-1], attack_s=rng.uniform(0.002, 0.1), decay_s=rng.uniform(0.03, 0.5))


def _sweep(rng: np.random.Generator, times: np.ndarray, audio_hz: int) -> np.ndarray:
    """A tone that glides from one pitch to another."""
    first, last = 100.0 * 2.0 ** rng.uniform(0.0, np.log2(0.004 * audio_hz), 2)
    sound = signal.chirp(times, f0=first, f1=last if last != first else first + 1.0, t1=max(times[-1], 1e-3), method="logarithmic")
    return 0.5 * sound * np.minimum(1.0, np.minimum(times, times[-1] - times) / 0.01)


def _envelope(times: np.ndarray, start: float, *, attack_s: float, decay_s: float) -> np.ndarray:
    since = np.maximum(times - start, 0.0)
    return np.minimum(since / attack_s, 1.0) * np.exp(-since / decay_s)
