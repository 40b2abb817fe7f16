"""Sounds from shards as a data module, alone or with the frames of the very same span (6.1.6, 6.2)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from moviegen_core.errors import UsageError
from moviegen_data.audio_buckets import AudioBucket, check_durations, fitting
from moviegen_data.audio_decoding import AudioSampleDecoder, MissingAudio
from moviegen_data.buckets import Bucket
from moviegen_data.datamodule import ShardData, Urls
from moviegen_data.decoding import ClipPosition
from moviegen_data.faults import SampleError, Skip
from moviegen_data.grouping import group_by_latent_shape
from moviegen_data.limits import MediaLimits
from moviegen_data.loudness import LOWEST_DB, Normalize
from moviegen_data.mixing import Source
from moviegen_data.reader import ShardReader
from moviegen_data.wording import counted

_KINDS = (False, True)  # without and with a picture; the two never share a batch


class AudioData(ShardData):
    """Reads sounds, and videos with sound, from shards (see data/README.md).

    A batch has `audio` (b, a, s) at `audio_hz`, all of one duration. Order, resume, ranks and bad samples are as in `ShardData`. Where
    pictures are wanted, a batch has either a picture for every sound or for none: audio-only samples make batches of their own. Weights
    of sources then count BATCHES wherever the sources fill different batches: cinematic videos of weight 10 and audio-only shards of
    weight 1 come as 10 batches to 1 (6.2.3).

    Args:
        urls: training shards: a folder, a glob, a brace range or a list of them; or a list of `{urls: ..., weight: ...}`.
        val_urls: shards for validation and test, read whole and in order; None for no validation.
        predict_urls: shards to predict from; those for validation, else those for training, unless given.
        durations: seconds of a chunk. A sample gives chunks of the longest of them that it fills; training takes a random place.
        duration_weights: how many batches come of each duration, e.g. [5, 1] for 10 s and 30 s (6.2.4); a training sample then gives
            chunks of every duration it fills. Validation and prediction take the longest.
        audio_hz: samples per second; sounds are resampled to it.
        audio_channels: 1 mono, 2 stereo; sounds are mixed to it.
        video: give `video` (b, 3, t, h, w) of the same span too, at `fps`.
        fps: frames, or visual features, per second; t is duration · fps. Of features cached at another rate the nearest are taken.
        height: rows of the frames in pixels.
        width: columns of the frames in pixels.
        visual_features: give cached features (`KEY.visual.safetensors`) of the same span as `extras["visual_features"]` (b, f, e) and
            `extras["visual_fps"]` (b,).
        latents: read cached latents (b, c, t) instead of sounds; their shapes say the durations. Features come whole.
        text: read precomputed text embeddings (`KEY.text.safetensors`) too.
        missing_audio: `skip` takes a sample without sound for a bad one, `silence` gives silence for it.
        min_share: share of a chunk that has to be sound, 0 to 1; the rest is silence at its end (`valid_s` of the metadata says from
            where), and the last frame is held.
        normalize: `peak` or `loudness` (BS.1770-4) bring every chunk to `target_db`; `none` leaves sounds as they are.
        target_db: the level: dB of full scale for `peak` (-1 unless given), LUFS for `loudness` (-23 unless given).
        max_silence: share of the whole sound that may be below -60 dB, 0 to 1; `moviegen data pack` measures it, otherwise it is
            measured at every reading, which is slow.
        batch_size: samples in a batch on each rank.
        batch_sizes: that number for each duration in place of the one for all.
        num_workers: processes that decode; 0 decodes in the main one.
        prefetch_bytes: most bytes of batches that workers may have ready or in the making, counted by the largest batch there can be;
            two batches a worker unless given.
        seed: root of all randomness.
        shuffle: false reads training shards in their own order.
        batches_per_epoch: length of a training epoch on every rank; once through the samples unless given.
        require_caption: a sample without a caption is a bad sample; otherwise its caption is empty.
        clip_position: where in a longer sound a training chunk starts; validation takes the middle where this says random.
        decode_threads: threads of the video codec in each process that decodes; with workers 1 is best.
        limits: the largest media that are decoded; larger ones are bad samples.
        scale_on_device: hand pixels over as bytes, and make floats in [-1, 1] of them where the model is. Batches taken from a loader
            without a Trainer then hold bytes.
        pin_memory: hand batches out in pinned memory, for copies to a GPU.

    Raises:
        UsageError: a shard is missing, there is nothing to read, or two settings contradict each other.
    """

    def __init__(
        self,
        *,
        urls: Urls,
        val_urls: Urls | None = None,
        predict_urls: Urls | None = None,
        durations: list[float] | None = None,
        duration_weights: list[float] | None = None,
        audio_hz: int = 48000,
        audio_channels: int = 1,
        video: bool = False,
        fps: float = 25.0,
        height: int = 224,
        width: int = 224,
        visual_features: bool = False,
        latents: bool = False,
        text: bool = False,
        missing_audio: MissingAudio = "skip",
        min_share: float = 1.0,
        normalize: Normalize = "none",
        target_db: float | None = None,
        max_silence: float = 1.0,
        batch_size: int = 4,
        batch_sizes: list[int] | None = None,
        num_workers: int = 0,
        prefetch_bytes: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        batches_per_epoch: int | None = None,
        require_caption: bool = False,
        clip_position: ClipPosition = "random",
        decode_threads: int = 1,
        limits: MediaLimits | None = None,
        scale_on_device: bool = False,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(
            urls=urls, val_urls=val_urls, predict_urls=predict_urls, batch_size=batch_size, num_workers=num_workers, seed=seed,
            shuffle=shuffle, latents=latents, batches_per_epoch=batches_per_epoch, clip_position=clip_position, limits=limits,
            decode_threads=decode_threads,
            pin_memory=pin_memory, prefetch_bytes=prefetch_bytes, scale_on_device=scale_on_device,
        )  # fmt: skip
        if latents and (durations or duration_weights or batch_sizes or video):
            raise UsageError(
                "latents and durations, duration_weights, batch_sizes or video were given",
                "cached latents bring their own lengths, and features instead of frames",
                "leave these out; weights of sources mix lengths that lie in different shards",
            )
        self.durations = list(durations or [10.0])
        check_durations(self.durations, duration_weights, batch_sizes)
        _check_shares(min_share=min_share, max_silence=max_silence)
        if not 0.0 < fps < float("inf"):
            raise UsageError(f"fps={fps} was given", "there are more than 0 frames or features a second", "give e.g. fps: 25")
        if normalize == "none" and target_db is not None:
            raise UsageError(f"target_db={target_db} was given", "nothing is normalised to it", "give `normalize: peak` or `loudness`")
        if target_db is not None and not LOWEST_DB <= target_db <= 0:
            exists = f"full scale is 0 dB, and below {LOWEST_DB:g} dB nothing is left"
            raise UsageError(f"target_db={target_db} was given", exists, "give a level of 0 or below, e.g. -23")
        if min(self.durations) * audio_hz < 1:
            raise UsageError(
                f"durations={self.durations} was given", f"at {audio_hz} Hz the shortest has no sample", "give chunks of a second or so"
            )
        self.duration_weights, self.batch_sizes, self.min_share = duration_weights, batch_sizes, min_share
        self.picture: dict[str, Any] = {"fps": fps, "height": height if video else 1, "width": width if video else 1}
        self.decoding = {
            "audio_hz": audio_hz,
            "audio_channels": audio_channels,
            "video": video,
            "visual_features": visual_features,
            "missing_audio": missing_audio,
            "normalize": normalize,
            "target_db": target_db,
            "max_silence": max_silence,
            "hold_last": min_share < 1.0,
            "latents": latents,
            "text": text,
            "require_caption": require_caption,
            "num_threads": decode_threads,
            "limits": self.limits,
        }
        self.decoder(clip_position=clip_position)  # refuses what cannot be decoded to, before shards are opened

    def decoder(self, *, clip_position: ClipPosition) -> AudioSampleDecoder:
        """Make the decoder of samples."""
        return AudioSampleDecoder(clip_position=clip_position, **self.decoding)

    def group(
        self, sources: Sequence[Source], readers: Sequence[ShardReader], buckets: Sequence[Bucket], *, carry: bool
    ) -> tuple[Sequence[Bucket], list[list[np.ndarray | None]], list[float] | None]:
        """Batches of one duration, or one shape of latents, with a picture or without; and their shares where anything is weighted."""
        shapes, chosen = self._by_latents(readers) if self.latents else self._by_duration(readers, every=carry and self._weighted)
        if carry:
            self._require_pictures(shapes, chosen)
        weights = self._batch_weights(sources, readers, shapes, chosen) if carry else None
        return shapes, chosen, weights

    @property
    def _weighted(self) -> bool:
        return self.duration_weights is not None

    def _by_duration(self, readers: Sequence[ShardReader], *, every: bool) -> tuple[list[AudioBucket], list[list[np.ndarray]]]:
        decoder = self.decoder(clip_position="first")
        buckets = [self._bucket(number, with_picture) for with_picture in _KINDS for number in range(len(self.durations))]
        chosen = []
        for reader in readers:
            members: list[list[int]] = [[] for _ in buckets]
            for number in range(len(reader)):
                try:
                    sample = reader[number]
                    with_picture = decoder.has_picture(sample)
                    duration_s = decoder.duration(sample, with_picture=with_picture)
                    fits = fitting(self.durations, duration_s, min_share=self.min_share, every=every)
                    if not fits:
                        raise SampleError("too short", f"{duration_s:.2f} s; {min(self.durations):g} s are wanted")
                except SampleError as error:
                    reader.report.add(Skip(*reader.name(number), error.cause, error.detail))
                    continue
                for fit in fits:
                    members[with_picture * len(self.durations) + fit].append(number)
            chosen.append([np.asarray(some, dtype=np.int64) for some in members])
        return buckets, chosen

    def _bucket(self, number: int, with_picture: bool) -> AudioBucket:
        duration_s, fps = self.durations[number], self.picture["fps"]
        return AudioBucket(
            num_frames=max(1, round(duration_s * fps)) if with_picture else 1,
            height=self.picture["height"],
            width=self.picture["width"],
            fps=fps,
            batch_size=None if self.batch_sizes is None else self.batch_sizes[number],
            duration_s=duration_s,
            with_picture=with_picture,
        )

    def _by_latents(self, readers: Sequence[ShardReader]) -> tuple[list[AudioBucket], list[list[np.ndarray]]]:
        decoder = self.decoder(clip_position="first")
        groups: list[dict[tuple[tuple[int, ...], bool], np.ndarray]] = []
        for reader in readers:
            found: dict[tuple[tuple[int, ...], bool], np.ndarray] = {}
            for shape, numbers in group_by_latent_shape(reader).items():
                pictured = np.asarray([decoder.visual_features and decoder.has_picture(reader[int(number)]) for number in numbers])
                found |= {(shape, kind): numbers[pictured == kind] for kind in _KINDS if (pictured == kind).any()}
            groups.append(found)
        keys = sorted({key for group in groups for key in group})
        empty = np.empty(0, dtype=np.int64)
        buckets = [AudioBucket(num_frames=shape[1], height=1, width=1, duration_s=0.0, with_picture=kind) for shape, kind in keys]
        return buckets, [[group.get(key, empty) for key in keys] for group in groups]

    def _require_pictures(self, buckets: Sequence[AudioBucket], chosen: list[list[np.ndarray]]) -> None:
        """Refuse pictures that were asked for and that no training sample has: the run would learn from sounds alone, and say nothing."""
        wanted = [name for name in ("video", "visual_features") if self.decoding[name]]
        counts = np.asarray([[len(members) for members in some] for some in chosen]).sum(0)
        pictured = sum(count for bucket, count in zip(buckets, counts, strict=True) if bucket.with_picture)
        if wanted and counts.sum() and not pictured:
            both = " and ".join(f"{name}: true" for name in wanted)
            raise UsageError(
                f"{both} was given",
                f"none of {counted(int(counts.sum()), 'training sample')} brings it",
                "add shards that do, or leave it out",
            )

    def _batch_weights(
        self, sources: Sequence[Source], readers: Sequence[ShardReader], buckets: Sequence[AudioBucket], chosen: list[list[np.ndarray]]
    ) -> list[float] | None:
        """Shares of the batches: what a source weighs goes to the batches that its samples fill, and is split by the durations' weights."""
        if len(sources) == 1 and self.duration_weights is None:
            return None
        counts = np.asarray([[len(members) for members in some] for some in chosen], dtype=np.float64)
        used = counts.sum(1, keepdims=True)
        per_source = np.asarray([[source.weight] for source in sources]) if len(sources) > 1 else used
        shares = (per_source * counts / np.maximum(used, 1.0)).sum(0)
        if self.duration_weights is None:
            return shares.tolist()
        weights = np.asarray(self.duration_weights * len(_KINDS)).reshape(len(_KINDS), -1)
        shares = shares.reshape(weights.shape)
        for kind, share in zip(_KINDS, shares, strict=True):
            if share.any() and not share.all():
                missing = [duration for duration, some in zip(self.durations, share, strict=True) if not some]
                raise UsageError(
                    f"duration_weights={self.duration_weights} was given for durations={self.durations}",
                    f"no sample {'with' if kind else 'without'} a picture fills {missing[0]:g} s",
                    "leave that duration out, or give a smaller `min_share`",
                )
        return (shares.sum(1, keepdims=True) * weights / weights.sum(1, keepdims=True)).ravel().tolist()


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            raise UsageError(f"{name}={share} was given", "it is a share of the time, 0 to 1", f"give {name} between 0 and 1")
