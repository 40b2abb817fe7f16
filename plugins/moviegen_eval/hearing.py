"""The toy world's oracle for sound: hears knocks, their timbre and pitch, the ambience and music, without ever seeing prompt or scene.

Classical signal processing only; nothing here is trained. It judges generated sounds, so it has to survive codecs, noise and lost treble,
and to say "none" rather than guess when there is nothing to hear.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from moviegen_eval.ambience import read_ambience
from moviegen_eval.onsets import HOP, detect_onsets
from moviegen_eval.timbre import LEAST_HZ, MOST_HZ, KnockReading, knock_levels, read_knock
from moviegen_eval.waveforms import HEARING_HZ, as_waveform


@dataclass(frozen=True)
class HeardKnock:
    """One onset, and what begins there.

    Args:
        time_s: when, in seconds.
        timbre: a timbre of the toy world, or "none".
        pitch: "high", "low" or "none".
        confidence: of the timbre, "none" included, 0 to 1.
    """

    time_s: float
    timbre: str
    pitch: str
    confidence: float


@dataclass(frozen=True)
class Hearing:
    """What the oracle hears of a sound.

    Args:
        knocks: the onsets in order of time.
        ambience: a kind of ambience, "silence", or "none" where it cannot be told.
        music: whether music plays.
        ambience_confidence: 0 to 1.
    """

    knocks: tuple[HeardKnock, ...]
    ambience: str
    music: bool
    ambience_confidence: float

    @property
    def onsets_s(self) -> list[float]:
        """Where sounds begin, in seconds."""
        return [knock.time_s for knock in self.knocks]

    @property
    def timbre(self) -> str:
        """The timbre of most knocks; "none" where there are none."""
        return _most([knock.timbre for knock in self.knocks])

    @property
    def pitch(self) -> str:
        """The pitch of most knocks; "none" where there are none."""
        return _most([knock.pitch for knock in self.knocks])


class SoundOracle:
    """Hears toy sounds. It holds no state and no settings."""

    def read(self, audio: np.ndarray | Tensor, audio_hz: int) -> Hearing:
        """Listen to one sound.

        Args:
            audio: (s,) or (channels, s) in [-1, 1], or integers.
            audio_hz: its samples per second.
        """
        wave = as_waveform(audio, audio_hz)
        onsets = detect_onsets(wave, HEARING_HZ, low_hz=LEAST_HZ, high_hz=MOST_HZ)
        ends = [*onsets, len(wave) / HEARING_HZ][1:]
        levels = knock_levels(wave) if onsets else np.zeros((0, 1))
        hops = HEARING_HZ / HOP
        readings = [read_knock(levels, onset * hops, until=end * hops) for onset, end in zip(onsets, ends, strict=True)]
        ambience, confidence, music = read_ambience(wave, np.array(onsets) * HEARING_HZ)
        return Hearing(tuple(map(_heard, onsets, readings)), ambience, music, confidence)


def _heard(time_s: float, reading: KnockReading) -> HeardKnock:
    return HeardKnock(time_s, reading.timbre, reading.pitch, reading.confidence)


def _most(names: Sequence[str]) -> str:
    return Counter(names).most_common(1)[0][0] if names else "none"
