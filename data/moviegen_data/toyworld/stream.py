"""An endless supply of rendered batches, split by rank and worker, the same for the same seed, resumable at any batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.termination import leave_process_group
from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.prompts import with_fps
from moviegen_data.toyworld.renderer import ToyClip
from moviegen_data.toyworld.scene import SceneSpec
from moviegen_data.toyworld.sound_captions import hears, sound_caption
from moviegen_data.toyworld.world import World, clip_key

Media = Literal["all", "video", "none"]
Told = Literal["picture", "sound"]


class ToyWorldStream(IterableDataset[MediaBatch]):
    """Yields whole batches; every batch of an epoch has its number, and the number alone decides what is in it.

    Args:
        num_samples: samples of an epoch over all ranks.
        batch_size: clips per batch and rank.
        stage: one of "train", "val", "predict"; the stages never share a scene.
        image_every: every n-th batch holds pictures of one frame instead of clips; 0 for none. Pictures have no sound.
        image_batch_size: pictures per picture batch; as many as clips unless given.
        captions: what the captions tell: "picture" what is seen, "sound" what is heard.
        fps_prefix: put "FPS-8" in front of the captions.
        media: what a batch holds beside its metadata: "all" pixels and the sound, if there is one; "video" silent pixels; "none" neither.
        fresh_epochs: every epoch renders new scenes; otherwise the same ones return.
        drop_last: leave out the samples that do not fill a batch on every rank.
        rank: this process's number among those that see different data.
        world_size: how many such processes there are.
        settings: those of `World`.
    """

    def __init__(
        self,
        *,
        num_samples: int,
        batch_size: int,
        stage: str = "train",
        image_every: int = 0,
        image_batch_size: int | None = None,
        captions: Told = "picture",
        fps_prefix: bool = False,
        media: Media = "all",
        fresh_epochs: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        **settings: Any,
    ) -> None:
        require_at_least(1, batch_size=batch_size, image_batch_size=image_batch_size or 1)
        if drop_last and num_samples < batch_size * world_size:
            given = f"{num_samples} samples for batches of {batch_size} on {world_size} rank(s) were given"
            raise UsageError(given, "an epoch has at least one whole batch per rank", "raise num_train or lower batch_size")
        if not drop_last and num_samples % world_size:
            least = max(num_samples // world_size, 1) * world_size
            given = f"{num_samples} samples for {world_size} ranks were given"
            raise UsageError(given, f"every rank gets as many, so the nearest is {least}", "change num_val or num_predict")
        self.num_samples, self.batch_size, self.stage = num_samples, batch_size, stage
        self.world = World(**settings)
        self.world.check()
        self.image_every, self.image_batch_size = image_every, image_batch_size or batch_size
        self.captions, self.fps_prefix, self.media = captions, fps_prefix, media
        self.fresh_epochs, self.drop_last = fresh_epochs, drop_last
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_batch = 0, 0

    def __len__(self) -> int:
        """Batches of an epoch on this rank."""
        whole, rest = divmod(self.num_samples // self.world_size, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[MediaBatch]:
        worker = get_worker_info()
        skip, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(self.first_batch + skip, len(self), step):
            yield self.batch(number)

    def batch(self, number: int) -> MediaBatch:
        """The batch of this number in the current epoch."""
        if self.image_every and (number + 1) % self.image_every == 0:
            size = self.image_batch_size
            first = (self.epoch * self.fresh_epochs * len(self) + number) * size * self.world_size
            return self._join("images", [first + i * self.world_size + self.rank for i in range(size)])
        first = number * self.batch_size * self.world_size
        size = min(self.batch_size, (self.num_samples - first) // self.world_size)
        first += self.epoch * self.fresh_epochs * self.num_samples
        return self._join(self.stage, [first + i * self.world_size + self.rank for i in range(size)])

    def scene(self, stage: str, index: int) -> SceneSpec:
        """The index-th scene of a stage."""
        return self.world.scene(stage, index)

    def _join(self, stage: str, indices: Sequence[int]) -> MediaBatch:
        clips = [self.world.clip(stage, index) for index in indices]
        has_sound = clips[0].audio is not None
        return MediaBatch(
            captions=[self._caption(clip) for clip in clips],
            keys=[clip_key(stage, index) for index in indices],
            video=None if self.media == "none" else to_pixels(clips),
            fps=torch.full((len(clips),), float(self.world.fps)),
            audio=to_waveforms(clips) if has_sound and self.media == "all" else None,
            audio_hz=clips[0].audio_hz,
            metadata=[describe(clip) for clip in clips],
        )

    def _caption(self, clip: ToyClip) -> str:
        text = clip.caption if self.captions == "picture" else sound_caption(clip.spec)
        return with_fps(text, self.world.fps) if self.fps_prefix else text


class ResumableLoader(DataLoader):
    """A loader of whole batches that counts them, so that a checkpoint in mid-epoch resumes with the next one.

    Args:
        stream: the source; it also says where in which epoch to begin.
        num_workers: processes that render; 0 renders in this one.
    """

    def __init__(self, stream: ToyWorldStream, *, num_workers: int = 0) -> None:
        super().__init__(stream, batch_size=None, num_workers=num_workers, collate_fn=_same, worker_init_fn=leave_process_group)
        self._next_batch, self._resumed = 0, False
        self.used: Callable[[], float] | None = None  # how many batches an epoch uses, where it does not use all

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[MediaBatch]:
        if not self._resumed and self._next_batch:
            self.dataset.epoch, self._next_batch = self.dataset.epoch + 1, 0
        self._resumed = False
        self.dataset.first_batch = self._next_batch
        for batch in super().__iter__():
            self._next_batch += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch, next batch, and whether the epoch uses no more."""
        whole = self._next_batch >= min(len(self), self.used() if self.used else len(self))
        return {"epoch": self.dataset.epoch, "next_batch": self._next_batch, "whole": whole}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where the state was taken."""
        self.dataset.epoch, self._next_batch = state["epoch"], state["next_batch"]
        self._resumed = not state.get("whole", self._next_batch >= len(self))


def to_pixels(clips: Sequence[ToyClip]) -> Tensor:
    """Frames as float in [-1, 1] (b, 3, t, h, w)."""
    video = torch.from_numpy(np.stack([clip.video for clip in clips])).permute(0, 4, 1, 2, 3).contiguous()
    return video.float().mul_(2 / 255).sub_(1)


def to_waveforms(clips: Sequence[ToyClip]) -> Tensor:
    """Sounds as float in (-1, 1) (b, 1, s)."""
    return torch.from_numpy(np.stack([clip.audio for clip in clips]))


def describe(clip: ToyClip) -> dict[str, Any]:
    """A clip's metadata: its format; "scene" and "events", the ground truth for the oracles; and where it has sound, what is heard."""
    num_frames, height, width, _ = clip.video.shape
    described = {
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "fps": clip.fps,
        "scene": clip.spec.to_dict(),
        "events": [{"kind": event.kind, "time_s": event.time_s, "object_index": event.object_index} for event in clip.events],
    }
    if clip.audio is not None:
        described |= {"audio_hz": clip.audio_hz, "audio_samples": clip.audio.shape[-1], "sound": asdict(hears(clip.spec))}
    return described


def _same(batch: MediaBatch) -> MediaBatch:
    return batch
