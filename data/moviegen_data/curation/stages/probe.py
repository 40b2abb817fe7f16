"""What a medium is, and whether it is safe to decode."""

import warnings
from typing import Any

import av
from PIL import Image

from moviegen_core.errors import require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.facts import picture_facts, sound_facts
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage
from moviegen_data.faults import SampleError
from moviegen_data.image import open_picture
from moviegen_data.media_files import fault, opened, read_file
from moviegen_data.video import VideoDecoder


class Probe(ClipStage):
    """Fills in the facts that later stages and the shard's json tell, and drops what would cost too much to decode.

    Facts are those of `data/README.md`, and `codec`, `pixel_format`, `rotation` and `bytes`. Frames and seconds are counted from the
    packets, since headers may be wrong or say nothing; only one frame is decoded. Put it first: other stages trust that a medium is safe.

    Args:
        max_bytes: largest file.
        max_side_px: longest side.
        max_pixels: pixels of a picture or a frame at most; the default lets 8K through.
        max_frames: frames of a video at most.
        max_duration_s: seconds at most.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 8_000_000_000,
        max_side_px: int = 8192,
        max_pixels: int = 36_000_000,
        max_frames: int = 50_000,
        max_duration_s: float = 1800.0,
    ) -> None:
        require_at_least(1, max_bytes=max_bytes, max_side_px=max_side_px, max_pixels=max_pixels, max_frames=max_frames)
        require_at_least(0.0, max_duration_s=max_duration_s)
        self.max_bytes, self.max_side_px, self.max_pixels = max_bytes, max_side_px, max_pixels
        self.max_frames, self.max_duration_s = max_frames, max_duration_s

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Describe the clip."""
        num_bytes = media.path.stat().st_size
        clip = clip.described(bytes=num_bytes)
        if not num_bytes:
            raise SampleError("cannot be opened", "the file is empty")
        if num_bytes > self.max_bytes:
            return clip.dropped("too many bytes", measured=f"{num_bytes:,}", wanted=f"{self.max_bytes:,} at most")
        return {"video": self._video, "picture": self._picture, "sound": self._sound}[media.kind](clip, media)

    def _video(self, clip: Clip, media: Media) -> Clip:
        with opened(media.path) as container:
            stream = VideoDecoder().stream_of(container)
            clip = self._checked_size(clip, stream.width, stream.height)
            if clip.drop is not None:
                return clip
            frames, duration_s = _extent(container, stream, self.max_frames)
        if frames > self.max_frames:
            return clip.dropped("too many frames", measured=f"more than {self.max_frames}", wanted=f"{self.max_frames} at most")
        info = media.info
        duration_s = duration_s or info.duration_s or frames / info.fps
        facts = {
            "frames": frames,
            "fps": round(frames / duration_s, 4) if frames > 1 else round(info.fps, 4),
            "duration_s": round(duration_s, 6),
            **picture_facts(info),
        }
        clip = self._checked_size(
            clip.described(**facts, **(sound_facts(lambda: media.audio_info) if facts["has_audio"] else {})), info.width, info.height
        )
        return clip if clip.drop is not None else self._checked_duration(clip, duration_s)

    def _picture(self, clip: Clip, media: Media) -> Clip:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limits here are the user's
                with Image.open(media.path) as picture:
                    clip = self._checked_size(clip, *picture.size)
        except Image.DecompressionBombError as error:
            return clip.dropped("too large", measured=str(error), wanted=f"{self.max_pixels:,} pixels at most")
        except Exception as error:  # Pillow's codecs raise whatever their formats make them raise
            raise fault(media.path, "cannot be opened", error) from error
        if clip.drop is not None:
            return clip
        upright = open_picture(read_file(media.path))
        return clip.described(frames=1, width=upright.width, height=upright.height, has_audio=False)

    def _sound(self, clip: Clip, media: Media) -> Clip:
        info = media.audio_info
        facts = {"codec": info.codec, "audio_hz": info.audio_hz, "num_channels": info.num_channels, "has_audio": True}
        if info.duration_s is None:
            return clip.described(**facts)  # no header says more; the stages that decode the sound will see
        return self._checked_duration(clip.described(**facts, duration_s=round(info.duration_s, 6)), info.duration_s)

    def _checked_size(self, clip: Clip, width: int, height: int) -> Clip:
        if max(width, height) > self.max_side_px or width * height > self.max_pixels:
            wanted = f"{self.max_side_px} px a side and {self.max_pixels:,} pixels at most"
            return clip.dropped("too large", measured=f"{width}x{height} px", wanted=wanted)
        return clip

    def _checked_duration(self, clip: Clip, duration_s: float) -> Clip:
        if duration_s > self.max_duration_s:
            return clip.dropped("too many seconds", measured=f"{duration_s:.1f}", wanted=f"{self.max_duration_s:g} at most")
        return clip


def _extent(container: Any, stream: Any, max_frames: int) -> tuple[int, float]:
    """Frames and seconds by the packets, counted a little beyond the limit at most."""
    frames, first, end = 0, None, 0
    try:
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            frames += 1
            if packet.pts is not None:
                first = packet.pts if first is None else min(first, packet.pts)
                end = max(end, packet.pts + (packet.duration or 0))
            if frames > max_frames:
                break
    except av.FFmpegError as error:
        raise fault(container, "cannot be read", error, where=f"after {frames} packets") from error
    if not frames:
        raise SampleError("cannot be decoded", f"no packet in its {stream.codec_context.name} stream")
    return frames, 0.0 if first is None else float((end - first) * stream.time_base)
