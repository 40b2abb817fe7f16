"""`moviegen data inspect`: what shards hold, what in them is bad, and which batches would come of them."""

import json as json_format
from collections import Counter
from statistics import median
from typing import Any, Literal

from tqdm import tqdm

from moviegen_core.errors import UsageError
from moviegen_data.audio import EXTENSIONS as SOUNDS
from moviegen_data.buckets import Bucket, paper_buckets
from moviegen_data.decoding import VIDEOS, geometry, has_video
from moviegen_data.faults import SampleError, Skip
from moviegen_data.forecast import Forecast, forecast_lines
from moviegen_data.image import EXTENSIONS as IMAGES
from moviegen_data.image import open_picture
from moviegen_data.limits import MediaLimits
from moviegen_data.reader import Sample, ShardReader
from moviegen_data.sound import check_sound
from moviegen_data.tensors import latent_header, read_latent, read_text, read_visual
from moviegen_data.urls import shown
from moviegen_data.video import VideoDecoder
from moviegen_data.wording import counted


def inspect(
    path: str,
    *,
    json: bool = False,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    buckets: list[Bucket] | Literal["paper_256", "paper_768"] | None = None,
    batch_size: int = 4,
    num_ranks: int = 1,
    decode: bool = False,
    limits: MediaLimits | None = None,
) -> dict[str, Any]:
    """Tell what shards hold: counts, sizes, durations, resolutions, parts, bad members, and the batches of given buckets.

    Args:
        path: a shard, a folder of shards, a glob or a brace range.
        json: print one json document instead of lines for people.
        num_frames: frames of a clip, to count the batches of this one shape.
        height: rows in pixels, likewise.
        width: columns in pixels, likewise.
        fps: frames per second of a clip, likewise; the file's own rate unless given.
        buckets: shapes of batches to count, in place of the four above: a list, or the 25 of the paper (Table 2, five aspect ratios) at
            an area of 256 x 256 or 768 x 768 pixels.
        batch_size: samples in a batch on each rank.
        num_ranks: ranks that share the samples.
        decode: decode every video to its end; otherwise only its first frame.
        limits: the largest media that are decoded; larger ones are bad samples.

    Raises:
        UsageError: a shard is missing or there is no sample at all, or a size is given without the others.
    """
    sizes = (num_frames, height, width)
    if any(size is not None for size in sizes) and (None in sizes or buckets):
        raise UsageError(f"num_frames, height, width = {sizes} were given", "the three come together, without buckets", "give all of them")
    if isinstance(buckets, str):
        buckets = paper_buckets(area_px=int(buckets.removeprefix("paper_")) ** 2)
    shapes = buckets or ([] if num_frames is None else [Bucket(num_frames=num_frames, height=height, width=width, fps=fps)])
    limits = limits or MediaLimits()
    reader = ShardReader(path, limits=limits)
    forecast = Forecast(shapes, batch_size, num_ranks, grouped=bool(buckets)) if shapes else None
    found = _Findings(forecast, decode, limits)
    for number in tqdm(range(len(reader)), desc="inspecting", unit="sample", disable=True if json else None):
        try:
            sample = reader[number]
        except SampleError as error:
            found.lose(reader, number, None, error)
            continue
        bucket, cause = found.bucket_of(sample)
        try:
            found.look(sample)
            found.count(sample.key, bucket, cause)
        except SampleError as error:
            found.lose(reader, number, bucket, error)
    answer = {
        "path": shown(str(path)),
        "schema": 1,
        "num_shards": len(reader.paths),
        "num_samples": len(reader),
        "num_bytes": reader.num_bytes,
        **found.as_dict(),
        "bad": [vars(skip) for skip in reader.report.skips.values()],
        **(forecast.as_dict() if forecast is not None else {"batches": []}),
    }
    print(json_format.dumps(answer) if json else _lines(answer, num_ranks))
    return answer


class _Findings:
    """What the samples have in common and what not."""

    def __init__(self, forecast: Forecast | None, decode: bool, limits: MediaLimits) -> None:
        self.forecast, self.decode, self.limits = forecast, decode, limits
        self.videos = VideoDecoder(limits=limits)
        self.parts: Counter[str] = Counter()
        self.resolutions: Counter[str] = Counter()
        self.rates: Counter[str] = Counter()
        self.latents: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()
        self.sounds: Counter[str] = Counter()
        self.durations: list[float] = []
        self.num_captions = 0

    def bucket_of(self, sample: Sample) -> tuple[int | None, str]:
        """The bucket that a loader would plan a sample for, before it decodes anything; or why there is none."""
        if self.forecast is None:
            return None, ""
        try:
            height, width, duration_s = geometry(sample, self.videos)
            return self.forecast.bucket_of(height=height, width=width, duration_s=duration_s, is_video=has_video(sample))
        except SampleError as error:
            return None, error.cause

    def count(self, key: str, bucket: int | None, cause: str) -> None:
        """Count a sample for the batches."""
        if self.forecast is not None:
            self.forecast.add(key, bucket, cause)

    def lose(self, reader: ShardReader, number: int, bucket: int | None, error: SampleError) -> None:
        """Note a bad sample."""
        place, key = reader.name(number)
        reader.report.add(Skip(place, key, error.cause, error.detail))
        self.count(key, bucket, error.cause)

    def look(self, sample: Sample) -> None:
        """Count one sample; one that cannot be used raises."""
        self.parts.update(list(sample))
        record = sample.metadata
        self.num_captions += bool(record.get("caption"))
        if "latent.safetensors" in sample:
            data = sample.buffer("latent.safetensors")
            read_latent(data)
            self.latents["x".join(map(str, latent_header(data)[0]))] += 1
        if "text.safetensors" in sample:
            self.texts.update(list(read_text(sample["text.safetensors"])))
        if "visual.safetensors" in sample:
            read_visual(sample["visual.safetensors"])
        for extension in sample:
            self._decode(sample, extension)
        if any(extension in sample for extension in (*VIDEOS, *IMAGES)):
            self._size(sample)
        elif not any(extension in sample for extension in (*SOUNDS, "latent.safetensors", "text.safetensors")):
            raise SampleError("no video or picture", f"it has {', '.join(sample)}")

    def _size(self, sample: Sample) -> None:
        height, width, duration_s = geometry(sample, self.videos)
        self.resolutions[f"{width}x{height}"] += 1
        rate = sample.metadata.get("fps")
        if isinstance(rate, (int, float)):
            self.rates[f"{rate:g}"] += 1
        if duration_s is not None:
            self.durations.append(duration_s)

    def _decode(self, sample: Sample, extension: str) -> None:
        if extension in VIDEOS:
            self.videos.count(sample[extension]) if self.decode else self.videos.probe(sample[extension])
        elif extension in IMAGES:
            open_picture(sample[extension], self.limits)
        elif extension in SOUNDS:
            facts = check_sound(sample[extension], self.limits)
            self.sounds[f"{facts['audio_hz']} Hz, {facts['num_channels']} ch"] += 1
            if not any(other in sample for other in VIDEOS):
                self.durations.append(facts["duration_s"])

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        durations = sorted(self.durations)
        spread = {"min": durations[0], "median": median(durations), "max": durations[-1], "total": sum(durations)} if durations else {}
        return {
            "parts": dict(self.parts.most_common()),
            "num_with_caption": self.num_captions,
            "duration_s": spread,
            "resolutions": dict(self.resolutions.most_common()),
            "fps": dict(self.rates.most_common()),
            "latent_shapes": dict(self.latents.most_common()),
            "text_embeddings": dict(self.texts.most_common()),
            "sounds": dict(self.sounds.most_common()),
        }


def _lines(answer: dict[str, Any], num_ranks: int) -> str:
    spread = answer["duration_s"]
    size = f"{counted(answer['num_samples'], 'sample')} in {counted(answer['num_shards'], 'shard')}"
    lines = [
        f"{answer['path']}: {size}, {answer['num_bytes'] / 1e6:.1f} MB",
        f"  parts         {_counts(answer['parts'])}",
        f"  with caption  {answer['num_with_caption']}",
    ]
    if spread:
        lines.append(
            f"  seconds       {spread['min']:.2f} to {spread['max']:.2f}, median {spread['median']:.2f}, together {spread['total']:.1f}"
        )
    for title, name in (
        ("pixels", "resolutions"),
        ("fps", "fps"),
        ("latents", "latent_shapes"),
        ("texts", "text_embeddings"),
        ("sounds", "sounds"),
    ):
        if answer[name]:
            lines.append(f"  {title:<13} {_counts(answer[name])}")
    if answer["batches"]:
        lines += forecast_lines(answer, num_ranks)
    for bad in answer["bad"]:
        lines.append(f"  BAD {bad['key']} of {bad['place']}: {bad['cause']}" + (f" ({bad['detail']})" if bad["detail"] else ""))
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    shown = [f"{name} x {count}" for name, count in list(counts.items())[:8]]
    return ", ".join(shown) + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")
