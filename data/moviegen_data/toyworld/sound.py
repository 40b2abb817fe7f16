"""From a scene to its sound: a knock at each event with a timbre by shape and a pitch by size, an ambience by ground, and perhaps music.

The three keep to bands of their own: music lies between 130 and 340 Hz, knocks between 500 Hz and 7 kHz, and every ambience has a band that
no other has. So each of them can be heard while the others sound. Waveforms are functions of time, sampled at any rate: an event in the
middle of two samples sounds in the middle of two samples.
"""

from collections.abc import Callable, Sequence

import numpy as np

from moviegen_data.toyworld.events import Event
from moviegen_data.toyworld.scene import SHAPES, SceneSpec

TIMBRES = dict(zip(SHAPES, ("bell", "wood", "metal", "burst", "spring"), strict=True))
AMBIENCES = {"black": "silence", "grey": "hum", "white": "air", "stripes": "fan", "checker": "murmur", "gradient": "wind"}
PITCH_HZ = {"small": 1040.0, "large": 520.0}
KNOCK_PEAK, AMBIENCE_RMS, MUSIC_PEAK = 0.45, 0.008, 0.05
LONGEST_KNOCK_S = 0.25
LEAST_HZ = 4000
_LOUDEST = 0.95
_ATTACK_S = 0.001
_HIGHEST = 0.45  # of the sampling rate; partials above it are left out

# Lowest and highest frequency in Hz, beats per second and depth of the swelling.
_AMBIENT_NOISE = {"air": (4000.0, 7000.0, 0.0, 0.0), "fan": (1900.0, 2800.0, 5.0, 0.6), "murmur": (360.0, 640.0, 0.0, 0.0)}
_AMBIENT_NOISE["wind"] = (900.0, 1500.0, 0.4, 0.5)
# Semitones above C3; major, minor, suspended and major seventh.
_CHORDS = ((0, 4, 7, 12), (0, 3, 7, 12), (2, 7, 9, 14), (0, 4, 7, 11))
_C3_HZ = 130.81


def render_sound(
    spec: SceneSpec, events: Sequence[Event], *, num_samples: int, audio_hz: int = 48000, knock_grid_hz: float | None = None
) -> np.ndarray:
    """Render the sound of a scene: mono float32 (1, s) with a peak below 1, the same for the same scene on every machine.

    Args:
        spec: the scene.
        events: what is heard in it, and when.
        num_samples: its length.
        audio_hz: samples per second.
        knock_grid_hz: knocks sound at the nearest multiple of one over this, and every burst of noise is the same one; None leaves them
            where they happen, each with noise of its own.
    """
    sound = _ambience(AMBIENCES[spec.ground.kind], num_samples, audio_hz, seed=spec.seed)
    if spec.music:
        sound += _arpeggio(num_samples, audio_hz, seed=spec.seed)
    for index, event in enumerate(events):
        item = spec.objects[event.object_index]
        time_s = event.time_s if knock_grid_hz is None else round(event.time_s * knock_grid_hz) / knock_grid_hz
        first = max(int(np.ceil(time_s * audio_hz)), 0)
        seed = spec.seed + index if knock_grid_hz is None else 0
        part = knock(item.shape, item.size, audio_hz=audio_hz, delay_s=first / audio_hz - time_s, seed=seed)
        sound[first : first + len(part)] += KNOCK_PEAK * part[: max(num_samples - first, 0)]
    # Two knocks may fall together; quieter as a whole is better than clipped.
    sound *= min(1.0, _LOUDEST / max(abs(sound).max(initial=0.0), 1e-9))
    return sound.astype(np.float32)[None]


def knock(shape: str, size: str, *, audio_hz: int = 48000, delay_s: float = 0.0, seed: int = 0) -> np.ndarray:
    """One knock of a shape, with a peak of at most about 1 (n,).

    Args:
        shape: decides the timbre, one of `SHAPES`.
        size: decides the pitch: "small" sounds an octave above "large".
        audio_hz: samples per second.
        delay_s: how long after the attack the first sample is taken, in seconds.
        seed: of the noise, where the timbre has any.
    """
    times = np.arange(round(LONGEST_KNOCK_S * audio_hz)) / audio_hz + delay_s
    pitch = PITCH_HZ[size]
    sound = _KNOCKS[TIMBRES[shape]](times, pitch, audio_hz, seed)
    # The end fades within 50 ms, so that what is left of the decay is not cut.
    fade = np.clip((LONGEST_KNOCK_S - times) / 0.05, 0.0, 1.0)
    return sound * np.clip(times / _ATTACK_S, 0.0, 1.0) * fade


def _bell(times: np.ndarray, pitch: float, audio_hz: int, seed: int) -> np.ndarray:
    """A pure tone with a trace of its octave that rings for a quarter of a second."""
    return _partials(times, pitch, audio_hz, ((1.0, 0.85, 0.075), (2.0, 0.15, 0.04)))


def _wood(times: np.ndarray, pitch: float, audio_hz: int, seed: int) -> np.ndarray:
    """Odd harmonics, as of a hollow block, gone within a tenth of a second."""
    return _partials(times, pitch, audio_hz, ((1.0, 0.74, 0.028), (3.0, 0.52, 0.022), (5.0, 0.3, 0.014)))


def _metal(times: np.ndarray, pitch: float, audio_hz: int, seed: int) -> np.ndarray:
    """The stretched partials of a free bar (1, 2.76, 5.40), and between them those of a plate; long."""
    multiples, decays_s = (1.0, 1.51, 2.76, 4.07, 5.40), (0.1, 0.1, 0.09, 0.08, 0.07)
    return _partials(times, pitch, audio_hz, tuple(zip(multiples, (0.22, 0.22, 0.24, 0.18, 0.14), decays_s, strict=True)))


def _burst(times: np.ndarray, pitch: float, audio_hz: int, seed: int) -> np.ndarray:
    """A burst of noise two octaves wide."""
    low = 1.6 * pitch
    noise = _noise(len(times), audio_hz, low, 4.0 * low, np.random.default_rng([seed, 13]))
    return 0.33 * noise * np.exp(-times / 0.05)


def _spring(times: np.ndarray, pitch: float, audio_hz: int, seed: int) -> np.ndarray:
    """A tone with its octave that glides up by an octave: the boing of a spring."""
    rise_s = 0.16
    along = np.minimum(times / rise_s, 1.0)
    # The integral of pitch · 2^along, and constant pitch after the rise.
    cycles = pitch * (rise_s / np.log(2.0) * (2.0**along - 1.0) + 2.0 * np.maximum(times - rise_s, 0.0))
    return (0.75 * np.sin(2 * np.pi * cycles) + 0.25 * np.sin(4 * np.pi * cycles)) * np.exp(-times / 0.07)


_KNOCKS: dict[str, Callable[[np.ndarray, float, int, int], np.ndarray]] = {
    "bell": _bell,
    "wood": _wood,
    "metal": _metal,
    "burst": _burst,
    "spring": _spring,
}


def _partials(times: np.ndarray, pitch: float, audio_hz: int, partials: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """Decaying sines; of each its multiple of the pitch, amplitude, and seconds to fall to 1/e."""
    heard = [partial for partial in partials if partial[0] * pitch < _HIGHEST * audio_hz]
    return sum(
        (share * np.exp(-times / decay_s) * np.sin(2 * np.pi * multiple * pitch * times) for multiple, share, decay_s in heard),
        np.zeros(len(times)),
    )


def _ambience(kind: str, length: int, audio_hz: int, *, seed: int) -> np.ndarray:
    if kind == "silence":
        return np.zeros(length)
    rng = np.random.default_rng([seed, 11])
    times = np.arange(length) / audio_hz
    if kind == "hum":
        mains, octave = (np.sin(2 * np.pi * (hz * times + rng.random())) for hz in (60.0, 120.0))
        return AMBIENCE_RMS * (1.2 * mains + 0.7 * octave)
    low, high, beats_hz, depth = _AMBIENT_NOISE[kind]
    swelling = 1.0 + depth * np.sin(2 * np.pi * (beats_hz * times + rng.random()))
    return AMBIENCE_RMS * swelling * _noise(length, audio_hz, low, high, rng)


def _noise(length: int, audio_hz: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of one band in Hz with a root mean square of 1; the same but for its sampling at any rate that holds the band."""
    first, last = (int(np.ceil(edge * length / audio_hz)) for edge in (low, high))
    phases = rng.random(max(last - first, 0))
    spectrum = np.zeros(length // 2 + 1, dtype=complex)
    room = max(min(last, int(_HIGHEST * length)) - first, 0)
    spectrum[first : first + room] = np.exp(2j * np.pi * phases[:room])
    return np.fft.irfft(spectrum, length) * length / np.sqrt(2.0 * max(len(phases), 1)) if length else np.zeros(0)


def _arpeggio(length: int, audio_hz: int, *, seed: int) -> np.ndarray:
    """Broken chords, a new one every eight notes; notes begin softly, so that nobody takes them for knocks."""
    rng = np.random.default_rng([seed, 19])
    note_s, root = rng.uniform(0.22, 0.32), int(rng.integers(0, 3))
    sound = np.zeros(length)
    times = np.arange(round(2 * note_s * audio_hz)) / audio_hz
    shape = np.sin(np.pi * times / (2 * note_s)) ** 2
    chord: tuple[int, ...] = ()
    for number in range(int(np.ceil(length / audio_hz / note_s)) + 1):
        if number % 8 == 0:
            chord = _CHORDS[int(rng.integers(len(_CHORDS)))]
        pitch = _C3_HZ * 2.0 ** ((root + chord[(0, 1, 2, 3, 2, 1, 0, 2)[number % 8]]) / 12)
        first = round((number - 1) * note_s * audio_hz)
        begin, end = max(first, 0), min(first + len(times), length)
        if begin < end:
            sound[begin:end] += (shape * np.sin(2 * np.pi * pitch * times))[begin - first : end - first]
    return MUSIC_PEAK * sound
