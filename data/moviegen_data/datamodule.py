"""Shards as a data module: videos, images among them, or cached latents; one shape per batch."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.termination import leave_process_group
from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.files import write_bytes
from moviegen_core.parallel.place import data_place
from moviegen_data.buckets import Bucket
from moviegen_data.decoding import ClipPosition, SampleDecoder
from moviegen_data.faults import SkipReport, advice_for, logger
from moviegen_data.grouping import group_by_bucket, group_by_latent_shape, latent_bucket
from moviegen_data.limits import MediaLimits
from moviegen_data.loader import LoadedBatch, ShardDataset, ShardLoader
from moviegen_data.mixing import ImageMix, Source
from moviegen_data.order import SampleOrder
from moviegen_data.plan import BatchStream, BucketPart, PlanSampler
from moviegen_data.reader import ShardReader
from moviegen_data.transforms import floats_of
from moviegen_data.urls import shown

Urls = str | list[str] | list[Source]
_MOST_AHEAD = 32


class ShardData(LightningDataModule):
    """Reads shards (see data/README.md).

    The order of samples is a pure function of the seed, the epoch, the rank and the number of ranks; the number of workers changes nothing.
    Every rank has equally many batches in an epoch. A bad sample is logged, counted, and replaced by the next good one.

    Args:
        urls: training shards: a folder, a glob, a brace range such as `clips-{000000..000099}.tar`, or a list of them; or a list of
            `{urls: ..., weight: ...}`, drawn from by weight.
        val_urls: shards for validation and test, read whole and in order; None for no validation.
        predict_urls: shards to predict from; those for validation, else those for training, unless given.
        num_frames: frames of a clip, 16 unless given; 1 takes single frames of videos, and pictures.
        height: rows in pixels, 256 unless given; media are scaled to cover the window, and cropped to its middle.
        width: columns in pixels, 256 unless given.
        fps: frames per second of a clip; null takes each file's own rate.
        batch_size: samples in a batch on each rank.
        num_workers: processes that decode; 0 decodes in the main one.
        prefetch_bytes: most bytes of batches that workers may have ready or in the making, counted by the largest batch there can be;
            two batches a worker unless given.
        seed: root of all randomness.
        shuffle: false reads training shards in their own order.
        latents: read cached latents (`KEY.latent.safetensors`) instead of pixels; a batch has one shape of them. Where `num_frames`,
            `height` or `width` are given too, latents of clips of other sizes are bad samples; `fps` speaks of pixels only.
        text: read precomputed text embeddings (`KEY.text.safetensors`) too.
        images: images among the videos, by sample (1 : 10 in joint training) or by batch (1 : 3 for the autoencoder).
        buckets: shapes of batches in place of the one of num_frames, height, width and fps; a sample goes to the one that fits it.
        batches_per_epoch: length of a training epoch on every rank; once through the samples unless given.
        fps_prefix: put the sampling rate before a video's caption, "FPS-16 a caption" (3.1.4).
        camera_prefix: put `camera_motion` of the json before the caption, "zoom in. a caption" (3.2.1, B.2).
        require_caption: a sample without a caption is a bad sample; otherwise its caption is empty.
        clip_position: where in a longer video a training clip starts; validation takes the middle where this says random.
        decode_threads: threads of the video codec in each process that decodes; with workers 1 is best.
        limits: the largest media that are decoded; larger ones are bad samples.
        scale_on_device: hand pixels over as bytes, and make floats in [-1, 1] of them where the model is: a quarter of the memory and of
            the copies. Batches taken from a loader without a Trainer then hold bytes.
        pin_memory: hand batches out in pinned memory, for copies to a GPU; with `scale_on_device` their pixels too.

    Raises:
        UsageError: a shard is missing, there is nothing to read, or two settings contradict each other.
    """

    def __init__(
        self,
        *,
        urls: Urls,
        val_urls: Urls | None = None,
        predict_urls: Urls | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = 16.0,
        batch_size: int = 4,
        num_workers: int = 0,
        prefetch_bytes: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        latents: bool = False,
        text: bool = False,
        images: ImageMix | None = None,
        buckets: list[Bucket] | None = None,
        batches_per_epoch: int | None = None,
        fps_prefix: bool = False,
        camera_prefix: bool = False,
        require_caption: bool = False,
        clip_position: ClipPosition = "random",
        decode_threads: int = 1,
        limits: MediaLimits | None = None,
        scale_on_device: bool = False,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        require_at_least(1, batch_size=batch_size, batches_per_epoch=1 if batches_per_epoch is None else batches_per_epoch)
        require_at_least(0, num_workers=num_workers)
        require_at_least(1, decode_threads=decode_threads)
        if latents and buckets:
            raise UsageError("latents and buckets were given", "cached latents bring their own shapes", "leave one of the two out")
        self.urls, self.val_urls, self.predict_urls = urls, val_urls, predict_urls
        given = {name: value for name, value in (("num_frames", num_frames), ("height", height), ("width", width)) if value is not None}
        if buckets and given:
            raise UsageError(f"buckets and {', '.join(given)} were given", "buckets say the sizes themselves", "leave one of the two out")
        self.buckets = list(buckets or [Bucket(**{"num_frames": 16, "height": 256, "width": 256, **given}, fps=fps)])
        self.bucketed = bool(buckets)
        self.batch_size, self.num_workers, self.seed, self.shuffle = batch_size, num_workers, seed, shuffle
        self.latents, self.images, self.batches_per_epoch = latents, images, batches_per_epoch
        self.limits, self.prefetch_bytes = limits or MediaLimits(), prefetch_bytes
        self.decoding: dict[str, Any] = {
            "latents": latents,
            "text": text,
            "fps_prefix": fps_prefix,
            "camera_prefix": camera_prefix,
            "require_caption": require_caption,
            "encoded": {name.removeprefix("num_"): size for name, size in given.items()} if latents else {},
            "num_threads": decode_threads,
            "limits": self.limits,
        }
        self.clip_position: ClipPosition = clip_position
        self.scale_on_device, self.pin_memory = scale_on_device, pin_memory
        self._readers: dict[str, ShardReader] = {}
        self._reports: list[SkipReport] = []
        self._log_dir: str | None = None
        if val_urls is None:
            # To Lightning a hook that is its own again is one that was not given: it runs no validation.
            self.val_dataloader = super().val_dataloader

    # -- loaders -------------------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> ShardLoader:
        """Shuffled batches of videos, with images among them where asked for."""
        loader = self._loader(self.urls, carry=True)
        loader.used = None if self.trainer is None else lambda: self.trainer.num_training_batches
        return loader

    def val_dataloader(self) -> ShardLoader:
        """Every sample of the validation shards, in order; not there where no shards were given."""
        return self._loader(self.val_urls, carry=False)

    def test_dataloader(self) -> ShardLoader:
        """Every sample of the validation shards, or of the training shards where there are none, in order."""
        return self._loader(self.val_urls or self.urls, carry=False)

    def predict_dataloader(self) -> ShardLoader:
        """Every sample to predict from, in order."""
        return self._loader(self.predict_urls or self.val_urls or self.urls, carry=False)

    def decoder(self, *, clip_position: ClipPosition) -> SampleDecoder:
        """Make the decoder of samples; a subclass that reads further parts makes its own."""
        return SampleDecoder(clip_position=clip_position, **self.decoding)

    def group(
        self, sources: Sequence[Source], readers: Sequence[ShardReader], buckets: Sequence[Bucket], *, carry: bool
    ) -> tuple[Sequence[Bucket], list[list[np.ndarray | None]], list[float] | None]:
        """The shapes of batches; for each source the sample numbers of each shape (None for all); and the shapes' shares of the batches.

        Args:
            sources: the addresses, with their weights.
            readers: their readers.
            buckets: the shapes that were asked for.
            carry: true for training.
        """
        if self.latents:
            groups = [group_by_latent_shape(reader) for reader in readers]
            shapes = sorted({shape for group in groups for shape in group})
            empty = np.empty(0, dtype=np.int64)
            return [latent_bucket(shape) for shape in shapes], [[group.get(shape, empty) for shape in shapes] for group in groups], None
        if self.bucketed:
            return buckets, [group_by_bucket(reader, buckets, self.limits) for reader in readers], None
        return buckets, [[None] for _ in readers], None

    # -- what was skipped ------------------------------------------------------------------------------------------------------------

    @property
    def skipped(self) -> SkipReport:
        """Everything that was left out so far, in this process."""
        report = SkipReport()
        for reader in self._readers.values():
            report.skips.update(reader.report.skips)
        for other in self._reports:
            report.skips.update(other.skips)
        return report

    def setup(self, stage: str) -> None:
        """Remember where the run logs; every rank asks, because the answer is shared."""
        self._log_dir = self.trainer.log_dir if self.trainer is not None else None

    def teardown(self, stage: str) -> None:
        """Tell what was skipped, and leave it in `skipped-STAGE-rankN.json` beside the run's logs."""
        self._tell(str(getattr(stage, "value", stage)))

    def on_exception(self, exception: BaseException) -> None:
        """Tell what was skipped before the run ended."""
        self._tell("exception")

    def _tell(self, stage: str) -> None:
        report = self.skipped
        if not report:
            return
        logger.warning("%s", report.summary())
        if self._log_dir is not None:
            rank = data_place(self.trainer).rank
            content = json.dumps(report.as_dict(), indent=1).encode()
            write_bytes(Path(self._log_dir) / f"skipped-{stage}-rank{rank}.json", content)

    # -- plans -----------------------------------------------------------------------------------------------------------------------

    def _loader(self, urls: Urls, *, carry: bool) -> ShardLoader:
        mix = self.images if carry else None
        position = self.clip_position if carry or self.clip_position != "random" else "middle"
        readers, streams = zip(*[self._stream(urls, self.buckets, 0, self.batch_size, carry), *self._image_streams(mix)], strict=True)
        share = {} if mix is None else {"image_share": self._image_share(mix, *streams)}
        sampler = PlanSampler(*streams, **share, batches_per_epoch=self.batches_per_epoch if carry else None)
        dataset = ShardDataset(readers, sampler, [self.decoder(clip_position=position) for _ in streams], seed=self.seed)
        self._reports.append(dataset.report)
        loader = ShardLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            prefetch_factor=self._prefetch(dataset),
            collate_fn=_same,
            worker_init_fn=leave_process_group,
            pin_memory=self.pin_memory and torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )
        loader.as_bytes = self.scale_on_device
        return loader

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale pixels that came as bytes."""
        return replace(batch, video=floats_of(batch.video)) if isinstance(batch, MediaBatch) and _are_bytes(batch.video) else batch

    def _prefetch(self, dataset: ShardDataset) -> int | None:
        """Batches that each worker may be ahead."""
        if not self.num_workers or self.prefetch_bytes is None:
            return None
        largest = max(1, dataset.largest_batch_bytes())
        batches = self.prefetch_bytes // (self.num_workers * largest)
        if batches < 1:
            raise UsageError(
                f"prefetch_bytes={self.prefetch_bytes} was given",
                f"{self.num_workers} workers with one batch of up to {largest} bytes each need {self.num_workers * largest}",
                "give as many, fewer workers, or smaller batches",
            )
        return min(batches, _MOST_AHEAD)

    def _image_streams(self, mix: ImageMix | None) -> list[tuple[list[ShardReader], BatchStream]]:
        if mix is None:
            return []
        sizes = dict.fromkeys((bucket.height, bucket.width) for bucket in self.buckets)
        buckets = [Bucket(num_frames=1, height=height, width=width) for height, width in sizes]
        return [self._stream(mix.urls, buckets, 1, mix.batch_size or self.batch_size, True)]

    def _image_share(self, mix: ImageMix, videos: BatchStream, images: BatchStream) -> Any:
        mean = np.average(videos.batch_sizes, weights=videos.num_batches)
        return mix.batch_share(images.batch_sizes[0], float(mean))

    def _stream(
        self, urls: Urls, buckets: Sequence[Bucket], stream: int, batch_size: int, carry: bool
    ) -> tuple[list[ShardReader], BatchStream]:
        sources = as_sources(urls)
        readers = [self._reader(source.urls) for source in sources]
        buckets, chosen, batch_weights = self.group(sources, readers, buckets, carry=carry)
        weights = [source.weight for source in sources] if len(sources) > 1 else [float(len(reader)) for reader in readers]
        parts: list[list[BucketPart]] = [[] for _ in buckets]
        for number, (reader, some, weight) in enumerate(zip(readers, chosen, weights, strict=True)):
            for bucket, members in enumerate(some):
                seed = (self.seed, stream, number, bucket)
                order = SampleOrder(reader.counts, chosen=members, seed=seed, shuffle=self.shuffle and carry)
                if order.num_samples:
                    parts[bucket].append(BucketPart(number, order, weight * order.num_samples / len(reader)))
        if not any(parts):
            raise UsageError(
                f"the shards {shown(repr(urls))} were given",
                f"no sample can be used: {self.skipped.summary()}",
                advice_for(self.skipped.counts),
            )
        place = data_place(self.trainer)
        made = BatchStream(
            buckets, parts, batch_size=batch_size, stream=stream, seed=self.seed, rank=place.rank, world_size=place.count, carry=carry,
            batch_weights=batch_weights,
        )  # fmt: skip
        return readers, made

    def _reader(self, urls: str | list[str]) -> ShardReader:
        name = json.dumps(urls)
        if name not in self._readers:
            self._readers[name] = ShardReader(urls, limits=self.limits)
        return self._readers[name]


def as_sources(urls: Urls) -> list[Source]:
    """Bring addresses to weighted sources; plain addresses are one source.

    Raises:
        UsageError: some of a list have weights and others have none.
    """
    if isinstance(urls, str):
        return [Source(urls)]
    weighted = [url for url in urls if isinstance(url, Source)]
    if weighted and len(weighted) < len(urls):
        raise UsageError(
            f"{shown(urls)} was given",
            f"{len(weighted)} of {len(urls)} have weights",
            "give every source as {urls: ..., weight: ...}, or none",
        )
    return weighted or [Source(list(urls))]


def _are_bytes(pixels: torch.Tensor | None) -> bool:
    return pixels is not None and pixels.dtype == torch.uint8


def _same(loaded: LoadedBatch) -> LoadedBatch:
    return loaded
