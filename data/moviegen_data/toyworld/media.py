"""The toy world as ordinary media: an iterator for writers of shards, and a folder of mp4 files with captions."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from moviegen_core.files import write_bytes
from moviegen_core.media.images import png_bytes
from moviegen_core.media.video import encode_video
from moviegen_data.toyworld.renderer import ToyClip
from moviegen_data.toyworld.sound_captions import sound_caption
from moviegen_data.toyworld.stream import describe, to_pixels
from moviegen_data.toyworld.world import World, clip_key


def render_scenes(num_clips: int, *, stage: str = "folder", **settings: Any) -> Iterator[tuple[str, ToyClip]]:
    """Render scenes one after the other, as (key, clip).

    Args:
        num_clips: how many.
        stage: scenes of different stages differ: "train", "val", "predict", "images", "folder".
        settings: those of `World`.
    """
    world = World(**settings)
    world.check()
    for index in range(num_clips):
        yield clip_key(stage, index), world.clip(stage, index)


def write_media_folder(folder: str | Path, *, num_clips: int = 64, **settings: Any) -> Path:
    """Write scenes as ordinary mp4 (png for one frame) files, captions.csv and ground_truth.jsonl; return the folder.

    The columns of captions.csv are file and caption, and sound_caption where there is sound; each line of ground_truth.jsonl has file,
    scene and events.

    Args:
        folder: where to; made where it is absent. The two tables are written last, so a folder that has them is whole.
        num_clips: how many.
        settings: those of `World`; an odd height or width gains a row or column in mp4. With `audio_hz` the files have sound.
    """
    folder = Path(folder)
    has_sound = settings.get("audio_hz") is not None
    rows, truths = io.StringIO(newline=""), []
    table = csv.writer(rows)
    table.writerow(["file", "caption"] + ["sound_caption"] * has_sound)
    for key, clip in render_scenes(num_clips, **settings):
        is_image = len(clip.video) == 1
        name = f"{key}.png" if is_image else f"{key}.mp4"
        write_bytes(folder / name, png_bytes(Image.fromarray(clip.video[0])) if is_image else _encode(clip))
        table.writerow([name, clip.caption] + [sound_caption(clip.spec)] * has_sound)
        described = describe(clip)
        truths.append(json.dumps({"file": name, "scene": described["scene"], "events": described["events"]}))
    write_bytes(folder / "ground_truth.jsonl", "\n".join([*truths, ""]).encode())
    write_bytes(folder / "captions.csv", rows.getvalue().encode())
    return folder


def encode_sample(clip: ToyClip) -> dict[str, Any]:
    """A clip as the parts of a shard's sample: its mp4, with sound where it has one, and its json with the scene as ground truth."""
    return {"mp4": _encode(clip), "json": {"caption": clip.caption, "source": "toy world", **describe(clip)}}


def _encode(clip: ToyClip) -> bytes:
    audio = None if clip.audio is None else torch.from_numpy(clip.audio)
    return encode_video(to_pixels([clip])[0], fps=clip.fps, audio=audio, audio_hz=clip.audio_hz, crf=10)
