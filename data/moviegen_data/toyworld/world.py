"""The settings of a toy world in one record: what is drawn, and how it is rendered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moviegen_core.errors import UsageError
from moviegen_data.toyworld.renderer import ToyClip, render
from moviegen_data.toyworld.sampling import sample_scene
from moviegen_data.toyworld.scene import PLAIN_GROUNDS, SceneSpec, Split

STAGES = ("train", "val", "predict", "images", "folder")


@dataclass(frozen=True, kw_only=True)
class World:
    """What is drawn at random, and how it is rendered.

    Args:
        num_frames: frames of a clip; 1 gives pictures.
        height: rows in pixels, at least 8.
        width: columns in pixels, at least 8.
        fps: frames per second.
        seed: root of all randomness.
        num_objects: one or two objects per scene.
        grounds: kinds of ground to draw from.
        split: "train" leaves the held-out combinations out, "held_out" has nothing else, "all" has both.
        text_probability: how often a word is written into the picture (and quoted in the caption), 0 to 1.
        spread: share of the ranges of radius, position and path length that is drawn from, 0 to 1; see `sample_scene`.
        vary_timing: draw when objects bounce and when those that travel arrive; see `sample_scene`.
        music: how often music plays in a clip's sound, 0 to 1.
        audio_hz: samples per second of the sound; None renders none.
        knock_grid_hz: knocks sound at the nearest multiple of one over this instead of exactly where they happen, and every burst of noise
            is the same one. At 25 a knock gives the same latent frames wherever it is: a smaller world, learnt with fewer samples.
    """

    num_frames: int = 16
    height: int = 64
    width: int = 64
    fps: float = 8.0
    seed: int = 0
    num_objects: int = 1
    grounds: Sequence[str] = PLAIN_GROUNDS
    split: Split = "train"
    text_probability: float = 0.0
    spread: float = 1.0
    vary_timing: bool = False
    music: float = 0.0
    audio_hz: int | None = None
    knock_grid_hz: float | None = None

    def scene(self, stage: str, index: int) -> SceneSpec:
        """The index-th scene of a stage."""
        return self._draw(scene_seed(self.seed, stage, index))

    def clip(self, stage: str, index: int) -> ToyClip:
        """The index-th clip of a stage; "images" are clips of one frame, and silent."""
        is_image = stage == "images"
        return render(
            self.scene(stage, index),
            num_frames=1 if is_image else self.num_frames,
            height=self.height,
            width=self.width,
            fps=self.fps,
            audio_hz=None if is_image else self.audio_hz,
            knock_grid_hz=self.knock_grid_hz,
        )

    def check(self) -> None:
        """Refuse what the toy world does not have, before anything is rendered."""
        if self.knock_grid_hz is not None and self.audio_hz is None:
            given = f"knock_grid_hz={self.knock_grid_hz:g} was given without audio_hz"
            raise UsageError(given, "no sound is rendered", "give audio_hz, e.g. 48000, or leave knock_grid_hz out")
        self._draw(0)
        sound = {"audio_hz": self.audio_hz, "knock_grid_hz": self.knock_grid_hz}
        render(self._draw(0), num_frames=1, height=self.height, width=self.width, fps=self.fps, **sound)

    def _draw(self, seed: int) -> SceneSpec:
        return sample_scene(
            seed,
            num_objects=self.num_objects,
            grounds=self.grounds,
            split=self.split,
            text_probability=self.text_probability,
            spread=self.spread,
            vary_timing=self.vary_timing,
            music=self.music,
        )


def scene_seed(seed: int, stage: str, index: int) -> int:
    """The seed of a stage's index-th scene; no two stages share scenes."""
    state = np.random.SeedSequence([seed, STAGES.index(stage), index]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def clip_key(stage: str, index: int) -> str:
    """The unique name of a stage's index-th clip."""
    return f"toy-{stage}-{index:08d}"
