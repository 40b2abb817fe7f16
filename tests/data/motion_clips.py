"""Rendered clips with known answers, and measures without a file."""

from pathlib import Path
from typing import Any

import numpy as np

from moviegen_data.curation.measures import Measures


def texture(height: int = 96, width: int = 160, seed: int = 0, least: int = 40, most: int = 216) -> np.ndarray:
    """Smooth noise of one hue, so that motion estimation has something to hold on to."""
    values = np.random.default_rng(seed).random((height // 8 + 2, width // 8 + 2, 1)) * np.array([1.0, 0.8, 0.6])
    rows, columns = np.arange(height) / 8, np.arange(width) / 8
    r, c = rows.astype(int), columns.astype(int)
    wr, wc = (rows - r)[:, None, None], (columns - c)[None, :, None]
    top = values[r][:, c] * (1 - wc) + values[r][:, c + 1] * wc
    bottom = values[r + 1][:, c] * (1 - wc) + values[r + 1][:, c + 1] * wc
    return (least + (most - least) * (top * (1 - wr) + bottom * wr)).astype(np.uint8)


def pan(num_frames: int, step: int, *, height: int = 96, width: int = 160, seed: int = 0, least: int = 40, most: int = 216) -> np.ndarray:
    """A camera that moves by `step` pixels a frame over a texture."""
    wide = texture(height, width + abs(step) * num_frames, seed, least, most)
    return np.stack([wide[:, number * step : number * step + width] for number in range(num_frames)])


def hold(num_frames: int, **settings: int) -> np.ndarray:
    """One picture all the time."""
    return np.repeat(texture(**settings)[None], num_frames, 0)


def file_of(folder: Path, media_maker: Any, frames: np.ndarray, *, name: str = "clip.mp4", **settings: object) -> Path:
    """The frames as a file."""
    path = folder / name
    path.write_bytes(media_maker.encode_clip(frames, **{"fps": 10, "keyframe_every": 250, **settings}))
    return path


def measures_of(times_s: list[float], end_s: float, **columns: object) -> Measures:
    """Measures with the given columns; the others are zeros."""
    count = len(times_s)
    zeros = {name: np.zeros(count, np.float32) for name in ("scene_score", "motion", "vector_px", "content")}
    rest = {"luma": np.full(count, 100, np.float32), "cells": np.zeros((count, 9, 16), np.uint8)}
    columns = {**zeros, **rest, **{name: np.asarray(column) for name, column in columns.items()}}
    return Measures(times_s=np.array(times_s), start_s=0.0, end_s=end_s, width=160, height=96, vectors="exported", **columns).between(0.0)
