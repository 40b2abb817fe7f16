"""Which samples belong to which bucket, told before anything is decoded."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moviegen_data.buckets import Bucket, assign, why_none
from moviegen_data.decoding import geometry, has_video
from moviegen_data.faults import SampleError, Skip
from moviegen_data.limits import MediaLimits
from moviegen_data.reader import ShardReader
from moviegen_data.tensors import HEADER_BYTES, latent_header
from moviegen_data.video import VideoDecoder


def group_by_bucket(reader: ShardReader, buckets: Sequence[Bucket], limits: MediaLimits | None = None) -> list[np.ndarray]:
    """Sample numbers of each bucket; sizes come from the samples' json, or from the media where it does not say.

    Samples that fit no bucket are noted in the reader's report.
    """
    videos = VideoDecoder(limits=limits)
    chosen: list[list[int]] = [[] for _ in buckets]
    for number in range(len(reader)):
        try:
            sample = reader[number]
            height, width, duration_s = geometry(sample, videos)
            is_video = has_video(sample)
        except SampleError as error:
            reader.report.add(Skip(*reader.name(number), error.cause, error.detail))
            continue
        bucket = assign(buckets, height=height, width=width, duration_s=duration_s, is_video=is_video)
        if bucket is None:
            why = why_none(buckets, duration_s=duration_s, is_video=is_video)
            reader.report.add(Skip(*reader.name(number), "no bucket takes it", f"{why}; {height}x{width} px, {duration_s} s"))
        else:
            chosen[bucket].append(number)
    return [np.asarray(numbers, dtype=np.int64) for numbers in chosen]


def group_by_latent_shape(reader: ShardReader) -> dict[tuple[int, ...], np.ndarray]:
    """Sample numbers by the shape of their cached latents, (c, t, h, w) or (c, t); the index tells it for shards of one shape."""
    groups: dict[tuple[int, ...], list[np.ndarray]] = {}
    first = 0
    for path, count in zip(reader.paths, reader.counts, strict=True):
        shapes = _told_shapes(reader.index.get(path, {}))
        numbers = np.arange(first, first + count)
        if len(shapes) == 1:
            groups.setdefault(shapes[0], []).append(numbers)
        else:
            for number in numbers:
                shape = _latent_shape(reader, int(number))
                if shape is not None:
                    groups.setdefault(shape, []).append(np.asarray([number]))
        first += count
    return {shape: np.concatenate(groups[shape]) for shape in sorted(groups)}


def latent_bucket(shape: tuple[int, ...]) -> Bucket:
    """The shape of batches of latents (c, t, h, w) of videos, or (c, t) of sounds."""
    height, width = shape[2:] or (1, 1)
    return Bucket(num_frames=shape[1], height=height, width=width)


def _told_shapes(entry: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """The shapes of a shard's latents by the index; none where it says what cannot be."""
    told = entry.get("latent_shapes", [])
    try:
        shapes = [tuple(shape) for shape in told]
    except TypeError:
        return []
    usable = all(len(shape) in (2, 4) and all(type(size) is int and size > 0 for size in shape) for shape in shapes)
    return shapes if usable else []


def _latent_shape(reader: ShardReader, number: int) -> tuple[int, ...] | None:
    try:
        sample = reader[number]
        if "latent.safetensors" not in sample:
            raise SampleError("no cached latent", f"it has {', '.join(sample)}")
        return latent_header(sample.head("latent.safetensors", HEADER_BYTES))[0]
    except SampleError as error:
        reader.report.add(Skip(*reader.name(number), error.cause, error.detail))
        return None
