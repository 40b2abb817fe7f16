"""The sound of clips: whether there is any, how loud it is, and how much of the time it is silent (6.2)."""

import math

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import stretch
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage
from moviegen_data.faults import SampleError
from moviegen_data.loudness import SILENCE_DB, SoundMeter

_PIECE_S = 60.0  # bounds the memory: an hour of stereo has more than a gigabyte


class Sound(ClipStage):
    """Measures the sound of clips, and drops silent ones where sound is wanted.

    Fact `has_audio`. Scores, where there is a track: `silence`, the share of the time below -60 dB, or of a video behind the track's end;
    `peak`, the highest absolute sample; and `loudness_lufs` (BS.1770-4), which a silent clip lacks.

    Args:
        require: whether clips without a track are dropped, for sets that sound is learnt from.
        max_silence: share of silence above which a clip that has a track is dropped, 0 to 1. The paper drops videos where silence is the
            dominant class of what is heard (6.2.2). A dog that barks now and then is silent for 60% of the time. 1 drops none.
        min_loudness_lufs: least loudness of a clip that has a track; any unless given.

    Raises:
        UsageError: a number is out of range.
    """

    def __init__(self, *, require: bool = True, max_silence: float = 0.8, min_loudness_lufs: float | None = None) -> None:
        if not 0.0 <= max_silence <= 1.0 or (min_loudness_lufs is not None and not -120.0 <= min_loudness_lufs <= 0.0):
            given = f"max_silence={max_silence} and min_loudness_lufs={min_loudness_lufs} were given"
            raise UsageError(given, "silence is a share of 0 to 1, and loudness -120 to 0 LUFS", "give e.g. 0.5 and -50")
        self.require, self.max_silence, self.min_loudness_lufs = require, max_silence, min_loudness_lufs

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Measure one clip."""
        meter = self._meter(clip, media)
        if meter is None:
            clip = clip.described(has_audio=False)
            return clip.dropped("no sound", wanted="a sound track") if self.require else clip
        silence = _silence(meter, clip, media)
        clip = clip.described(has_audio=True).scored(silence=silence, peak=meter.peak)
        if heard := math.isfinite(meter.loudness):
            clip = clip.scored(loudness_lufs=meter.loudness)
        if silence > self.max_silence:
            return clip.dropped("silent", measured=f"{silence:.0%} below {SILENCE_DB:g} dB", wanted=f"at most {self.max_silence:.0%}")
        if self.min_loudness_lufs is not None and not (heard and meter.loudness >= self.min_loudness_lufs):
            measured = f"{meter.loudness:.1f} LUFS" if heard else "silence"
            return clip.dropped("not loud enough", measured=measured, wanted=f"at least {self.min_loudness_lufs:g} LUFS")
        return clip

    def _meter(self, clip: Clip, media: Media) -> SoundMeter | None:
        """What was measured of a clip's stretch; None without a track, or where it has ended before."""
        try:
            info = media.audio_info
        except SampleError as error:
            if error.cause != "no sound":
                raise
            return None
        end_s = clip.end_s if media.kind == "sound" else stretch(clip, media)[1]  # of a sound the header may err
        meter, begin_s = SoundMeter(audio_hz=info.audio_hz, num_channels=info.num_channels), clip.start_s
        while end_s is None or begin_s < end_s:
            piece_s = _PIECE_S if end_s is None else min(_PIECE_S, end_s - begin_s)
            audio, hz = media.sound(begin_s, begin_s + piece_s)
            meter.add(audio.numpy())
            if audio.shape[1] < round(piece_s * hz):  # the track's end
                break
            begin_s += piece_s
        return meter if meter.num_samples else None


def _silence(meter: SoundMeter, clip: Clip, media: Media) -> float:
    """Share of the time that is silent, or of a video behind the end of its track."""
    heard_s = meter.num_samples / meter.audio_hz
    start_s, end_s = stretch(clip, media) if media.kind == "video" else (0.0, heard_s)
    length_s = max(heard_s, end_s - start_s)
    return (meter.silence * heard_s + length_s - heard_s) / length_s
