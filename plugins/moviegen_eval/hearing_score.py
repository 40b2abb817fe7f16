"""Comparing what the oracle for sound hears with what a scene says, and what chance would score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from moviegen_core.errors import UsageError
from moviegen_data.toyworld import AMBIENCES, TIMBRES, Event, SceneSpec
from moviegen_eval.hearing import Hearing, SoundOracle
from moviegen_eval.onsets import OnsetScore, onset_f1
from moviegen_eval.timbre import PITCHES

TOGETHER_S = 0.05  # knocks nearer than this are one onset to the ear


@dataclass(frozen=True)
class HearingScore:
    """How often what was heard is what the scene's events and words say; None where there was nothing of the kind to hear.

    Args:
        onsets: onsets found and missed in all clips together.
        timbre: fraction of sounding objects with the right timbre, whenever it was heard.
        pitch: the same for the pitch, the timbre being right too.
        ambience: fraction of clips with the right ambience.
        quiet: fraction of clips without events in which no onset was heard.
        music: fraction of clips in which music was rightly heard or not heard.
        num_clips: how many clips were scored.
    """

    onsets: OnsetScore
    timbre: float | None
    pitch: float | None
    ambience: float
    quiet: float | None
    music: float
    num_clips: int

    def to_dict(self) -> dict[str, float]:
        """The figures that reports quote, those that exist."""
        named = {"onset_f1": self.onsets.f1, "onset_precision": self.onsets.precision, "onset_recall": self.onsets.recall}
        named |= {name: getattr(self, name) for name in ("timbre", "pitch", "ambience", "quiet", "music")}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Comparison:
    """One clip's part of a score.

    Args:
        onsets: onsets found and missed.
        timbres: for each sounding object, whether its timbre was heard.
        pitches: for each sounding object, whether its timbre was heard at its pitch.
        ambience: whether the ambience is right.
        music: whether music was rightly heard or not heard.
    """

    onsets: OnsetScore
    timbres: tuple[bool, ...]
    pitches: tuple[bool, ...]
    ambience: bool
    music: bool


def score_sounds(
    audios: Sequence[np.ndarray | Tensor],
    audio_hz: int,
    specs: Sequence[SceneSpec],
    events: Sequence[Sequence[Event]],
    *,
    tolerance_s: float = 0.04,
) -> HearingScore:
    """Listen to every sound, then compare with what should be heard.

    Args:
        audios: sounds, each as `SoundOracle.read` takes it.
        audio_hz: their samples per second.
        specs: the scene of each.
        events: what happens in each.
        tolerance_s: how far an onset may be from its event, in seconds.
    """
    if not len(audios) == len(specs) == len(events) or not len(audios):
        given = f"{len(audios)} sounds, {len(specs)} scenes and {len(events)} lists of events were given"
        raise UsageError(given, "each sound has its scene and events", "give as many of all, at least one")
    oracle = SoundOracle()
    heard = [oracle.read(audio, audio_hz) for audio in audios]
    return summarise([compare(*each, tolerance_s=tolerance_s) for each in zip(heard, specs, events, strict=True)])


def compare(hearing: Hearing, spec: SceneSpec, events: Sequence[Event], *, tolerance_s: float = 0.04) -> Comparison:
    """Compare what was heard with a scene and its events.

    Where one object sounds, the timbre of most knocks must be its; where two do, each one's timbre must be among those heard.
    """
    sounding = [spec.objects[index] for index in sorted({event.object_index for event in events})]
    wanted = [(TIMBRES[item.shape], PITCHES[item.size]) for item in sounding]
    if len(wanted) == 1:
        found = {(hearing.timbre, hearing.pitch)}
    else:
        found = {(knock.timbre, knock.pitch) for knock in hearing.knocks}
    return Comparison(
        onsets=onset_f1(distinct_onsets(events), hearing.onsets_s, tolerance_s=tolerance_s),
        timbres=tuple(timbre in {name for name, _ in found} for timbre, _ in wanted),
        pitches=tuple(each in found for each in wanted),
        ambience=hearing.ambience == AMBIENCES[spec.ground.kind],
        music=hearing.music == spec.music,
    )


def summarise(clips: Sequence[Comparison]) -> HearingScore:
    """The score of many clips."""
    quiet = [not clip.onsets.num_estimate for clip in clips if not clip.onsets.num_reference]
    return HearingScore(
        onsets=sum((clip.onsets for clip in clips), OnsetScore()),
        timbre=_mean([right for clip in clips for right in clip.timbres]),
        pitch=_mean([right for clip in clips for right in clip.pitches]),
        ambience=_mean([clip.ambience for clip in clips]) or 0.0,
        quiet=_mean(quiet),
        music=_mean([clip.music for clip in clips]) or 0.0,
        num_clips=len(clips),
    )


def distinct_onsets(events: Sequence[Event]) -> list[float]:
    """When events are heard, in seconds; events so near to each other that they sound as one count once."""
    times: list[float] = []
    for time_s in sorted(event.time_s for event in events):
        if not times or time_s - times[-1] >= TOGETHER_S:
            times.append(time_s)
    return times


def hearing_chance(events: Sequence[Sequence[Event]], *, tolerance_s: float = 0.04) -> dict[str, float]:
    """What one who neither sees nor reads would score: his best single onset for all of these clips, and uniform guesses of the names."""
    onsets = blind_onset_f1([distinct_onsets(each) for each in events], tolerance_s=tolerance_s)
    return {"onset_f1": onsets, "timbre": 1 / len(TIMBRES), "pitch": 1 / len(TIMBRES) / len(PITCHES), "ambience": 1 / len(AMBIENCES)}


def blind_onset_f1(references: Sequence[Sequence[float]], *, tolerance_s: float = 0.04, guess_s: float | None = None) -> float:
    """F1 over all clips of one onset that is guessed for every clip.

    Args:
        references: the onsets of each clip, in seconds.
        tolerance_s: how far apart a pair may be, in seconds.
        guess_s: the guess; the best one for these very clips unless given, which is generous.
    """
    times = np.sort(np.concatenate([np.asarray(each, float) for each in references])) if len(references) else np.zeros(0)
    if not len(times):
        return 1.0
    guesses = times + tolerance_s if guess_s is None else np.array([guess_s])
    hits = [
        sum(bool(len(each)) and np.abs(np.subtract(each, guess)).min() <= tolerance_s + 1e-9 for each in references) for guess in guesses
    ]
    return float(2.0 * max(hits) / (len(times) + len(references)))


def events_of(metadata: Mapping[str, Any]) -> tuple[SceneSpec, list[Event]]:
    """A toy clip's scene and events from its metadata."""
    if "scene" not in metadata or "events" not in metadata:
        told = ", ".join(metadata) or "nothing"
        raise UsageError(f"metadata of {told} was given", "the oracle needs 'scene' and 'events'", "predict with ToyWorldData")
    return SceneSpec.from_dict(metadata["scene"]), [Event(**event) for event in metadata["events"]]


def _mean(values: Sequence[bool]) -> float | None:
    return float(np.mean(values)) if len(values) else None
