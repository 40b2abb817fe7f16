"""From a sample's bytes to a chunk of sound, with the frames or the visual features of the very same span."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from moviegen_data.audio import EXTENSIONS as SOUNDS
from moviegen_data.audio import AudioDecoder, Sound
from moviegen_data.audio_buckets import AudioBucket
from moviegen_data.decoding import VIDEOS, ClipPosition, Decoded, SampleDecoder, number_of
from moviegen_data.faults import SampleError
from moviegen_data.limits import MediaLimits
from moviegen_data.loudness import Normalize, gain
from moviegen_data.reader import Sample
from moviegen_data.rows import LatentRows
from moviegen_data.sound import check_sound
from moviegen_data.tensors import read_visual

MissingAudio = Literal["skip", "silence"]
VISUAL = "visual.safetensors"


class AudioSampleDecoder(SampleDecoder):
    """Decodes chunks of sound.

    Args:
        audio_hz: samples per second.
        audio_channels: 1 mono, 2 stereo.
        video: decode the frames of the span too, where a sample has some.
        visual_features: read the features of the span too, where a sample has some.
        missing_audio: a sample without a sound track is a bad one (`skip`), or silent (`silence`).
        normalize: bring every chunk to one peak or loudness.
        target_db: the level, see `moviegen_data.loudness.gain`.
        max_silence: largest share of silence in the whole sound.
        hold_last: frames that a short video lacks repeat its last.
        latents: read cached latents instead of sounds.
        text: read precomputed text embeddings.
        require_caption: a sample without a caption is a bad sample.
        clip_position: where in a longer sound the chunk starts.
        num_threads: threads of the video codec.
        limits: the largest media that are decoded.
    """

    def __init__(
        self,
        *,
        audio_hz: int = 48000,
        audio_channels: int = 1,
        video: bool = False,
        visual_features: bool = False,
        missing_audio: MissingAudio = "skip",
        normalize: Normalize = "none",
        target_db: float | None = None,
        max_silence: float = 1.0,
        hold_last: bool = False,
        latents: bool = False,
        text: bool = False,
        require_caption: bool = False,
        clip_position: ClipPosition = "random",
        num_threads: int = 1,
        limits: MediaLimits | None = None,
    ) -> None:
        super().__init__(
            latents=latents, text=text, require_caption=require_caption, clip_position=clip_position, num_threads=num_threads, limits=limits
        )
        self.sounds = AudioDecoder(audio_hz=audio_hz, channels=audio_channels, limits=self.limits)
        self.audio_hz, self.audio_channels = audio_hz, audio_channels
        self.video, self.visual_features, self.missing_audio = video, visual_features, missing_audio
        self.normalize, self.target_db, self.max_silence, self.hold_last = normalize, target_db, max_silence, hold_last

    def pixel_shape(self, bucket: AudioBucket) -> tuple[int, int, int] | None:
        """Frames, rows and columns beside the sounds of a bucket."""
        wanted = self.video and not self.latents and bucket.with_picture
        return (bucket.num_frames, bucket.height, bucket.width) if wanted else None

    def num_bytes(self, sample: Sample, bucket: AudioBucket) -> int:
        """Bytes that a decoded sample of a bucket takes in a batch."""
        sound = 0 if self.latents else 4 * self.audio_channels * round(bucket.duration_s * self.audio_hz)
        return super().num_bytes(sample, bucket) + sound

    def has_picture(self, sample: Sample) -> bool:
        """True where a sample brings all that is wanted beside the sound."""
        wanted = [*([VIDEOS] if self.video and not self.latents else []), *([(VISUAL,)] if self.visual_features else [])]
        return bool(wanted) and all(any(name in sample for name in names) for names in wanted)

    def duration(self, sample: Sample, *, with_picture: bool) -> float | None:
        """Seconds a chunk may lie in: of the picture where it is wanted, otherwise of the sound; None where nothing says.

        Raises:
            SampleError: the sample is surely a bad one.
        """
        record = sample.metadata
        self._refuse_silence(number_or_zero(record.get("silence")))
        name, extension, _ = find_sound(sample)
        if isinstance(record.get("audio_problem"), str) and extension in VIDEOS:
            cause, _, detail = record["audio_problem"].partition(": ")
            raise SampleError(cause, detail)
        if extension is None or (record.get("has_audio") is False and extension in VIDEOS):
            if self.missing_audio == "skip":
                raise SampleError("no sound", f"it has {', '.join(sample) or 'nothing'}")
            return number_of(record.get("duration_s"))
        if with_picture:
            given = number_of(record.get("duration_s"))
            if given is None and self.video:
                given = next(self.videos.probe(sample[kind]).duration_s for kind in VIDEOS if kind in sample)
            if given is not None:
                return given
        given = number_of(record.get(name))
        if given is not None:
            return given
        try:
            return self.sounds.probe(sample[extension]).duration_s
        except SampleError as error:
            if error.cause != "no sound" or self.missing_audio == "skip":
                raise
            return self.videos.probe(sample[extension]).duration_s

    def __call__(
        self, sample: Sample, bucket: AudioBucket, out: Shaped[Tensor, "3 t h w"] | LatentRows | None, seed: tuple[int, ...]
    ) -> Decoded:
        """Decode one sample; its pixels go into `out`, or its latent into the next row.

        Raises:
            SampleError: the sample cannot be used.
        """
        metadata, latent, sound, fps = dict(sample.metadata), None, None, None
        if self.latents:
            latent, fps = self._latent(sample, metadata, out)
            extras = self._features(sample, None, 0.0) if self.visual_features and bucket.with_picture else {}
        else:
            start_s, fps = self._place(sample, bucket, out, seed)
            sound = self._sound(sample, bucket, start_s)
            if not sound.valid_s and start_s and not bucket.with_picture:  # the json promised more than there is
                start_s = 0.0
                sound = self._sound(sample, bucket, start_s)
            metadata |= {"start_s": start_s, "valid_s": sound.valid_s}
            extras = self._features(sample, bucket, start_s) if self.visual_features and bucket.with_picture else {}
        return Decoded(
            key=sample.key,
            caption=self.caption(sample, metadata, None),
            metadata=metadata,
            fps=fps,
            latent=latent,
            text=self._text(sample, metadata) if self.text else {},
            extras={**extras, **self.extras(sample, metadata)},
            audio=None if sound is None else sound.audio,
            audio_hz=None if sound is None else sound.audio_hz,
        )

    def _place(self, sample: Sample, bucket: AudioBucket, out: Tensor | None, seed: tuple[int, ...]) -> tuple[float, float | None]:
        """Where the chunk starts, and the rate of its frames, which go into `out`."""
        position = self.position(seed)
        if out is not None:
            data = next(sample[kind] for kind in VIDEOS if kind in sample)
            span = self.videos.decode(data, out, fps=bucket.fps, position=position, hold_last=self.hold_last, middles=True)
            return span.start_s, span.fps
        duration_s = self.duration(sample, with_picture=bucket.with_picture)
        return max(0.0, (duration_s or 0.0) - bucket.duration_s) * position, None

    def _sound(self, sample: Sample, bucket: AudioBucket, start_s: float) -> Sound:
        num_samples = round(bucket.duration_s * self.audio_hz)
        _, extension, has_track = find_sound(sample)
        if self.missing_audio == "silence" and not has_track:
            return _silence(self.audio_channels, num_samples, self.audio_hz, start_s)
        if extension is None:
            raise SampleError("no sound", f"it has {', '.join(sample) or 'nothing'}")
        data = sample[extension]
        if self.max_silence < 1.0 and "silence" not in sample.metadata:
            self._refuse_silence(check_sound(data, self.limits)["silence"])
        try:
            sound = self.sounds.decode(data, start_s=start_s, duration_s=bucket.duration_s)
        except SampleError as error:
            if error.cause != "no sound" or self.missing_audio == "skip":
                raise
            return _silence(self.audio_channels, num_samples, self.audio_hz, start_s)
        audio = sound.audio
        if self.normalize != "none":
            audio = audio * gain(audio.numpy(), self.audio_hz, self.normalize, self.target_db)
        # Lossy codecs overshoot a little; a player clamps too.
        return Sound(audio.clamp(-1.0, 1.0), self.audio_hz, sound.start_s, sound.valid_s)

    def _refuse_silence(self, share: float) -> None:
        if share > self.max_silence:
            raise SampleError("too much silence", f"{share:.0%} of the time, at most {self.max_silence:.0%}")

    def _features(self, sample: Sample, bucket: AudioBucket | None, start_s: float) -> Mapping[str, Tensor]:
        """Of the frames on the screen in the middle of each of the chunk's; all beside a cached latent, which is a chunk already."""
        features, fps = read_visual(sample[VISUAL])
        if bucket is not None and bucket.fps is not None:
            middles = start_s + (np.arange(bucket.num_frames) + 0.5) / bucket.fps
            shown = np.floor(middles * fps).astype(np.int64)
            features, fps = features[torch.from_numpy(shown.clip(0, len(features) - 1))], bucket.fps
        return {"visual_features": features, "visual_fps": torch.tensor(fps, dtype=torch.float32)}


def find_sound(sample: Sample) -> tuple[str, str | None, bool]:
    """The json's field with the length of a sample's sound, the part that holds it, and whether one may be there by the json.

    A sound of its own goes before the track of a video.
    """
    for extension in SOUNDS:
        if extension in sample:
            return "duration_s" if not any(kind in sample for kind in VIDEOS) else "audio_duration_s", extension, True
    for extension in VIDEOS:
        if extension in sample:
            return "audio_duration_s", extension, sample.metadata.get("has_audio") is not False
    return "audio_duration_s", None, False


def number_or_zero(value: Any) -> float:
    """A json's share as a number, 0 where it says nothing of use."""
    return number_of(value) or 0.0


def _silence(channels: int, num_samples: int, hz: int, start_s: float) -> Sound:
    return Sound(torch.zeros(channels, num_samples), hz, start_s, 0.0)
