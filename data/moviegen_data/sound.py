"""Looking at sounds before they enter a shard."""

from typing import Any

from moviegen_data.audio import AudioDecoder, pieces
from moviegen_data.faults import SampleError
from moviegen_data.limits import MediaLimits
from moviegen_data.loudness import SoundMeter


def check_sound(data: bytes, limits: MediaLimits | None = None) -> dict[str, Any]:
    """Decode a whole sound, or a video's sound track; return what a sample's json says of it.

    These are `audio_hz`, `num_channels`, `duration_s`, `loudness_lufs` (integrated, BS.1770-4; absent of a sound without any loud part),
    `peak` (highest absolute sample) and `silence` (share of the time below -60 dB).

    Raises:
        SampleError: it cannot be decoded, is empty, longer than it may be, or holds NaN or infinite values.
    """
    info = AudioDecoder(limits=limits).probe(data)
    meter: SoundMeter | None = None
    for piece, hz in pieces(data, limits):
        if meter is None:
            meter = SoundMeter(audio_hz=hz, num_channels=len(piece))
        meter.add(piece)
    if meter is None or not meter.num_samples:
        raise SampleError("no sound", f"the {info.codec} stream is empty")
    facts = {
        "audio_hz": meter.audio_hz,
        "num_channels": meter.num_channels,
        "duration_s": round(max(0.0, info.start_s) + meter.num_samples / meter.audio_hz, 6),
        "loudness_lufs": round(meter.loudness, 2) if meter.loudness > float("-inf") else None,
        "peak": round(meter.peak, 4),
        "silence": round(meter.silence, 4),
    }
    return {name: value for name, value in facts.items() if value is not None}
