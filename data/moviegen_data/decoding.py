"""From a sample's bytes to what a batch is made of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from moviegen_core.prompts import with_camera_motion, with_fps
from moviegen_data.buckets import Bucket
from moviegen_data.faults import SampleError
from moviegen_data.image import EXTENSIONS as IMAGES
from moviegen_data.image import decode_picture
from moviegen_data.limits import MediaLimits
from moviegen_data.reader import Sample
from moviegen_data.rows import LatentRows
from moviegen_data.tensors import HEADER_BYTES, latent_header, read_latent, read_text, require_finite, text_origin
from moviegen_data.video import VideoDecoder

VIDEOS = ("mp4", "webm", "mkv", "mov", "avi", "m4v")
_MOST = 1e9  # seconds, pixels or frames per second; no medium has more
ClipPosition = Literal["random", "first", "middle"]


@dataclass
class Decoded:
    """One sample, ready to be joined with others.

    Args:
        key: the sample's key.
        caption: its text, prefixes included.
        metadata: its json, with `start_s` and `sampled_fps` of the clip.
        fps: frames per second of the clip; None for pictures.
        latent: cached latent, (c, t, h, w) of a video or (c, t) of a sound; None where the medium itself was asked for.
        text: precomputed text embeddings by the conditioner's name: tokens (l, d), mask (l,).
        extras: tensors of other capabilities by name.
        audio: waveform (a, s), or None.
        audio_hz: its samples per second, or None.
    """

    key: str
    caption: str
    metadata: dict[str, Any]
    fps: float | None
    latent: Float[Tensor, "c t ..."] | None = None
    text: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    audio: Float[Tensor, "a s"] | None = None
    audio_hz: int | None = None


class SampleDecoder:
    """Decodes samples. A capability with further parts (reference faces, source videos) subclasses it and returns them from `extras`.

    Args:
        latents: read cached latents instead of pixels.
        text: read precomputed text embeddings.
        fps_prefix: put the sampling rate before the caption of a video, "FPS-16 a caption" (3.1.4).
        camera_prefix: put the json's `camera_motion` before the caption (3.2.1, B.2).
        require_caption: a sample without a caption is a bad sample.
        clip_position: where in a longer video the clip starts.
        num_threads: threads of the video codec.
        encoded: sizes (`frames`, `height`, `width`) of the clips that latents must have been made from, where their json says it.
        limits: the largest media that are decoded.
    """

    def __init__(
        self,
        *,
        latents: bool = False,
        text: bool = False,
        fps_prefix: bool = False,
        camera_prefix: bool = False,
        require_caption: bool = False,
        clip_position: ClipPosition = "random",
        num_threads: int = 1,
        encoded: Mapping[str, int] | None = None,
        limits: MediaLimits | None = None,
    ) -> None:
        self.limits = limits or MediaLimits()
        self.encoded = dict(encoded or {})
        self.latents, self.text = latents, text
        self.fps_prefix, self.camera_prefix, self.require_caption = fps_prefix, camera_prefix, require_caption
        self.clip_position = clip_position
        self.num_threads = num_threads
        self._videos: VideoDecoder | None = None

    def __call__(
        self, sample: Sample, bucket: Bucket, out: Shaped[Tensor, "3 t h w"] | LatentRows | None, seed: tuple[int, ...]
    ) -> Decoded:
        """Decode one sample; its pixels go into `out`, as floats in [-1, 1] or as bytes, or its latent into the next row.

        Raises:
            SampleError: the sample cannot be used.
        """
        metadata = dict(sample.metadata)
        latent = None
        if self.latents:
            latent, fps = self._latent(sample, metadata, out)
        else:
            fps = self._pixels(sample, bucket, out, metadata, seed)
        return Decoded(
            key=sample.key,
            caption=self.caption(sample, metadata, fps),
            metadata=metadata,
            fps=fps,
            latent=latent,
            text=self._text(sample, metadata) if self.text else {},
            extras=self.extras(sample, metadata),
        )

    def pixel_shape(self, bucket: Bucket) -> tuple[int, int, int] | None:
        """Frames, rows and columns that are decoded for a sample of a bucket; None where no pixels are."""
        return None if self.latents else (bucket.num_frames, bucket.height, bucket.width)

    def num_bytes(self, sample: Sample, bucket: Bucket) -> int:
        """Bytes that a sample takes on its way from a worker; what is small beside pixels, latents and sounds is not counted."""
        shape = self.pixel_shape(bucket)
        if self.latents:
            return sample.size("latent.safetensors") if "latent.safetensors" in sample else 0
        return 0 if shape is None else 3 * math.prod(shape)  # workers hand over bytes

    def extras(self, sample: Sample, metadata: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Further tensors of a sample by name; of equal shape in all samples of a batch. None here."""
        return {}

    def caption(self, sample: Sample, metadata: Mapping[str, Any], fps: float | None) -> str:
        """The caption with the prefixes that were asked for."""
        caption = metadata.get("caption")
        if self.require_caption and not (isinstance(caption, str) and caption.strip()):
            raise SampleError("no caption")
        caption = caption if isinstance(caption, str) else ""
        if self.camera_prefix and metadata.get("camera_motion"):
            try:
                caption = with_camera_motion(caption, str(metadata["camera_motion"]))
            except ValueError as error:
                raise SampleError("unknown camera motion", str(metadata["camera_motion"])) from error
        return with_fps(caption, fps) if self.fps_prefix and fps is not None else caption

    def _pixels(self, sample: Sample, bucket: Bucket, out: Tensor, metadata: dict[str, Any], seed: tuple[int, ...]) -> float | None:
        for extension in VIDEOS:
            if extension in sample:
                return self._video(sample[extension], bucket, out, metadata, seed)
        for extension in IMAGES:
            if extension in sample:
                if bucket.num_frames > 1:
                    raise SampleError("too short", f"a picture, where {bucket.num_frames} frames are wanted")
                decode_picture(sample[extension], out, self.limits)
                return None
        raise SampleError("no video or picture", f"it has {', '.join(sample) or 'nothing'}")

    def _video(self, data: bytes, bucket: Bucket, out: Tensor, metadata: dict[str, Any], seed: tuple[int, ...]) -> float | None:
        rate = bucket.rate(number_of(metadata.get("duration_s")))
        span = self.videos.decode(data, out, fps=rate, position=self.position(seed))
        metadata |= {"start_s": span.start_s, "sampled_fps": span.fps}
        return None if bucket.num_frames == 1 else span.fps

    @property
    def videos(self) -> VideoDecoder:
        """The decoder of videos, made when it is first used."""
        if self._videos is None:
            self._videos = VideoDecoder(num_threads=self.num_threads, limits=self.limits)
        return self._videos

    def position(self, seed: tuple[int, ...]) -> float:
        """Where in a longer file a clip starts, 0 (its beginning) to 1 (as late as the clip fits)."""
        if self.clip_position == "random":
            return float(np.random.default_rng(seed).random())
        return 0.5 if self.clip_position == "middle" else 0.0

    def _latent(self, sample: Sample, metadata: dict[str, Any], out: LatentRows | None) -> tuple[Tensor, float | None]:
        if "latent.safetensors" not in sample:
            raise SampleError("no cached latent", f"it has {', '.join(sample)}")
        latent, metadata["latent"] = _read_latent(sample, out)
        encoded = encoded_of(metadata)
        other = {name: encoded[name] for name, size in self.encoded.items() if encoded.get(name, size) != size}
        if other:
            raise SampleError(
                "latent of a clip of another size", ", ".join(f"{name} {value}, not {self.encoded[name]}" for name, value in other.items())
            )
        clip = encoded or metadata
        return latent, None if clip.get("frames") == 1 else number_of(clip.get("fps"))

    def _text(self, sample: Sample, metadata: dict[str, Any]) -> Mapping[str, tuple[Tensor, Tensor]]:
        if "text.safetensors" not in sample:
            raise SampleError("no text embeddings", f"it has {', '.join(sample)}")
        data = sample["text.safetensors"]
        metadata["text_embeddings"] = text_origin(data)
        return read_text(data)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_videos": None}


def _read_latent(sample: Sample, rows: LatentRows | None) -> tuple[Tensor, dict[str, str]]:
    """A latent and its metadata, read into the batch's own memory where there are rows."""
    size, row = sample.size("latent.safetensors"), None
    if rows is not None:
        try:
            shape, dtype, told, first = latent_header(sample.head("latent.safetensors", HEADER_BYTES))
        except SampleError:  # perhaps a header that is longer
            shape = ()
        if len(shape) in (2, 4) and first + math.prod(shape) * dtype.itemsize <= size:
            row = rows.next(shape, dtype)
    if row is None:
        data = sample.buffer("latent.safetensors")
        return read_latent(data), latent_header(data)[2]
    sample.read_into("latent.safetensors", row.view(-1).view(torch.uint8).numpy(), first)
    require_finite(row.view(-1), shape)
    return row, told


def has_video(sample: Sample) -> bool:
    """True where a sample has a video, so that clips of several frames can come of it."""
    return any(extension in sample for extension in VIDEOS)


def geometry(sample: Sample, videos: VideoDecoder) -> tuple[int, int, float | None]:
    """Rows, columns and seconds of a sample as shown: from its json, or from the media where that says nothing, or what cannot be."""
    record = sample.metadata
    height, width, duration = (number_of(record.get(name)) for name in ("height", "width", "duration_s"))
    if height and width and min(height, width) >= 1:
        return int(height), int(width), duration
    for extension in VIDEOS:
        if extension in sample:
            info = videos.probe(sample[extension])
            return info.height, info.width, info.duration_s
    for extension in IMAGES:
        if extension in sample:
            from moviegen_data.image import open_picture

            picture = open_picture(sample[extension], videos.limits)
            return picture.height, picture.width, None
    raise SampleError("no video or picture", f"it has {', '.join(sample) or 'nothing'}")


def encoded_of(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a sample's json says of the clip that its latent was made from.

    Raises:
        SampleError: it is no mapping.
    """
    encoded = metadata.get("encoded") or {}
    if not isinstance(encoded, Mapping):
        raise SampleError("the json cannot be read", f"`encoded` is a {type(encoded).__name__}, not a mapping")
    return encoded


def number_of(value: Any) -> float | None:
    """A json's value as a number above 0 that can be, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # json has no largest number
        return None
    return number if 0 < number <= _MOST else None
