"""An endless supply of rendered batches, split by rank and worker, the same for the same seed, resumable at any batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.termination import leave_process_group
from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.prompts import with_fps
from moviegen_data.toyworld.renderer import ToyClip, render
from moviegen_data.toyworld.sampling import sample_scene
from moviegen_data.toyworld.scene import PLAIN_GROUNDS, SceneSpec, Split

STAGES = ("train", "val", "predict", "images", "folder")


def scene_seed(seed: int, stage: str, index: int) -> int:
    """The seed of a stage's index-th scene; no two stages share scenes."""
    state = np.random.SeedSequence([seed, STAGES.index(stage), index]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


@dataclass(frozen=True)
class ClipFormat:
    """The shape of a clip.

    Args:
        num_frames: frames.
        height: rows in pixels.
        width: columns in pixels.
        fps: frames per second.
    """

    num_frames: int = 16
    height: int = 64
    width: int = 64
    fps: float = 8.0


class ToyWorldStream(IterableDataset[MediaBatch]):
    """Yields whole batches; every batch of an epoch has its number, and the number alone decides what is in it.

    Args:
        num_samples: samples of an epoch over all ranks.
        batch_size: clips per batch and rank.
        stage: one of "train", "val", "predict"; the stages never share a scene.
        seed: root of all randomness.
        num_frames: frames of a clip; 1 gives pictures.
        height: rows in pixels.
        width: columns in pixels.
        fps: frames per second.
        num_objects: one or two objects per scene.
        grounds: kinds of ground to draw from.
        split: "train" leaves the held-out combinations out, "held_out" has nothing else, "all" has both.
        image_every: every n-th batch holds pictures of one frame instead of clips; 0 for none.
        image_batch_size: pictures per picture batch; as many as clips unless given.
        text_probability: how often a word is written into the picture (and quoted in the caption).
        spread: share of the ranges of radius, position and path length that is drawn from, 0 to 1; see `sample_scene`.
        fps_prefix: put "FPS-8" in front of the captions.
        prompts_only: leave the pixels out.
        fresh_epochs: every epoch renders new scenes; otherwise the same ones return.
        drop_last: leave out the samples that do not fill a batch on every rank.
        rank: this process's number among those that see different data.
        world_size: how many such processes there are.
    """

    def __init__(
        self,
        *,
        num_samples: int,
        batch_size: int,
        stage: str = "train",
        seed: int = 0,
        num_frames: int = 16,
        height: int = 64,
        width: int = 64,
        fps: float = 8.0,
        num_objects: int = 1,
        grounds: Sequence[str] = PLAIN_GROUNDS,
        split: Split = "train",
        image_every: int = 0,
        image_batch_size: int | None = None,
        text_probability: float = 0.0,
        spread: float = 1.0,
        fps_prefix: bool = False,
        prompts_only: bool = False,
        fresh_epochs: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        require_at_least(1, batch_size=batch_size, image_batch_size=image_batch_size or 1)
        if drop_last and num_samples < batch_size * world_size:
            given = f"{num_samples} samples for batches of {batch_size} on {world_size} rank(s) were given"
            raise UsageError(given, "an epoch has at least one whole batch per rank", "raise num_train or lower batch_size")
        if not drop_last and num_samples % world_size:
            least = max(num_samples // world_size, 1) * world_size
            given = f"{num_samples} samples for {world_size} ranks were given"
            raise UsageError(given, f"every rank gets as many, so the nearest is {least}", "change num_val or num_predict")
        self.num_samples, self.batch_size, self.stage, self.seed = num_samples, batch_size, stage, seed
        self.clip_format = ClipFormat(num_frames, height, width, fps)
        self.drawing: dict[str, Any] = {
            "num_objects": num_objects,
            "grounds": tuple(grounds),
            "split": split,
            "text_probability": text_probability,
            "spread": spread,
        }
        self.image_every, self.image_batch_size = image_every, image_batch_size or batch_size
        self.fps_prefix, self.prompts_only, self.fresh_epochs, self.drop_last = fps_prefix, prompts_only, fresh_epochs, drop_last
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_batch = 0, 0
        sample_scene(0, **self.drawing)

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
        return sample_scene(scene_seed(self.seed, stage, index), **self.drawing)

    def _join(self, stage: str, indices: Sequence[int]) -> MediaBatch:
        shape = self.clip_format
        num_frames = 1 if stage == "images" else shape.num_frames
        clips = [
            render(self.scene(stage, index), num_frames=num_frames, height=shape.height, width=shape.width, fps=shape.fps)
            for index in indices
        ]
        return MediaBatch(
            captions=[with_fps(clip.caption, shape.fps) if self.fps_prefix else clip.caption for clip in clips],
            keys=[f"toy-{stage}-{index:08d}" for index in indices],
            video=None if self.prompts_only else to_pixels(clips),
            fps=torch.full((len(clips),), float(shape.fps)),
            metadata=[describe(clip) for clip in clips],
        )


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


def describe(clip: ToyClip) -> dict[str, Any]:
    """A clip's metadata: its format, and under "scene" the ground truth for the oracle."""
    num_frames, height, width, _ = clip.video.shape
    return {
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "fps": clip.fps,
        "scene": clip.spec.to_dict(),
        "events": [{"kind": event.kind, "time_s": event.time_s, "object_index": event.object_index} for event in clip.events],
    }


def _same(batch: MediaBatch) -> MediaBatch:
    return batch
