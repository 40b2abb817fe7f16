"""From plans to batches: a map-style dataset over plans, and the loader that counts and resumes.

Shapes: b samples, pixels (b, 3, t, h, w), latents (b, c, t, h, w) or (b, c, t), sounds (b, a, s).
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError
from moviegen_data.batching import collate
from moviegen_data.buckets import Bucket
from moviegen_data.decoding import Decoded, SampleDecoder
from moviegen_data.faults import SampleError, Skip, SkipReport, SourceError, advice_for, logger
from moviegen_data.limits import MediaLimits
from moviegen_data.loaded import LoadedBatch
from moviegen_data.memory import RecycledMemory
from moviegen_data.order import SampleOrder
from moviegen_data.plan import BatchPlan, PlanSampler
from moviegen_data.reader import ShardReader
from moviegen_data.rows import LatentRows
from moviegen_data.shared_memory import SharedMemory
from moviegen_data.storage import stamp_of
from moviegen_data.wording import counted

_MAX_BAD_IN_A_ROW = 256
_KEPT_BLOCKS = 8  # of each worker
_TELLING = (str, int, float, type(None), dict, MediaLimits)  # kinds of settings whose text tells all of them


class ShardDataset(Dataset[LoadedBatch]):
    """Turns a plan into a batch.

    In training a bad sample's place is taken by the next good one of its bucket, so batches keep their number and size. In a fixed plan it
    is left out. Samples that are there a second time say so in their metadata: `repeated`.

    Args:
        readers: for each stream (videos, images) the readers of its sources.
        sampler: the plans, which also know what may stand in for a bad sample.
        decoders: for each stream its decoder.
        seed: root of the random choices within samples.
    """

    def __init__(
        self, readers: Sequence[Sequence[ShardReader]], sampler: PlanSampler, decoders: Sequence[SampleDecoder], *, seed: int = 0
    ) -> None:
        self.readers, self.sampler, self.decoders, self.seed = readers, sampler, decoders, seed
        self.report = SkipReport()
        self._memory: RecycledMemory | SharedMemory | None = None
        self._bad: dict[tuple[int, int, int], SampleError] = {}
        self._has_good: set[tuple[int, int]] = set()
        for reader in (reader for some in readers for reader in some):
            for skip in reader.report.skips.values():
                self.report.skips.setdefault((skip.place, skip.key), skip)

    def __len__(self) -> int:
        return len(self.sampler)

    def __getitem__(self, plan: BatchPlan) -> LoadedBatch:
        if get_worker_info() is None:
            return self._load(plan)
        try:
            return self._load(plan)
        except (UsageError, SourceError) as error:
            return LoadedBatch(None, [], error=error)

    def _load(self, plan: BatchPlan) -> LoadedBatch:
        stream, decoder, memory = self.sampler.streams[plan.stream], self.decoders[plan.stream], self.memory
        bucket = stream.buckets[plan.bucket]
        shape = decoder.pixel_shape(bucket)
        pixels = None if shape is None else memory.empty(len(plan.samples), 3, *shape, dtype=torch.uint8)
        rows = LatentRows(memory, len(plan.samples)) if decoder.latents else None
        skips: list[Skip] = []
        decoded: list[Decoded] = []
        stand_ins = stream.following(plan)
        for sample, draw, repeated in zip(plan.samples, plan.draws, plan.repeated, strict=True):
            out = rows if pixels is None else pixels[len(decoded)]
            one = self._try(plan.stream, sample, draw, bucket, out, skips)
            if one is None and stream.carry:
                one, repeated = self._stand_in(plan.stream, stand_ins, bucket, out, skips), True
            if one is not None:
                one.metadata |= {"repeated": True} if repeated else {}
                decoded.append(one)
                if rows is not None:
                    rows.keep()
        if not decoded and stream.world_size > 1:
            # Other ranks have a batch here, and would wait for this one forever.
            out = rows if pixels is None else pixels[0]
            decoded = [self._stand_in(plan.stream, stand_ins, bucket, out, skips)]
            decoded[0].metadata["repeated"] = True
            if rows is not None:
                rows.keep()
        if not decoded:
            return LoadedBatch(None, skips)
        shared = memory if isinstance(memory, SharedMemory) else None
        return LoadedBatch(collate(decoded, rows, shared), skips, None if pixels is None else pixels[: len(decoded)], memory=shared)

    @property
    def memory(self) -> RecycledMemory | SharedMemory:
        """Where batches are laid: in a worker's memory that the main process sees, or in this process's own."""
        if self._memory is None:
            self._memory = RecycledMemory() if get_worker_info() is None else SharedMemory()
        return self._memory

    def largest_batch_bytes(self) -> int:
        """Bytes of the largest batch that any plan asks for; a sample of each bucket stands for all of it."""
        largest = 0
        for stream, readers, decoder in zip(self.sampler.streams, self.readers, self.decoders, strict=True):
            for bucket, size, parts in zip(stream.buckets, stream.batch_sizes, stream.parts, strict=True):
                for part in parts:
                    largest = max(largest, size * self._sample_bytes(readers[part.source], part.order, decoder, bucket))
        return largest

    def _sample_bytes(self, reader: ShardReader, order: SampleOrder, decoder: SampleDecoder, bucket: Bucket) -> int:
        """Bytes of the first sample that can be looked at."""
        for number in order.take(0, min(order.num_samples, _MAX_BAD_IN_A_ROW)).tolist():
            try:
                return decoder.num_bytes(reader[number], bucket)
            except SampleError:
                continue
        return 0

    def _stand_in(
        self,
        stream: int,
        candidates: Iterator[tuple[tuple[int, int], int]],
        bucket: Bucket,
        out: Tensor | LatentRows | None,
        skips: list[Skip],
    ) -> Decoded:
        for number, (sample, draw) in enumerate(candidates):
            one = self._try(stream, sample, draw, bucket, out, skips)
            if one is not None:
                return one
            if number >= _MAX_BAD_IN_A_ROW:
                break
        bad = [error for (of_stream, _, _), error in self._bad.items() if of_stream == stream]
        raise SourceError(_all_bad(self.readers[stream][0], bad))

    def _try(
        self, stream: int, sample: tuple[int, int], draw: int, bucket: Bucket, out: Tensor | LatentRows | None, skips: list[Skip]
    ) -> Decoded | None:
        source, number = sample
        if (stream, source, number) in self._bad:
            return None
        reader = self.readers[stream][source]
        try:
            decoded = self.decoders[stream](reader[number], bucket, out, (self.seed, stream, source, number, draw))
        except SampleError as error:
            skips.append(Skip(*reader.name(number), error.cause, error.detail))
            self._bad[stream, source, number] = error
            self._check(stream, source, reader)
            return None
        self._has_good.add((stream, source))
        return decoded

    def _check(self, stream: int, source: int, reader: ShardReader) -> None:
        if (stream, source) in self._has_good:
            return
        bad = [error for (of_stream, of_source, _), error in self._bad.items() if (of_stream, of_source) == (stream, source)]
        if len(bad) >= min(len(reader), _MAX_BAD_IN_A_ROW):
            raise SourceError(_all_bad(reader, bad))


class ShardLoader(DataLoader):
    """Loads batches in the plan's order, notes what was skipped, and can go on in the middle of an epoch.

    The order does not depend on the number of workers. `state_dict` counts the batches that were handed out, not those prefetched.
    Arguments are DataLoader's; `batch_size` is None, the sampler a `PlanSampler`, the dataset a `ShardDataset`. Where an epoch uses fewer
    batches than there are (`limit_train_batches`), `used` says how many, so that a state of its end is known for one. With `as_bytes`
    pixels stay bytes.
    """

    used: Callable[[], float] | None = None
    as_bytes = False
    _handed_out = 0
    _epoch: int | None = None  # the one that batches were handed out of last
    _plan: str | None = None
    _floats: RecycledMemory | None = None  # kept from epoch to epoch
    _blocks: "OrderedDict[int, Tensor] | None" = None  # the workers' memory: what is referred to is not mapped anew for every batch

    def __iter__(self) -> Iterator[MediaBatch]:
        sampler: PlanSampler = self.sampler
        handed_out = sampler.first_batch
        self._handed_out, self._epoch = handed_out, sampler.epoch
        iterator = super().__iter__()
        sampler.first_batch = 0
        empty = True
        if self._floats is None:
            self._floats, self._blocks = RecycledMemory(), OrderedDict()
        for loaded in iterator:
            self._keep(loaded.blocks)
            for skip in loaded.skips:
                self.dataset.report.add(skip)
            if loaded.error is not None:
                raise loaded.error
            self._handed_out += 1
            if loaded.batch is not None:
                empty = False
                yield loaded.batch_of_bytes() if self.as_bytes else loaded.take(self._floats)
        if empty and not handed_out:
            raise SourceError(_all_bad(self.dataset.readers[0][0], [], self.dataset.report))

    def _keep(self, blocks: Sequence[Tensor]) -> None:
        for block in blocks:
            self._blocks[block.data_ptr()] = block
            self._blocks.move_to_end(block.data_ptr())
        while len(self._blocks) > self.num_workers * _KEPT_BLOCKS:
            self._blocks.popitem(last=False)

    def identity(self) -> str:
        """SHA-256 over what decides the batches: shards (sizes and times of writing), plans and decoders' settings, but not workers."""
        digest = hashlib.sha256(f"{self.sampler.rank} {self.sampler.identity()}".encode())
        for readers, decoder in zip(self.dataset.readers, self.dataset.decoders, strict=True):
            places = [path.resolve() if isinstance(path, Path) else path for reader in readers for path in reader.paths]
            shards = [(str(path), stamp_of(path)) for path in places]
            settings = {name: value for name, value in vars(decoder).items() if isinstance(value, _TELLING)}
            digest.update(repr((shards, sorted(settings.items()), type(decoder).__qualname__)).encode())
        return digest.hexdigest()

    def plan_identity(self) -> str:
        """SHA-256 over what decides which samples an epoch's batches hold; wherever the shards lie, and on any rank."""
        if self._plan is None:
            shards = [(path.name, count) for some in self.dataset.readers for reader in some for path, count in reader.shards()]
            self._plan = hashlib.sha256(repr((self.sampler.identity(), shards)).encode()).hexdigest()
        return self._plan

    def state_dict(self) -> dict[str, int | str]:
        """Epoch, batches of it that were handed out, whether those are all that it uses, and the plan that they belong to."""
        handed_out = self._handed_out if self._epoch == self.sampler.epoch else self.sampler.first_batch
        whole = handed_out >= min(len(self.sampler), self.used() if self.used else len(self.sampler))
        return {"epoch": self.sampler.epoch, "num_batches": handed_out, "whole": whole, "plan": self.plan_identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration begin after the batches that a state had handed out."""
        epoch, num_batches = state["epoch"], state["num_batches"]
        whole = bool(state.get("whole", num_batches >= len(self.sampler)))
        if state.get("plan") not in (None, self.plan_identity()):
            whole = whole or num_batches >= len(self.sampler)
            logger.warning(
                "the shards, the ranks or the settings of batches are not those of the checkpoint; epoch %d goes on at batch %d of %d of "
                "another order; some samples may come twice in it and some not at all", epoch, num_batches, len(self.sampler),
            )  # fmt: skip
        self.sampler.set_epoch(epoch + whole)
        self.sampler.first_batch = 0 if whole else num_batches
        self._epoch = None


def _all_bad(reader: ShardReader, errors: Sequence[SampleError], report: SkipReport | None = None) -> str:
    causes = dict(Counter(error.cause for error in errors).most_common()) if report is None else report.counts
    told = ", ".join(f"{count} x {cause}" for cause, count in causes.items()) if report is None else report.summary()
    further = f" and {counted(len(reader.paths) - 1, 'further shard')}" if len(reader.paths) > 1 else ""
    given = f"{reader.paths[0]}{further} {'were' if further else 'was'} given"
    example = f" (e.g. {errors[-1]})" if errors else ""
    number = len(errors) or len(reader)
    bad = "the one sample tried cannot be used" if number == 1 else f"none of the {number} samples tried can be used"
    return f"{given}; {bad}: {told}{example}; look at them with `moviegen data inspect {reader.paths[0]}`; {advice_for(causes)}"
