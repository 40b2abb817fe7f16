"""What is said of a file, by the names that the shards' json has; see `data/README.md`."""

from collections.abc import Callable, Mapping
from typing import Any

from moviegen_data.audio import AudioDecoder, AudioInfo
from moviegen_data.curation.clip import FILE_FACTS
from moviegen_data.faults import SampleError
from moviegen_data.video import VideoDecoder, VideoInfo


def without_file(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What stays true of a stretch when it has become a file of its own."""
    return {name: value for name, value in facts.items() if name not in FILE_FACTS}


def facts_of(data: bytes, frames: int, duration_s: float) -> dict[str, Any]:
    """The facts of a video that was cut.

    Args:
        data: the file.
        frames: its frames, counted.
        duration_s: their seconds, counted.

    Raises:
        SampleError: it cannot be opened.
    """
    own = {"frames": frames, "fps": round(frames / duration_s, 4), "duration_s": round(duration_s, 4), "bytes": len(data)}
    facts = own | picture_facts(VideoDecoder().probe(data))
    return facts | (sound_facts(lambda: AudioDecoder().probe(data)) if facts["has_audio"] else {})


def picture_facts(info: VideoInfo) -> dict[str, Any]:
    """Facts that a video's header and first frame tell."""
    names = ("width", "height", "codec", "pixel_format", "rotation")
    return {name: getattr(info, name) for name in names} | {"has_audio": info.num_audio_streams > 0}


def sound_facts(probe: Callable[[], AudioInfo]) -> dict[str, Any]:
    """Facts about a video's sound; one that cannot be used is named, and the picture kept.

    Args:
        probe: gives what the header says.
    """
    try:
        info = probe()
    except SampleError as error:
        return {"audio_problem": str(error)}
    return {"audio_hz": info.audio_hz, "num_channels": info.num_channels}
