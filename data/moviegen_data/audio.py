"""Decoding sound: only the wanted span, on the file's own clock, at the wanted rate and number of channels.

Shapes: sounds are float in [-1, 1], (a, s). Sample 0 of a file is what a player gives off at its beginning: with the first frame of the
picture where there is one, otherwise with the first sound. So the priming samples of AAC, MP3 and Opus are gone, a track that begins late
is led in by silence, and what comes before the picture is cut.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from jaxtyping import Float
from torch import Tensor

from moviegen_core.errors import UsageError
from moviegen_data.faults import SampleError
from moviegen_data.limits import MediaLimits
from moviegen_data.media_files import fault, opened
from moviegen_data.resampling import resample

EXTENSIONS = ("wav", "flac", "mp3", "ogg", "opus", "m4a")
_ATTACHED_PICTURE = 0x0400
_MIN_HZ, _MAX_HZ, _MAX_CHANNELS = 1000, 768_000, 64
# Decoders that were sent to the middle of a file need some packets before their output is right (MP3's reservoir, Opus's 80 ms).
_PREROLL_S = 0.5
# Time stamps of Matroska and AVI are rounded; a jump beyond this is a real gap, and keeps its length.
_MAX_JITTER_S = 0.03
_MAX_GAP_S = 3600.0
_NUM_STAMPS = 64
# Sound beyond both ends of a span, for the resampler's filter.
_MARGIN_S = 0.05


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about its first sound track.

    Args:
        audio_hz: samples per second.
        num_channels: channels as stored.
        duration_s: seconds from the file's beginning to the end of the sound; None where the file does not say.
        start_s: when the track begins, by its header.
        codec: name of the codec.
        layout: libav's name of the channels, e.g. `5.1`.
        has_picture: true where there is a video track too.
    """

    audio_hz: int
    num_channels: int
    duration_s: float | None
    start_s: float
    codec: str
    layout: str
    has_picture: bool


@dataclass(frozen=True)
class Sound:
    """A decoded span.

    Args:
        audio: waveform (a, s), at decoding neither scaled nor clamped: lossy codecs overshoot 1 a little.
        audio_hz: samples per second.
        start_s: where the span begins in the file.
        valid_s: seconds up to which the file has sound; what follows is added silence.
    """

    audio: Float[Tensor, "a s"]
    audio_hz: int
    start_s: float
    valid_s: float


class AudioDecoder:
    """Decodes spans of sound tracks.

    Args:
        audio_hz: samples per second wanted; the file's own where None.
        channels: 1 mixes down to mono, 2 to stereo (see `resample` for the weights), None keeps the file's own.
        limits: the longest sounds that are decoded.
    """

    def __init__(self, *, audio_hz: int | None = None, channels: int | None = None, limits: MediaLimits | None = None) -> None:
        if audio_hz is not None and not _MIN_HZ <= audio_hz <= _MAX_HZ:
            raise UsageError(f"audio_hz={audio_hz} was given", f"sounds have {_MIN_HZ} to {_MAX_HZ} samples per second", "give e.g. 48000")
        if channels not in (None, 1, 2):
            raise UsageError(f"{channels} channels were asked for", "1 is mono and 2 stereo", "give one of them")
        self.audio_hz, self.channels = audio_hz, channels
        self.limits = limits or MediaLimits()

    def probe(self, source: bytes | str | Path) -> AudioInfo:
        """Read headers.

        Raises:
            SampleError: the file cannot be opened, or has no sound.
        """
        with opened(source) as container:
            stream = _stream(container)
            picture = _picture_start(container)
            begin, end = _seconds(stream.start_time, stream) or 0.0, None
            if stream.duration is not None and stream.duration > 0:
                end = begin + float(stream.duration * stream.time_base)
            elif container.duration and container.duration > 0:
                end = ((container.start_time or 0) + container.duration) / av.time_base
            origin = begin if picture is None else picture
            self.limits.check_sound(0.0 if end is None else end - origin)
            return AudioInfo(
                audio_hz=stream.rate,
                num_channels=stream.channels,
                duration_s=None if end is None else max(0.0, end - origin),
                start_s=begin - origin,
                codec=stream.codec_context.name,
                layout=stream.layout.name,
                has_picture=picture is not None,
            )

    def decode(self, source: bytes | str | Path, *, start_s: float = 0.0, duration_s: float | None = None) -> Sound:
        """Decode a span.

        Args:
            source: the file, or its bytes.
            start_s: where the span begins, in seconds from the file's beginning; rounded to a sample.
            duration_s: its length; to the end of the sound unless given. The result has round(duration_s · audio_hz) samples.

        Raises:
            SampleError: the file cannot be opened or decoded, has no sound, or the span holds NaN or infinite values.
        """
        if not start_s >= 0.0 or (duration_s is not None and not duration_s > 0.0):
            raise ValueError(f"start_s={start_s} and duration_s={duration_s} were given; a span begins at 0 or later and has a length")
        hz = self.audio_hz or self.probe(source).audio_hz
        first = round(start_s * hz)
        count = None if duration_s is None else max(1, round(duration_s * hz))
        stretch = _read(source, first / hz, None if count is None else (first + count) / hz, self.limits)
        if not np.isfinite(stretch.samples).all():
            raise SampleError("the sound holds NaN or infinite values", f"between {first / hz:.2f} s and {stretch.end_s:.2f} s")
        audio, begin = stretch.at_rate(hz, self.channels)
        length = max(0, begin + audio.shape[1] - first) if count is None else count
        out = np.zeros((audio.shape[0], length), dtype=np.float32)
        offset = begin - first
        part = audio[:, max(0, -offset) : max(0, length - offset)]
        out[:, max(0, offset) : max(0, offset) + part.shape[1]] = part
        valid = min(length, max(0, round(stretch.end_s * hz) - first))
        return Sound(torch.from_numpy(out), hz, first / hz, valid / hz)


def read_audio(path: str | Path, *, audio_hz: int | None = None, channels: int | None = None) -> Sound:
    """Read the sound of a whole file (wav, flac, mp3, ogg, opus, m4a, or a video's track), in its own form unless said otherwise.

    Args:
        path: the file.
        audio_hz: samples per second wanted.
        channels: 1 for mono, 2 for stereo.

    Raises:
        UsageError: there is no such file, or it holds no usable sound.
    """
    if not Path(path).is_file():
        raise UsageError(f"the sound {path} was given", "there is no such file", "correct the path")
    try:
        return AudioDecoder(audio_hz=audio_hz, channels=channels).decode(path)
    except SampleError as error:
        raise UsageError(f"the sound {path} was given", str(error), "give a file with a sound track that libav reads") from error


def pieces(source: bytes | str | Path, limits: MediaLimits | None = None) -> Iterator[tuple[np.ndarray, int]]:
    """The pieces (c, n) of a whole sound track as they are decoded, with their rate; for looking at long files.

    Raises:
        SampleError: the file cannot be opened or decoded, has no sound, is longer than it may be, or holds NaN or infinite values.
    """
    with opened(source) as container:
        to_float = AudioResampler(format="flt")
        for frame in _frames(container, _stream(container), limits or MediaLimits()):
            time, hz = frame.time, frame.sample_rate
            samples = _planar(to_float, frame)
            if not np.isfinite(samples).all():
                raise SampleError("the sound holds NaN or infinite values", f"near {time or 0.0:.2f} s")
            yield samples, hz


@dataclass
class _Stretch:
    """Samples (c, n) as stored, the first one at `begin_s` of the file's clock; the reading began at `first_s`."""

    samples: np.ndarray
    hz: int
    layout: str
    begin_s: float
    first_s: float

    @property
    def end_s(self) -> float:
        return self.begin_s + self.samples.shape[1] / self.hz

    def at_rate(self, hz: int, channels: int | None) -> tuple[np.ndarray, int]:
        """Resampled samples, and the place of the first one on the new rate's grid."""
        # Silence up to a moment that lies on the grids of both rates: spans of one file then agree sample by sample.
        period = self.hz // math.gcd(self.hz, hz)
        begin = round(self.begin_s * self.hz)
        lead = begin % period
        samples = np.pad(self.samples, ((0, 0), (lead, 0))) if lead else self.samples
        try:
            audio = resample(samples, self.hz, hz, layout=self.layout, channels=channels)
        except (av.FFmpegError, ValueError) as error:
            raise SampleError("channels cannot be mixed", f"{len(samples)} channels ({self.layout}): {error}") from error
        grid = (begin - lead) * hz // self.hz
        skip = -(-lead * hz // self.hz)
        return audio[:, skip:], grid + skip


def _read(source: bytes | str | Path, start_s: float, end_s: float | None, limits: MediaLimits) -> _Stretch:
    """Stored samples of a span of the file's clock, with a little more on both sides for the resampler."""
    begin, end = start_s - _MARGIN_S, None if end_s is None else end_s + _MARGIN_S
    if begin > _PREROLL_S:
        with opened(source) as container:
            stretch = _collect_from(container, _stream(container), begin, end, limits)
        if stretch is not None:
            return stretch
    with opened(source) as container:
        stream = _stream(container)
        stretch = _collect(_frames(container, stream, limits), _picture_start(container), begin, end, limits)
        if stretch is None:
            raise SampleError("no sound", f"its {stream.codec_context.name} track is empty")
        return stretch


def _collect_from(container: Any, stream: AudioStream, begin_s: float, end_s: float | None, limits: MediaLimits) -> _Stretch | None:
    """Seek to a little before a span; None where the file gives no sound that surely begins before it."""
    try:
        origin = _picture_start(container)
        if origin is None:
            origin = next((frame.time or 0.0 for frame in _frames(container, stream, limits)), 0.0)
        container.seek(int((origin + begin_s - _PREROLL_S) / stream.time_base), stream=stream, backward=True, any_frame=False)
        stretch = _collect(_frames(container, stream, limits), origin, begin_s, end_s, limits)
    except (SampleError, av.FFmpegError):
        return None
    return stretch if stretch is not None and stretch.first_s <= begin_s - _PREROLL_S / 4 else None


def _collect(
    frames: Iterator[AudioFrame], origin: float | None, begin_s: float, end_s: float | None, limits: MediaLimits
) -> _Stretch | None:
    """Put frames onto the file's clock; small jitter of time stamps is ignored, gaps become silence, and overlaps are cut."""
    to_float = AudioResampler(format="flt")
    parts: list[np.ndarray] = []
    jitter_s: list[float] = []
    first_s, count, hz, layout, channels = 0.0, 0, 0, "", 0
    for frame in frames:
        if not hz:
            hz, layout, channels = frame.sample_rate, frame.layout.name, frame.layout.nb_channels
            origin = (frame.time or 0.0) if origin is None else origin
            first_s = (frame.time if frame.time is not None else origin) - origin
        end_now = first_s + count / hz
        gap_s = 0.0 if frame.time is None else frame.time - origin - end_now
        if end_s is not None and end_now + max(0.0, gap_s) >= end_s:
            break
        samples = _planar(to_float, frame)
        jitter_s.append(gap_s)
        if gap_s > _MAX_JITTER_S:
            if gap_s > _MAX_GAP_S:
                raise SampleError("cannot be decoded", f"its time stamps leap by {gap_s:.0f} s at {end_now:.2f} s")
            limits.check_sound(end_now + gap_s)
            parts.append(np.zeros((samples.shape[0], round(gap_s * hz)), dtype=np.float32))
        elif gap_s < -_MAX_JITTER_S:
            samples = samples[:, round(-gap_s * hz) :]
        parts.append(samples)
        count += sum(part.shape[1] for part in parts[-2 if gap_s > _MAX_JITTER_S else -1 :])
    if not hz:
        return None
    if not parts:  # the track begins after the span
        return _Stretch(np.zeros((channels, 0), dtype=np.float32), hz, layout, first_s, first_s)
    joined = np.concatenate(parts, axis=1)
    # Of stamps that are rounded, the middle one says best when the first sample is.
    first_s += float(np.median([some for some in jitter_s[:_NUM_STAMPS] if abs(some) <= _MAX_JITTER_S]))
    skip = min(max(0, math.floor((begin_s - first_s) * hz)), joined.shape[1])
    stop = joined.shape[1] if end_s is None else max(skip, math.ceil((end_s - first_s) * hz))
    joined = joined[:, skip:stop]
    return _Stretch(joined, hz, layout, first_s + skip / hz, first_s)


def _planar(to_float: AudioResampler, frame: AudioFrame) -> np.ndarray:
    try:
        frame.pts = None  # the clock is ours; libav's would fill gaps as it sees fit
        _check_form(frame.sample_rate, frame.layout.nb_channels)
        # Packed, not planar: PyAV's planes beyond the eighth point nowhere.
        count = frame.layout.nb_channels
        return np.concatenate([part.to_ndarray().reshape(-1, count).T for part in to_float.resample(frame)], axis=1)
    except (av.FFmpegError, ValueError) as error:
        raise SampleError("cannot be decoded", f"its form changes on the way: {error}") from error


def _frames(container: Any, stream: AudioStream, limits: MediaLimits) -> Iterator[AudioFrame]:
    count, duration_s = 0, 0.0
    try:
        for frame in container.decode(stream):
            if frame.samples:
                yield frame
                count += 1
                duration_s += frame.samples / max(1, frame.sample_rate)
                limits.check_sound(duration_s)
    except (av.FFmpegError, ValueError) as error:
        raise fault(container, "cannot be decoded", error, where=f"after {count} pieces of sound") from error


def _stream(container: Any) -> AudioStream:
    if not container.streams.audio:
        raise SampleError("no sound", f"{len(container.streams)} other streams")
    stream = container.streams.audio[0]
    if stream.codec_context is None or not stream.codec_context.rate:
        raise SampleError("cannot be decoded", "its codec is unknown, or its rate")
    _check_form(stream.rate, stream.channels)
    return stream


def _check_form(hz: int, channels: int) -> None:
    """Refuse what only a damaged header says, before memory is taken for it."""
    if not _MIN_HZ <= hz <= _MAX_HZ or not 1 <= channels <= _MAX_CHANNELS:
        raise SampleError("cannot be decoded", f"{channels} channels at {hz} Hz")


def _picture_start(container: Any) -> float | None:
    """When the first frame of a video is shown; None where there is none."""
    for stream in container.streams.video:
        if not int(stream.disposition) & _ATTACHED_PICTURE:
            return _seconds(stream.start_time, stream) or 0.0
    return None


def _seconds(stamp: int | None, stream: Any) -> float | None:
    return None if stamp is None else float(stamp * stream.time_base)
