"""The toy world as ordinary media: an iterator for writers of shards, and a folder of mp4 files with captions."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from moviegen_core.files import write_bytes
from moviegen_core.media.images import png_bytes
from moviegen_core.media.video import encode_video
from moviegen_data.toyworld.renderer import ToyClip, render
from moviegen_data.toyworld.sampling import sample_scene
from moviegen_data.toyworld.scene import PLAIN_GROUNDS, Split
from moviegen_data.toyworld.stream import describe, scene_seed, to_pixels


def render_scenes(
    num_clips: int,
    *,
    num_frames: int = 16,
    height: int = 64,
    width: int = 64,
    fps: float = 8.0,
    seed: int = 0,
    num_objects: int = 1,
    grounds: Sequence[str] = PLAIN_GROUNDS,
    split: Split = "train",
    text_probability: float = 0.0,
    spread: float = 1.0,
    stage: str = "folder",
) -> Iterator[tuple[str, ToyClip]]:
    """Render scenes one after the other, as (key, clip).

    Args:
        num_clips: how many.
        num_frames: frames of a clip; 1 gives pictures.
        height: rows in pixels.
        width: columns in pixels.
        fps: frames per second.
        seed: root of all randomness.
        num_objects: one or two objects per scene.
        grounds: kinds of ground to draw from.
        split: "train" leaves the held-out combinations out.
        text_probability: how often a word is written into the picture.
        spread: share of the ranges of radius, position and path length that is drawn from, 0 to 1; see `sample_scene`.
        stage: scenes of different stages differ: "train", "val", "predict", "images", "folder".
    """
    for index in range(num_clips):
        spec = sample_scene(
            scene_seed(seed, stage, index),
            num_objects=num_objects,
            grounds=grounds,
            split=split,
            text_probability=text_probability,
            spread=spread,
        )
        yield f"toy-{stage}-{index:08d}", render(spec, num_frames=num_frames, height=height, width=width, fps=fps)


def write_media_folder(
    folder: str | Path,
    *,
    num_clips: int = 64,
    num_frames: int = 16,
    height: int = 64,
    width: int = 64,
    fps: float = 8.0,
    seed: int = 0,
    num_objects: int = 1,
    grounds: Sequence[str] = PLAIN_GROUNDS,
    split: Split = "train",
    text_probability: float = 0.0,
    spread: float = 1.0,
) -> Path:
    """Write scenes as ordinary mp4 (png for one frame) files, captions.csv (file, caption) and ground_truth.jsonl; return the folder.

    Args:
        folder: where to; made where it is absent. The two tables are written last, so a folder that has them is whole.
        num_clips: how many.
        num_frames: frames of a clip; 1 gives pictures.
        height: rows in pixels; an odd number gains a row in mp4.
        width: columns in pixels; an odd number gains a column in mp4.
        fps: frames per second.
        seed: root of all randomness.
        num_objects: one or two objects per scene.
        grounds: kinds of ground to draw from.
        split: "train" leaves the held-out combinations out.
        text_probability: how often a word is written into the picture.
        spread: share of the ranges of radius, position and path length that is drawn from, 0 to 1; see `sample_scene`.
    """
    folder = Path(folder)
    rows, truths = io.StringIO(newline=""), []
    table = csv.writer(rows)
    table.writerow(["file", "caption"])
    scenes = render_scenes(
        num_clips, num_frames=num_frames, height=height, width=width, fps=fps,
        seed=seed, num_objects=num_objects, grounds=grounds, split=split, text_probability=text_probability, spread=spread,
    )  # fmt: skip
    for key, clip in scenes:
        name = f"{key}.png" if num_frames == 1 else f"{key}.mp4"
        if num_frames == 1:
            write_bytes(folder / name, png_bytes(Image.fromarray(clip.video[0])))
        else:
            write_bytes(folder / name, encode_video(to_pixels([clip])[0], fps=fps, crf=10))
        table.writerow([name, clip.caption])
        truths.append(json.dumps({"file": name, "scene": clip.spec.to_dict()}))
    write_bytes(folder / "ground_truth.jsonl", "\n".join([*truths, ""]).encode())
    write_bytes(folder / "captions.csv", rows.getvalue().encode())
    return folder


def encode_sample(clip: ToyClip) -> dict[str, Any]:
    """A clip as the parts of a shard's sample: its mp4, and its json with the scene as ground truth."""
    return {
        "mp4": encode_video(to_pixels([clip])[0], fps=clip.fps, crf=10),
        "json": {"caption": clip.caption, "source": "toy world", **describe(clip)},
    }
