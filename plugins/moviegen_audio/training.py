"""Training, sampling and prediction of sounds: for videos, for captions, for both, and around what is known of them (6.1)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from moviegen_audio.candidates import Candidate, best_of, candidate_keys, checked_score
from moviegen_audio.captions import AudioCaption
from moviegen_audio.checking import require_condition, require_sound, require_sounds, require_whole
from moviegen_audio.conditioners import VideoFrames
from moviegen_audio.infilling import Spans, join, kept_outside, known_frames
from moviegen_audio.lengths import LONGEST_S, durations_of, lengths_of, num_samples_of
from moviegen_audio.model import too_long
from moviegen_audio.scorer import Scorer
from moviegen_audio.segments import SegmentConditionings, captions_of
from moviegen_core.autoencoder import AudioAutoencoder, Autoencoder
from moviegen_core.backbone import Backbone
from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioner
from moviegen_core.errors import UsageError
from moviegen_core.flow.path import Path
from moviegen_core.flow.timesteps import Timesteps
from moviegen_core.generator import FlowModel
from moviegen_core.randomness import keyed_noise
from moviegen_core.sampler import Conditionings
from moviegen_t2v.growth import grow_stage

_FADE_S = 0.01
SEGMENT_CAPTIONS = "segment_captions"  # in the metadata of a sample


class VideoToAudio(FlowModel):
    """Movie Gen Audio: one model for sounds from videos, from captions, from both, and for what is missing of a sound (6.1.4).

    What is not given is left out, as it was in a share of the training samples: without a video its null version is told, without a
    caption the empty one, without a known part of the sound an empty context.

    Args:
        backbone: builds the velocity network.
        conditioners: by name, each builds a conditioner for a given width; `VideoFrames`, `AudioContext` and a text conditioner.
        autoencoder: builds the autoencoder; None where latents are precomputed and nothing is ever decoded.
        autoencoder_checkpoint: file with the autoencoder's weights and latent statistics.
        init_checkpoint: file with the weights of an earlier stage to start from.
        optimizer: builds the optimizer from the trainable parameters.
        lr_scheduler: builds the learning-rate schedule, stepped at every optimizer step.
        path: path from noise to data; optimal transport unless given.
        timesteps: distribution of training times; logit-normal unless given (6.1.1).
        check_memory: refuse a training that cannot fit the machine by the planner's estimate, before weights are drawn.
        joint_dropout: probability that ALL conditions of a training sample are dropped together (0.2 in 6.1.6).
        duration_s: seconds of a generated sound where neither the batch nor its metadata say.
        num_candidates: sounds to make for each prompt, of which the scorer's best is kept (8 in 6.1.6).
        scorer: tells which candidate is best, see `Scorer`; needed for more than one.
        seed: seed of the noise; a candidate's noise depends on the seed, its key and its number alone.
    """

    def __init__(
        self,
        *,
        backbone: Callable[[], Backbone],
        conditioners: dict[str, Callable[[int], Conditioner]],
        autoencoder: Callable[[], AudioAutoencoder] | None = None,
        autoencoder_checkpoint: str | None = None,
        init_checkpoint: str | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        path: Path | None = None,
        timesteps: Timesteps | None = None,
        check_memory: bool = True,
        joint_dropout: float = 0.2,
        duration_s: float = 10.0,
        num_candidates: int = 1,
        scorer: Scorer | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            backbone=backbone,
            conditioners=conditioners,
            autoencoder=autoencoder,
            autoencoder_checkpoint=autoencoder_checkpoint,
            init_checkpoint=init_checkpoint,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            path=path,
            timesteps=timesteps,
            check_memory=check_memory,
            joint_dropout=joint_dropout,
            seed=seed,
        )
        if num_candidates < 1 or (num_candidates > 1 and scorer is None):
            raise UsageError(
                f"num_candidates={num_candidates} was given{'' if scorer else ' without a scorer'}",
                "it counts from 1, and of several the best by a scorer is kept",
                "give a scorer such as OnsetSyncScorer, or num_candidates 1",
            )
        num_samples_of(duration_s, 1)  # refuses what is none
        self.duration_s, self.num_candidates, self.scorer = duration_s, num_candidates, scorer

    # -- building ------------------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        super()._build()
        if self.autoencoder is None:
            return
        rate = require_sound(self.autoencoder).latent_rate
        for name, conditioner in self.conditioners.items():
            latent_hz = getattr(conditioner, "latent_hz", rate)
            if latent_hz != rate:
                raise UsageError(
                    f"latent_hz={latent_hz:g} was given to the conditioner '{name}'",
                    f"{type(self.autoencoder).__name__} gives {rate:g} latent frames per second",
                    "give that to the conditioner",
                )

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Grow positions and input weights to this backbone's sizes."""
        return grow_stage(state, self.backbone)

    def sample_shape(self, autoencoder: Autoencoder) -> tuple[int, ...]:
        """Latent shape of a sound of the default duration."""
        return self._shape(autoencoder, self.duration_s)

    def training_shapes(self, autoencoder: Autoencoder, data: Any) -> list[tuple[int, ...]]:
        """Latent shapes of the sounds that a data module trains on; none where it does not say."""
        return [self._shape(autoencoder, duration_s) for duration_s in durations_of(data)]

    def _shape(self, autoencoder: Autoencoder, duration_s: float) -> tuple[int, ...]:
        return autoencoder.latent_shape(num_samples_of(duration_s, require_sound(autoencoder).sample_rate))

    @property
    def audio_hz(self) -> int:
        """Samples per second of what is generated."""
        return self._require_autoencoder().sample_rate

    # -- training ------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def latents(self, batch: MediaBatch) -> Float[Tensor, "b c t"]:
        """The batch's latents: cached ones as they are, sounds through the autoencoder (a sample of its posterior in training).

        Raises:
            UsageError: the sounds have another rate than the autoencoder's, other channels, or samples that are no numbers.
        """
        if batch.latents is not None:
            return super().latents(batch)
        if batch.audio is None or self.autoencoder is None:
            missing = "neither sound nor latents" if batch.audio is None else "sound, and the model no autoencoder to encode it"
            raise UsageError(
                f"the batch {batch.keys[0]!r}... holds {missing}",
                "it is learnt from one or the other",
                "give sound and `model.autoencoder`",
            )
        return self._encode(require_sound(self.autoencoder).sound_of(batch))

    def _encode(self, audio: Float[Tensor, "b a s"]) -> Float[Tensor, "b c t"]:
        with self._frozen_precision():
            return self._require_autoencoder().encode(audio, sample=self.training).float()

    # -- prediction ----------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        captions: Sequence[str | AudioCaption],
        *,
        keys: Sequence[str] | None = None,
        duration_s: float | None = None,
        video: Float[Tensor, "b 3 t h w"] | None = None,
        fps: float | Float[Tensor, " b"] | None = None,
        segment_captions: Sequence[Sequence[str | AudioCaption]] | None = None,
        drop: bool = False,
    ) -> Float[Tensor, "b a s"]:
        """Generate a sound in [-1, 1] for every caption, for videos where they are given.

        Args:
            captions: prompts, plain or structured as Table 27; empty ones say nothing.
            keys: names that choose the noise together with `seed`; the captions' positions unless given.
            duration_s: seconds; those of the videos, or else the model's own default, unless given.
            video: pixels in [-1, 1] of the videos that the sounds are for.
            fps: their frames per second.
            segment_captions: for every sound a caption for each segment of a sampler of long sounds, in place of the one for all.
            drop: condition on nothing instead, the ablation that every figure is quoted beside.
        """
        batch = self._batch(captions, keys, video, fps)
        if segment_captions is not None:
            if len(segment_captions) != len(batch) or any(isinstance(given, str) for given in segment_captions):
                raise UsageError(
                    f"segment_captions={segment_captions!r} was given", f"there are {len(batch)} sounds", "give a list of texts for each"
                )
            batch.metadata = [{SEGMENT_CAPTIONS: [str(caption) for caption in given]} for given in segment_captions]
        lengths = lengths_of(batch, self.audio_hz, self.duration_s) if duration_s is None else [num_samples_of(duration_s, self.audio_hz)]
        return self.make(batch, max(lengths), drop=drop).audio

    @torch.no_grad()
    def sample(self, batch: MediaBatch, num_frames: int, height: int = 1, width: int = 1, *, drop: bool = False) -> Tensor:
        """Sample the latents (b, c, t) of sounds of `num_frames` samples for the batch's conditions."""
        return self.make(batch, num_frames, drop=drop).latents

    @torch.no_grad()
    def make(self, batch: MediaBatch, num_samples: int, *, drop: bool = False) -> Candidate:
        """Sounds of so many samples, with nothing known of them beforehand: the best of the candidates for each."""
        shape = self._require_autoencoder().latent_shape(num_samples)
        nothing = torch.zeros(len(batch), *shape, device=self.device)
        unknown = torch.zeros(len(batch), shape[-1], dtype=torch.bool, device=self.device)
        return self._best(_knowing(batch, nothing, unknown), lambda latents: self.decode(latents, num_samples), drop=drop)

    @torch.no_grad()
    def infill(
        self,
        audio: Float[Tensor, "b a s"],
        *,
        spans_s: Spans = (),
        kept: Bool[Tensor, "b s"] | None = None,
        captions: Sequence[str | AudioCaption] | None = None,
        keys: Sequence[str] | None = None,
        video: Float[Tensor, "b 3 t h w"] | None = None,
        fps: float | Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b a s"]:
        """Generate parts of sounds anew; the rest is bit for bit what was given.

        What the sounds hold in those parts is never looked at.

        Args:
            audio: sounds in [-1, 1] at `audio_hz`, in their full length.
            spans_s: starts and stops in seconds of what is generated, the same for all sounds; or
            kept: true for the samples that stay.
            captions: one for each sound; none unless given.
            keys: names that choose the noise together with `seed`; positions unless given.
            video: the videos that the sounds are for.
            fps: their frames per second.
        """
        require_sounds(audio)
        if (kept is None) == (not spans_s):
            raise UsageError("both or neither of `spans_s` and `kept` were given", "either says what is generated", "give one of them")
        if kept is None:
            kept = kept_outside(spans_s, audio.shape[2], self.audio_hz).expand(len(audio), -1)
        return self._fill(self._batch(captions or [""] * len(audio), keys, video, fps, audio), kept).audio

    def outfill(self, audio: Float[Tensor, "b a s"], *, before_s: float = 0.0, after_s: float = 0.0, **given: Any) -> Tensor:
        """Continue sounds in either direction or both.

        Args:
            audio: sounds in [-1, 1] at `audio_hz`.
            before_s: seconds to generate before them.
            after_s: seconds to generate after them.
            given: captions, keys, video and fps of the whole, as for `infill`.
        """
        require_sounds(audio)
        if not (0.0 <= before_s <= LONGEST_S and 0.0 <= after_s <= LONGEST_S):
            raise UsageError(
                f"before_s={before_s:g} and after_s={after_s:g} were given",
                "a sound grows by them, a day at most",
                "give seconds of 0 or more",
            )
        around = (round(before_s * self.audio_hz), round(after_s * self.audio_hz))
        kept = torch.ones(len(audio), audio.shape[2], dtype=torch.bool)
        return self.infill(torch.nn.functional.pad(audio, around), kept=torch.nn.functional.pad(kept, around), **given)

    def predict_step(self, batch: MediaBatch, batch_idx: int) -> dict[str, Any]:
        """Generate sounds for a batch, as long as its videos, its own sounds, its metadata or the model's default say.

        Where `extras["context_mask"]` (b, t) marks latent frames of the batch's sounds that are given, the others are filled in.
        """
        require_whole(batch)
        require_condition(batch)
        lengths = lengths_of(batch, self.audio_hz, self.duration_s)
        if "context_mask" in batch.extras:
            made = self._fill_marked(batch)
        else:
            made = self.make(batch, max(lengths))
        audio: Tensor | list[Tensor] = made.audio
        if len(set(lengths)) > 1:
            audio = [sound[:, :length] for sound, length in zip(made.audio, lengths, strict=True)]
        output = {"keys": batch.keys, "captions": batch.captions, "metadata": batch.metadata}
        output |= {"audio": audio, "audio_hz": self.audio_hz, "latents": made.latents}
        if made.scores is not None:
            output["scores"] = made.scores
        if batch.video is not None:
            output |= {"video": batch.video, "fps": [self.fps] * len(batch) if batch.fps is None else batch.fps.tolist()}
        return output

    def _fill_marked(self, batch: MediaBatch) -> Candidate:
        if batch.audio is None:
            raise UsageError(
                "a context_mask without a sound was given", "it marks what of the sound is kept", "give the sound as `audio`, or no mask"
            )
        hop, num_samples = self._require_autoencoder().hop_length, batch.audio.shape[2]
        mask = batch.extras["context_mask"]
        if mask.shape[1] != -(-num_samples // hop):
            raise UsageError(
                f"a context_mask of {mask.shape[1]} latent frames was given",
                f"the sounds have {-(-num_samples // hop)}",
                "give one value for each",
            )
        return self._fill(batch, mask.repeat_interleave(hop, dim=1)[:, :num_samples])

    @torch.no_grad()
    def _fill(self, batch: MediaBatch, kept: Bool[Tensor, "b s"]) -> Candidate:
        """The batch's sounds, the samples that are not marked in `kept` generated."""
        audio = batch.audio
        if kept.shape != (len(batch), audio.shape[2]) or kept.dtype != torch.bool or kept.all():
            raise UsageError(
                f"sounds of shape {tuple(audio.shape)} and a mask of shape {tuple(kept.shape)} were given",
                "the mask says for every sample of every sound whether it is kept, and leaves some out",
                "give a mask (sounds, samples), false for what is generated",
            )
        audio, kept = audio.to(self.device), kept.to(self.device)
        autoencoder = require_sound(self._require_autoencoder())
        known, num_samples = known_frames(kept, autoencoder.hop_length), audio.shape[2]
        sound = autoencoder.sound_of(replace(batch, audio=torch.where(kept[:, None], audio, 0.0)))
        context = torch.where(known[:, None], self._encode(sound), 0.0)

        def finish(latents: Tensor) -> Tensor:
            decoded = self.decode(torch.where(known[:, None], context, latents), num_samples)
            return join(audio, decoded, kept, round(_FADE_S * self.audio_hz))

        return self._best(_knowing(batch, context, known), finish)

    def conditionings(self, batch: MediaBatch, variants: Sequence[frozenset[str]], length: int) -> Conditionings:
        """What the sampler is told; of its segments each has what belongs to it, and its own caption where there are some.

        Frames are embedded within the whole, so that those at a segment's ends have their neighbours.
        """
        windows = self.sampler.segments(length)
        captions = captions_of(batch, SEGMENT_CAPTIONS, len(windows))
        if len(windows) == 1 and captions is None:
            return super().conditionings(batch, variants, length)
        encoders = [conditioner for conditioner in self.conditioners.values() if isinstance(conditioner, VideoFrames)]
        if batch.video is not None and len(encoders) == 1:
            features, fps = encoders[0].embed(batch)
            batch = replace(batch, video=None, fps=None, extras=batch.extras | {"visual_features": features, "visual_fps": fps})
        latent_hz = self._require_autoencoder().latent_rate
        return SegmentConditionings(batch, variants, self._variant, windows, captions=captions, latent_hz=latent_hz)

    def _require_short_segments(self, length: int) -> None:
        """Refuse what the backbone could not take, before anything is encoded."""
        most = getattr(self.backbone, "max_frames", length)
        longest = max(window.size for window in self.sampler.segments(length))
        if longest > most:
            raise too_long(longest, most)

    def _best(self, batch: MediaBatch, finish: Callable[[Tensor], Tensor], *, drop: bool = False) -> Candidate:
        """Sample latents of the shape of the batch's; `finish` makes sounds of them."""
        length = batch.latents.shape[2]
        self._require_short_segments(length)
        conditionings = self.sampling_conditions(batch, length, drop=drop)

        def candidate(number: int) -> Candidate:
            keys = candidate_keys(batch.keys, number)
            noise = torch.stack([keyed_noise(batch.latents.shape[1:], self.seed, key) for key in keys])
            latents = self.integrate(noise, conditionings)
            return Candidate(latents, finish(latents))

        if self.scorer is None:
            return candidate(0)
        scorer = self.scorer
        return best_of(map(candidate, range(self.num_candidates)), lambda audio: checked_score(scorer, audio, self.audio_hz, batch))

    def _batch(
        self,
        captions: Sequence[str | AudioCaption],
        keys: Sequence[str] | None,
        video: Tensor | None,
        fps: Any,
        audio: Tensor | None = None,
    ) -> MediaBatch:
        if (video is None) != (fps is None):
            raise UsageError("one of video and fps was given", "a video's sound is aligned to its frames by time", "give both")
        keys = list(keys) if keys is not None else [str(position) for position in range(len(captions))]
        rates = None if fps is None else torch.as_tensor(fps, dtype=torch.float32, device=self.device)
        if rates is not None and rates.numel() == 1:
            rates = rates.expand(len(captions))
        texts = captions if isinstance(captions, str) else [str(c) if isinstance(c, AudioCaption) else c for c in captions]
        batch = MediaBatch(captions=texts, keys=keys, video=None if video is None else video.to(self.device), fps=rates)
        batch.audio, batch.audio_hz = audio, None if audio is None else self.audio_hz
        require_whole(batch)
        return batch


def _knowing(batch: MediaBatch, context: Float[Tensor, "b c t"], known: Bool[Tensor, "b t"]) -> MediaBatch:
    """What conditioners see in sampling: the latents that are known, zeros elsewhere, and which they are."""
    return replace(batch, latents=context, extras=batch.extras | {"context_mask": known})
