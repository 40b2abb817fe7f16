"""The sound of clips: whether there is any, how loud it is, and how much of the time it is silent (6.2)."""

import math

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import stretch
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage
from moviegen_data.faults import SampleError
from moviegen_data.loudness import SILENCE_DB, SoundMeter


class Sound(ClipStage):
    """Measures the sound of clips, and drops silent ones where sound is wanted.

    Fact `has_audio`. Scores, where there is a track: `silence`, the share of the time below -60 dB; `peak`, the highest absolute sample;
    and `loudness_lufs` (BS.1770-4), which a silent clip lacks.

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
        clip = clip.described(has_audio=True).scored(silence=meter.silence, peak=meter.peak)
        if heard := math.isfinite(meter.loudness):
            clip = clip.scored(loudness_lufs=meter.loudness)
        if meter.silence > self.max_silence:
            return clip.dropped("silent", measured=f"{meter.silence:.0%} below {SILENCE_DB:g} dB", wanted=f"at most {self.max_silence:.0%}")
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
        end_s = clip.end_s if media.kind == "sound" else stretch(clip, media)[1]
        audio, hz = media.sound(clip.start_s, end_s)
        if not audio.shape[1]:
            return None
        meter = SoundMeter(audio_hz=hz, num_channels=info.num_channels)
        meter.add(audio.numpy())
        return meter
