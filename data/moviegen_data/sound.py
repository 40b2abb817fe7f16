"""Looking at sound files before they enter a shard."""

import io

import av
import numpy as np

from moviegen_data.faults import SampleError

EXTENSIONS = ("wav", "flac")


def check_sound(data: bytes) -> dict[str, float]:
    """Decode a whole sound; return its rate (`audio_hz`), number of channels and seconds.

    Raises:
        SampleError: it cannot be decoded, is empty, or holds NaN or infinite values.
    """
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.audio:
                raise SampleError("no sound", f"{len(container.streams)} other streams")
            stream = container.streams.audio[0]
            num_samples = 0
            for frame in container.decode(stream):
                values = frame.to_ndarray()
                if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                    raise SampleError("the sound holds NaN or infinite values", f"near {frame.time or 0.0:.2f} s")
                num_samples += frame.samples
    except (av.FFmpegError, ValueError, OSError) as error:
        raise SampleError("cannot be opened", f"{type(error).__name__}: {error}") from error
    if not num_samples:
        raise SampleError("no sound", "the stream is empty")
    return {"audio_hz": stream.rate, "num_channels": stream.channels, "duration_s": num_samples / stream.rate}
