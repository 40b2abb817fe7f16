"""Cutting a stretch out of a video file without encoding anything anew: its packets, from the key frame before it."""

import io
from pathlib import Path
from typing import Any

import av

from moviegen_data.faults import SampleError
from moviegen_data.media_files import opened
from moviegen_data.video import VideoDecoder

_SETTLE_S = 1.0  # of sound before the stretch, which decoders need to settle


def copy_stretch(path: str | Path, start_s: float, end_s: float) -> bytes | None:
    """An mp4 with the packets of a stretch, bit for bit as they are; None where mp4 cannot hold them. Equal files give equal bytes.

    Packets begin at the key frame before the stretch; by the file's edit list players show nothing before `start_s`. It ends with the last
    frame before `end_s` that no later frame is needed for, a few frames early where there are B frames.

    Args:
        path: the video file.
        start_s: where the stretch begins, in seconds from the first frame.
        end_s: where it ends; the frame on the screen then is not in it.

    Raises:
        SampleError: the file cannot be read, or the stretch holds no frame.
    """
    buffer = io.BytesIO()
    with opened(path) as source:
        picture = VideoDecoder().stream_of(source)
        sound = source.streams.audio[0] if source.streams.audio else None
        try:
            with av.open(buffer, mode="w", format="mp4") as container:
                streams = [stream for stream in (picture, sound) if stream is not None]
                if not all(_fits(stream, container) for stream in streams):
                    return None
                copies = {stream.index: container.add_stream_from_template(stream) for stream in streams}
                if not _copy(source, picture, sound, container, copies, start_s, end_s):
                    return None
        except av.FFmpegError:  # what the muxer does not take, an encoder may
            return None
    return buffer.getvalue()


def _fits(stream: Any, container: Any) -> bool:
    context = stream.codec_context
    return context is not None and context.name in container.supported_codecs and context.name != "mpeg4"


def _copy(source: Any, picture: Any, sound: Any, container: Any, copies: dict[int, Any], start_s: float, end_s: float) -> bool:
    """Hand the packets over; false where some have no times."""
    origin_s = float(picture.start_time * picture.time_base) if picture.start_time is not None else 0.0
    rate = max(float(picture.average_rate or 25.0), 1.0)
    first_s, last_s = origin_s + start_s - 0.1 / rate, origin_s + end_s - 0.1 / rate  # time stamps are rounded
    if start_s > 0.0:
        source.seek(int((origin_s + start_s) / picture.time_base), stream=picture, backward=True, any_frame=False)
    shown = ended = heard = False
    for packet in source.demux([source.streams[index] for index in copies]):
        if not packet.size:
            continue
        if packet.dts is None or packet.pts is None:  # Matroska keeps no decoding times: without them B frames cannot be written
            return False
        time_s = float(packet.pts * packet.time_base)
        if packet.stream.index == picture.index:
            ended = ended or time_s >= last_s
            wanted = not ended
            shown = shown or (wanted and time_s >= first_s)
        else:
            heard = heard or time_s >= last_s
            wanted = first_s - _SETTLE_S < time_s < last_s
        if ended and (sound is None or heard):
            break
        if wanted:
            shift = round((origin_s + start_s) / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copies[packet.stream.index]
            container.mux(packet)
    if not shown:
        raise SampleError("too short", f"no frame between {start_s:.3f} s and {end_s:.3f} s")
    return True
