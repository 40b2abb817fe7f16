"""What is heard in clips, as a stage of curation: tags, audio types, and whether the sound belongs to the scene (6.2.1, 6.2.2)."""

import math
from collections.abc import Sequence
from functools import cached_property

import torch

from moviegen_audio.categories import AudioType, audio_types, diegesis
from moviegen_audio.similarity import ExportedAudioVideoScorer
from moviegen_audio.tagging import AudioTagger
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation import Clip, ClipStage, Media
from moviegen_data.curation.fingerprints import fingerprint_of
from moviegen_data.curation.looking import stretch
from moviegen_data.curation.pretrained import pick_device
from moviegen_data.faults import SampleError

_LIKENESS_PX = 512  # longer side of the frames; the models see less
_MOST_FRAMES = 256  # bounds the memory of a long video's frames to 1.4 GB


class SoundTags(ClipStage):
    """Tags what is heard in clips, and sorts them as Tables 23 and 24 do; drops those where silence is the dominant class (6.2.2).

    Annotations: `audio_tags`, label to likelihood of those at or above the threshold, the likeliest first; `audio_types`, any of `voice`,
    `music` and `sound`; and with a model of likeness `diegesis`: `diegetic`, `non-diegetic`, `mixed`, or None where the table has no
    place. Score `audio_video_likeness`, the cosine of Table 24. A clip without sound is dropped too.

    Args:
        pretrained: folder of an audio classifier with AudioSet's labels, as `AudioTagger` takes it.
        threshold: likelihood from which on a tag is taken for detected, 0 to 1; the paper does not tell its own.
        likeness: folder of an audio-video model, as `ExportedAudioVideoScorer` takes it; diegesis is left open unless given.
        keep: categories of diegesis that pass, e.g. `[diegetic, mixed]` (6.2.2); all unless given.
        without: audio types that a clip may not have, e.g. `[voice]` for the cinematic split (6.2.3).
        max_tags: tags that are annotated at most.
        likeness_fps: frames per second that the model of likeness sees, of a long clip fewer: 256 in all.
        device: where the tagger runs, `cpu`, `cuda`, ...; the GPU where there is one unless given. The model of likeness runs on the CPU.

    Raises:
        UsageError: a number is out of range, or `keep` was given without a model of likeness.
    """

    def __init__(
        self,
        *,
        pretrained: str,
        threshold: float = 0.2,
        likeness: str | None = None,
        keep: Sequence[str] | None = None,
        without: Sequence[AudioType] = (),
        max_tags: int = 10,
        likeness_fps: float = 4.0,
        device: str | None = None,
    ) -> None:
        require_at_least(1, max_tags=max_tags)
        if not 0.0 <= threshold <= 1.0 or not 0.0 < likeness_fps < float("inf"):
            given = f"threshold={threshold} and likeness_fps={likeness_fps} were given"
            raise UsageError(given, "tags have likelihoods of 0 to 1, and a rate is above 0", "give e.g. 0.2 and 4")
        if keep is not None and likeness is None:
            raise UsageError(f"keep={list(keep)} was given", "diegesis needs a model of likeness", "give `likeness`, or leave `keep` out")
        unknown = sorted({*(keep or ())} - {"diegetic", "non-diegetic", "mixed"}) + sorted({*without} - {"voice", "music", "sound"})
        if unknown:
            known = "categories are diegetic, non-diegetic and mixed, types voice, music and sound"
            raise UsageError(f"{unknown[0]!r} was given in `keep` or `without`", known, "give one of them")
        self.pretrained, self.threshold, self.likeness, self.max_tags = pretrained, threshold, likeness, max_tags
        self.keep, self.without = None if keep is None else tuple(keep), tuple(without)
        self.likeness_fps, self.device = likeness_fps, device
        self.uses_gpu = device != "cpu"

    def fingerprint(self) -> str:
        return fingerprint_of(self.pretrained, self.likeness)

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Tag one clip."""
        audio, hz = media.sound(clip.start_s, clip.end_s if media.kind == "sound" else stretch(clip, media)[1])
        if not audio.shape[1]:
            raise SampleError("no sound", "the track ends before the clip begins")
        (tags,) = self._tagger.tag(audio[None].to(pick_device(self.device, stage="SoundTags")), hz)
        if not all(map(math.isfinite, tags.values())):
            raise SampleError("cannot be tagged", "the classifier gives no numbers")
        likeliest = sorted(tags, key=lambda label: (-tags[label], label))[: self.max_tags]
        clip = clip.annotated(audio_tags={label: round(tags[label], 4) for label in likeliest if tags[label] >= self.threshold})
        types = audio_types(tags, threshold=self.threshold)
        if types is None:
            return clip.dropped("silence dominates", measured=f"{likeliest[0]} {tags[likeliest[0]]:.2f}")
        clip = clip.annotated(audio_types=sorted(types))
        if unwanted := sorted(types & set(self.without)):
            return clip.dropped(f"{unwanted[0]} is heard", wanted=f"no {' or '.join(self.without)}")
        return clip if self.likeness is None else self._placed(clip, media, types, audio, hz)

    def _placed(self, clip: Clip, media: Media, types: frozenset[AudioType], audio: torch.Tensor, hz: int) -> Clip:
        start_s, end_s = stretch(clip, media)
        count = min(_MOST_FRAMES, max(1, round((end_s - start_s) * self.likeness_fps)))
        stills = media.stills(start_s, end_s, count=count, max_side=_LIKENESS_PX)
        video = torch.tensor(stills).movedim(-1, 0).float()[None] / 127.5 - 1.0
        batch = MediaBatch(keys=[clip.key], captions=[clip.caption], video=video, fps=torch.tensor([count / (end_s - start_s)]))
        likeness = float(self._scorer.score(audio[None], hz, batch)[0])
        if not math.isfinite(likeness):
            raise SampleError("cannot be compared", "the likeness of sound and video is no number")
        found = diegesis(types, likeness)
        clip = clip.scored(audio_video_likeness=likeness).annotated(diegesis=found)
        if self.keep is None or found in self.keep:
            return clip
        return clip.dropped("other diegesis", measured=f"{found} at {likeness:.2f}", wanted=" or ".join(self.keep))

    @cached_property
    def _tagger(self) -> AudioTagger:
        return AudioTagger(pretrained=self.pretrained)

    @cached_property
    def _scorer(self) -> ExportedAudioVideoScorer:
        return ExportedAudioVideoScorer(folder=self.likeness)
