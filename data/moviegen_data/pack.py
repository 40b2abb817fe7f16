"""`moviegen data pack`: a folder of media and their captions become shards."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from moviegen_core.errors import UsageError
from moviegen_core.files import write_bytes
from moviegen_data.audio import EXTENSIONS as SOUNDS
from moviegen_data.audio import AudioDecoder
from moviegen_data.captions import read_captions
from moviegen_data.faults import SampleError, Skip, SkipReport, logger
from moviegen_data.image import EXTENSIONS as IMAGES
from moviegen_data.image import open_picture
from moviegen_data.limits import MediaLimits
from moviegen_data.media_files import read_file
from moviegen_data.media_folder import keyed, media_in
from moviegen_data.shards import ShardWriter, shard_index_path
from moviegen_data.sound import check_sound
from moviegen_data.video import VideoDecoder
from moviegen_data.wording import counted

# What a caption file may say about a medium; facts about the file itself are measured, never believed.
_MEASURED = (
    "schema", "key", "frames", "height", "width", "duration_s", "fps", "source",
    "has_audio", "audio_hz", "num_channels", "audio_duration_s", "audio_start_s", "loudness_lufs", "peak", "silence", "audio_problem",
)  # fmt: skip


@dataclass
class PackReport:
    """What became of a folder.

    Args:
        folder: the folder of media.
        output: the folder of shards.
        num_samples: media packed.
        num_shards: shards written.
        num_bytes: their size.
        num_without_caption: media packed with an empty caption.
        absent: names in the caption file that no file answers to.
        num_elsewhere: names in the caption file of files outside the folder.
        skipped: what was left out, and why.
    """

    folder: str
    output: str
    num_samples: int = 0
    num_shards: int = 0
    num_bytes: int = 0
    num_without_caption: int = 0
    absent: list[str] = field(default_factory=list)
    num_elsewhere: int = 0
    skipped: SkipReport = field(default_factory=SkipReport)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return {**asdict(self), "skipped": self.skipped.as_dict()}

    def __str__(self) -> str:
        size = f"{counted(self.num_samples, 'sample')} in {counted(self.num_shards, 'shard')}"
        lines = [f"{self.output}: {size}, {self.num_bytes / 1e6:.1f} MB"]
        if self.num_without_caption:
            without = counted(self.num_without_caption, "sample has", "samples have")
            lines.append(f"{without} an empty caption; give `captions` to change that")
        if self.absent:
            lines.append(f"{_captions(len(self.absent), 'name')} media that are not there: {', '.join(self.absent[:5])}")
        if self.num_elsewhere:
            lines.append(f"{_captions(self.num_elsewhere, 'speak')} of files outside the folder")
        text = "\n".join([*lines, *filter(None, [self.skipped.summary()])])
        return text.encode(errors="backslashreplace").decode()  # names of files may be no text, which no terminal takes


def _captions(number: int, verb: str) -> str:
    return counted(number, f"caption {verb}s", f"captions {verb}")


def pack(
    folder: str,
    output: str,
    *,
    captions: str | None = None,
    caption_column: str | None = None,
    prefix: str = "shard",
    max_samples: int = 1000,
    max_megabytes: int = 1000,
    overwrite: bool = False,
    verify: bool = True,
    limits: MediaLimits | None = None,
) -> PackReport:
    """Pack a folder of media into shards; what cannot be used is left out, counted and named.

    Args:
        folder: videos (mp4, webm, mkv, mov, avi, m4v), pictures (png, jpg, webp) and sounds (wav, flac, mp3, ogg, opus,
            m4a), in any depth.
        output: folder of the shards; made when absent. It also gets `pack-report.json`.
        captions: csv, json or jsonl file of captions, or `sidecar` for NAME.txt beside each medium. Media that it says nothing about are
            left out; without captions all media are packed with empty ones.
        caption_column: the column that holds the caption, where it is not called caption, text or prompt.
        prefix: first part of the shards' names.
        max_samples: samples in a shard at most.
        max_megabytes: megabytes in a shard at most.
        overwrite: replace shards of an earlier run.
        verify: decode every video and its sound to the end; otherwise only its first frame, and loudness and silence stay unknown.
        limits: the largest media that are decoded; larger ones are left out.

    Raises:
        UsageError: the folder is absent or holds no usable medium, or the caption file cannot be read.
        FileExistsError: there are shards already.
        SourceError: the system cannot read a medium, or its caption.
        OSError: the disk is full.
    """
    limits = limits or MediaLimits()
    root, target = Path(folder).expanduser(), Path(output).expanduser()
    if not root.is_dir():
        exists = "it is a file" if root.is_file() else f"{root.parent} has no such folder"
        raise UsageError(f"the folder {folder} was given", exists, "give a folder of videos, pictures or sounds")
    report = PackReport(folder=str(folder), output=str(output))
    media = media_in(root, report.skipped, captions=captions)
    records = _records(captions, caption_column, root, media, report)
    with ShardWriter(target, prefix=prefix, max_samples=max_samples, max_bytes=max_megabytes * 1_000_000, overwrite=overwrite) as writer:
        for key, path in tqdm(keyed(media, root), desc="packing", unit="file", disable=None):
            try:
                sample = _sample(path, root, records, verify, limits)
            except SampleError as error:
                report.skipped.add(Skip(str(root), str(path.relative_to(root)), error.cause, error.detail))
                continue
            report.num_without_caption += not sample["json"]["caption"]
            writer.write(key, sample)
        if not writer.num_samples:
            raise UsageError(
                f"the folder {folder} was given", report.skipped.summary(), "no shard was written; correct the media or their captions"
            )
    report.num_samples, report.num_bytes = writer.num_samples, writer.num_bytes
    report.num_shards = len(json.loads(shard_index_path(target, prefix).read_text(encoding="utf-8"))["shards"])
    write_bytes(target / "pack-report.json", json.dumps(report.as_dict(), indent=1).encode())
    print(report)
    return report


def _records(
    captions: str | None, column: str | None, root: Path, media: list[Path], report: PackReport
) -> Mapping[Path, dict[str, Any]] | None:
    if captions is None:
        if column is not None:
            raise UsageError(f"caption_column={column} was given", "there is no caption file", "give `captions` too")
        return None
    found = read_captions(captions, root, media, column=column, setting="caption_column")
    report.absent, report.num_elsewhere = found.absent, len(found.elsewhere)
    if found.absent:
        number, named = len(found.absent), ", ".join(found.absent[:5])
        logger.warning("of the captions of %s %s media that are not there: %s", captions, counted(number, "names", "name"), named)
    return found.records


def _sample(path: Path, root: Path, records: Mapping[Path, dict[str, Any]] | None, verify: bool, limits: MediaLimits) -> dict[str, Any]:
    said = {"caption": ""} if records is None else records.get(path.resolve())
    if said is None:
        raise SampleError("no caption")
    _check_text(said)
    extension, data = path.suffix.lower()[1:], _content(path, limits)
    facts = _measure(extension, data, verify, limits)
    said = {name: value for name, value in said.items() if name not in _MEASURED}
    extension = {"jpeg": "jpg"}.get(extension, extension)
    return {"json": {**said, **facts, "source": path.relative_to(root).as_posix()}, extension: data}


def _content(path: Path, limits: MediaLimits) -> bytes:
    try:
        limits.check_bytes(path.stat().st_size, what="a file")
        return read_file(path)
    except FileNotFoundError as error:
        raise SampleError("cannot be opened", "it went away while others were packed") from error


def _check_text(said: Mapping[str, Any]) -> None:
    """Refuse what json can spell and no file can hold: halves of signs beyond the first 65536."""
    try:
        json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise SampleError("the caption is no text", f"{error.object[error.start]!r} of it is half a sign") from error


def _measure(extension: str, data: bytes, verify: bool, limits: MediaLimits) -> dict[str, Any]:
    if not data:
        raise SampleError("cannot be opened", "the file is empty")
    if extension in SOUNDS:
        return check_sound(data, limits)
    if extension in IMAGES:
        picture = open_picture(data, limits)
        return {"frames": 1, "height": picture.height, "width": picture.width}
    videos = VideoDecoder(limits=limits)
    info = videos.probe(data)
    frames, duration_s = videos.count(data) if verify else (info.num_frames, info.duration_s)
    facts = {
        "frames": frames,
        "fps": round(frames / duration_s, 4) if frames and frames > 1 and duration_s else round(info.fps, 4),
        "duration_s": None if duration_s is None else round(duration_s, 4),
        "height": info.height,
        "width": info.width,
        "has_audio": info.num_audio_streams > 0,
    }
    if facts["has_audio"]:
        facts |= _measure_track(data, verify, limits)
    return {name: value for name, value in facts.items() if value is not None}


def _measure_track(data: bytes, verify: bool, limits: MediaLimits) -> dict[str, Any]:
    """Facts about a video's sound; one that cannot be used is named, and the picture kept."""
    try:
        info = AudioDecoder(limits=limits).probe(data)
        facts = check_sound(data, limits) if verify else {"audio_hz": info.audio_hz, "num_channels": info.num_channels}
    except SampleError as error:
        return {"audio_problem": str(error)}
    duration_s = facts.pop("duration_s", info.duration_s)
    return facts | {"audio_duration_s": duration_s, "audio_start_s": round(info.start_s, 4) or None}
