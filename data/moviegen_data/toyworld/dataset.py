"""The toy world as a data module."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from moviegen_core.errors import UsageError
from moviegen_core.parallel.place import data_place
from moviegen_data.toyworld.scene import PLAIN_GROUNDS, Split
from moviegen_data.toyworld.stream import ResumableLoader, Told, ToyWorldStream
from moviegen_data.toyworld.world import World


class ToyWorldData(LightningDataModule):
    """Clips of moving shapes, silent or with sound, rendered while training; nothing is downloaded or stored. Predicts for held-out scenes.

    Args:
        num_frames: frames of a clip; 1 gives pictures.
        height: rows in pixels, at least 8.
        width: columns in pixels, at least 8.
        fps: frames per second.
        batch_size: clips per batch and rank.
        num_train: clips of a training epoch over all ranks.
        num_val: clips of a validation over all ranks; always the same ones.
        num_predict: prompts of a prediction over all ranks.
        image_every: every n-th training batch holds pictures of one frame (4 gives the paper's 1 : 3 of the autoencoder, 11 its 1 : 10
            of text-to-video); 0 for none.
        image_batch_size: pictures per picture batch; as many as clips unless given.
        num_workers: processes that render; 0 renders in the main one.
        seed: root of all randomness.
        num_objects: one or two objects per scene.
        grounds: kinds of ground to draw from: black, grey, white, stripes, checker, gradient.
        split: combinations of training and validation: "train", "held_out" or "all".
        predict_split: combinations of the prompts to predict for.
        text_probability: how often a word is written into the picture (and quoted in the caption), 0 to 1.
        spread: share of the ranges of radius, position and path length that is drawn from, 0 to 1; see `sample_scene`.
        audio_hz: samples per second of the sound, 48000 for the paper's; null renders none.
        knock_grid_hz: knocks sound at the nearest multiple of one over this; null leaves them exactly where they happen. See `World`.
        vary_timing: draw when objects bounce and when those that travel arrive; otherwise the sounds of all clips come at the same times.
        music: how often music plays in the sound, 0 to 1.
        captions: what the captions tell: "picture" what is seen, "sound" what is heard.
        predict_with: "prompts" predicts from captions alone, "video" from captions and silent pixels.
        fps_prefix: put the paper's "FPS-8" in front of the captions.
        fresh_epochs: every training epoch renders new scenes; otherwise the same ones return.
    """

    def __init__(
        self,
        *,
        num_frames: int = 16,
        height: int = 64,
        width: int = 64,
        fps: float = 8.0,
        batch_size: int = 16,
        num_train: int = 4096,
        num_val: int = 64,
        num_predict: int = 64,
        image_every: int = 0,
        image_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        num_objects: int = 1,
        grounds: Sequence[str] = PLAIN_GROUNDS,
        split: Split = "train",
        predict_split: Split = "held_out",
        text_probability: float = 0.0,
        spread: float = 1.0,
        audio_hz: int | None = None,
        knock_grid_hz: float | None = None,
        vary_timing: bool = False,
        music: float = 0.0,
        captions: Told = "picture",
        predict_with: Literal["prompts", "video"] = "prompts",
        fps_prefix: bool = False,
        fresh_epochs: bool = True,
    ) -> None:
        super().__init__()
        if not 0.0 <= text_probability <= 1.0:
            raise UsageError(f"text_probability={text_probability} was given", "a probability lies between 0 and 1", "give such a number")
        self.num_train, self.num_val, self.num_predict = num_train, num_val, num_predict
        self.batch_size, self.num_frames, self.height, self.width = batch_size, num_frames, height, width
        self.split, self.predict_split, self.num_workers = split, predict_split, num_workers
        self.fps, self.predict_with = fps, predict_with
        self.training = {"image_every": image_every, "image_batch_size": image_batch_size, "fresh_epochs": fresh_epochs}
        world: dict[str, Any] = {
            "num_frames": num_frames,
            "height": height,
            "width": width,
            "fps": fps,
            "seed": seed,
            "num_objects": num_objects,
            "grounds": tuple(grounds),
            "text_probability": text_probability,
            "spread": spread,
            "vary_timing": vary_timing,
            "music": music,
            "audio_hz": audio_hz,
            "knock_grid_hz": knock_grid_hz,
        }
        World(**world, split=split).check()
        self.common: dict[str, Any] = {**world, "batch_size": batch_size, "captions": captions, "fps_prefix": fps_prefix}

    def train_dataloader(self) -> ResumableLoader:
        """Clips (and pictures) of the training split."""
        stream = self.stream(stage="train", num_samples=self.num_train, split=self.split, **self.training)
        loader = ResumableLoader(stream, num_workers=self.num_workers)
        loader.used = None if self.trainer is None else lambda: self.trainer.num_training_batches
        return loader

    def val_dataloader(self) -> ResumableLoader:
        """Other clips of the training split, the same at every validation."""
        return self._fixed("val", self.num_val, self.split)

    def test_dataloader(self) -> ResumableLoader:
        """Clips of the predicted split, with pixels and sound."""
        return self._fixed("predict", self.num_predict, self.predict_split)

    def predict_dataloader(self) -> DataLoader:
        """Prompts, with silent pixels where `predict_with` says so, in a loader that Lightning can build anew, as it does."""
        media = "none" if self.predict_with == "prompts" else "video"
        loader = self._fixed("predict", self.num_predict, self.predict_split, media=media)
        return DataLoader(loader.dataset, batch_size=None, num_workers=self.num_workers, collate_fn=loader.collate_fn)

    def stream(self, **settings: Any) -> ToyWorldStream:
        """A stream for this process; `settings` are those of `ToyWorldStream` and `World`."""
        place = data_place(self.trainer)
        return ToyWorldStream(**{**self.common, **settings}, rank=place.rank, world_size=place.count)

    def _fixed(self, stage: str, num_samples: int, split: Split, **settings: Any) -> ResumableLoader:
        stream = self.stream(stage=stage, num_samples=num_samples, split=split, fresh_epochs=False, drop_last=False, **settings)
        return ResumableLoader(stream, num_workers=self.num_workers)
