"""What is said of a file, by the names that the shards' json has; see `data/README.md`."""

from collections.abc import Mapping
from typing import Any

from moviegen_data.audio import AudioDecoder
from moviegen_data.faults import SampleError
from moviegen_data.video import VideoDecoder

_OF_A_FILE = (
    "frames", "fps", "duration_s", "width", "height", "codec", "pixel_format", "rotation", "bytes",
    "has_audio", "audio_hz", "num_channels", "audio_problem",
)  # fmt: skip


def without_file(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What stays true of a stretch when it has become a file of its own."""
    return {name: value for name, value in facts.items() if name not in _OF_A_FILE}


def facts_of(data: bytes, frames: int, duration_s: float) -> dict[str, Any]:
    """The facts of a video that was cut.

    Args:
        data: the file.
        frames: its frames, counted.
        duration_s: their seconds, counted.

    Raises:
        SampleError: it cannot be opened.
    """
    info = VideoDecoder().probe(data)
    facts = {
        "frames": frames,
        "fps": round(frames / duration_s, 4),
        "duration_s": round(duration_s, 4),
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "pixel_format": info.pixel_format,
        "rotation": info.rotation,
        "bytes": len(data),
        "has_audio": info.num_audio_streams > 0,
    }
    return facts | (sound_facts(data) if facts["has_audio"] else {})


def sound_facts(data: bytes) -> dict[str, Any]:
    """Facts about a video's sound; one that cannot be used is named, and the picture kept."""
    try:
        info = AudioDecoder().probe(data)
    except SampleError as error:
        return {"audio_problem": str(error)}
    return {"audio_hz": info.audio_hz, "num_channels": info.num_channels}
