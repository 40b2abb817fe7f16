"""Changing the rate and the channels of sounds in memory, by libswresample."""

from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from jaxtyping import Float

_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_WANTED = {1: "mono", 2: "stereo"}


def resample(
    samples: Float[np.ndarray, "c n"], from_hz: int, to_hz: int, *, layout: str | None = None, channels: int | None = None
) -> Float[np.ndarray, "k m"]:
    """Resample a whole sound and mix its channels; sample 0 keeps its time, and the result has ceil(n · to_hz / from_hz) samples.

    Stereo becomes mono as the mean of both. Of 5.1 the centre and the surrounds go into left and right 3 dB weaker and the bass channel
    is left out; sums are scaled down as a whole so that they cannot clip (5.1 to stereo by 7.7 dB). Mono is put into both channels of
    stereo as it is.

    Args:
        samples: waveform, float.
        from_hz: its samples per second.
        to_hz: samples per second wanted.
        layout: libav's name of its channels, e.g. `5.1(side)`; the usual one for their number unless given.
        channels: 1 for mono, 2 for stereo; the same channels unless given.

    Raises:
        ValueError: more channels than any known arrangement has were to be mixed.
    """
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    if len(samples) == 1 and channels == 2:
        return np.repeat(resample(samples, from_hz, to_hz), 2, axis=0)
    channels = channels or len(samples)
    num_out = -(-samples.shape[1] * to_hz // from_hz)
    if not num_out or (from_hz == to_hz and channels == len(samples)):
        return np.zeros((channels, 0), dtype=np.float32) if not num_out else samples
    if layout is None or "channels" in layout:
        layout = _LAYOUTS.get(len(samples), f"{len(samples)} channels")
    if channels != len(samples) and len(samples) not in _LAYOUTS:
        raise ValueError(f"{len(samples)} channels have no known places; at most {max(_LAYOUTS)} can be mixed")
    graph = _graph(layout, from_hz, _WANTED[channels] if channels != len(samples) else layout, to_hz)
    # Packed, not planar: PyAV's planes beyond the eighth point nowhere.
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T).reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = from_hz, 0, Fraction(1, from_hz)
    graph.push(frame)
    graph.push(None)
    out = np.concatenate([np.zeros((channels, 0), dtype=np.float32), *_pulled(graph, channels)], axis=1)
    return out[:, :num_out] if out.shape[1] >= num_out else np.pad(out, ((0, 0), (0, num_out - out.shape[1])))


def _graph(layout: str, from_hz: int, to_layout: str, to_hz: int) -> Graph:
    graph = Graph()
    source = graph.add("abuffer", sample_rate=str(from_hz), sample_fmt="flt", channel_layout=layout, time_base=f"1/{from_hz}")
    # Without a limit libswresample lets sums of float channels grow beyond 1; that of integers it limits by itself.
    mix = graph.add("aresample", rematrix_maxval="1.0")
    form = graph.add("aformat", sample_rates=str(to_hz), sample_fmts="flt", channel_layouts=to_layout)
    graph.link_nodes(source, mix, form, graph.add("abuffersink"))
    graph.configure()
    return graph


def _pulled(graph: Graph, channels: int) -> list[np.ndarray]:
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray().reshape(-1, channels).T)
        except (EOFError, BlockingIOError):
            return parts
