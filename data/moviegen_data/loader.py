"""From plans to batches: a map-style dataset over plans, and the loader that counts and resumes.

Shapes: b samples, pixels (b, 3, t, h, w), latents (b, c, t, h, w) or (b, c, t), sounds (b, a, s).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_data.buckets import Bucket
from moviegen_data.decoding import Decoded, SampleDecoder
from moviegen_data.faults import SampleError, Skip, SkipReport, SourceError
from moviegen_data.memory import RecycledMemory
from moviegen_data.plan import BatchPlan, PlanSampler
from moviegen_data.reader import ShardReader
from moviegen_data.rows import LatentRows
from moviegen_data.storage import stamp_of
from moviegen_data.transforms import to_floats

_MAX_BAD_IN_A_ROW = 256
_PLAIN = (str, int, float, type(None))


@dataclass
class LoadedBatch:
    """A batch, and what was skipped on the way to it.

    Args:
        batch: the batch; None where a fixed plan has no good sample for it.
        skips: bad samples that were met.
        pixels: the batch's video as bytes: on the way from a worker they take a quarter of what floats would.
    """

    batch: MediaBatch | None
    skips: list[Skip]
    pixels: UInt8[Tensor, "b 3 t h w"] | None = None

    def take(self, memory: RecycledMemory) -> MediaBatch | None:
        """The batch, its pixels as floats."""
        if self.batch is None or self.pixels is None:
            return self.batch
        return replace(self.batch, video=to_floats(self.pixels, memory.empty(*self.pixels.shape)))

    def batch_of_bytes(self) -> MediaBatch | None:
        """The batch, its pixels as bytes."""
        return self.batch if self.batch is None or self.pixels is None else replace(self.batch, video=self.pixels)

    def pin_memory(self) -> "LoadedBatch":
        """Called by the loader where pinned memory was asked for."""
        batch = self.batch
        if batch is None:
            return self
        pinned = {name: _pin(getattr(batch, name)) for name in ("video", "latents", "fps", "audio", "extras")}
        pixels = _pin(self.pixels)
        text = {name: TextEmbedding(_pin(part.tokens), _pin(part.mask)) for name, part in batch.text.items()}
        return replace(self, batch=replace(batch, **pinned, text=text), pixels=pixels)


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
        self._memory = RecycledMemory()
        self._bad: dict[tuple[int, int, int], SampleError] = {}
        self._has_good: set[tuple[int, int]] = set()
        for reader in (reader for some in readers for reader in some):
            for skip in reader.report.skips.values():
                self.report.skips.setdefault((skip.place, skip.key), skip)

    def __len__(self) -> int:
        return len(self.sampler)

    def __getitem__(self, plan: BatchPlan) -> LoadedBatch:
        stream, decoder = self.sampler.streams[plan.stream], self.decoders[plan.stream]
        bucket = stream.buckets[plan.bucket]
        shape = decoder.pixel_shape(bucket)
        pixels = None if shape is None else self._memory.empty(len(plan.samples), 3, *shape, dtype=torch.uint8)
        rows = LatentRows(self._memory, len(plan.samples)) if decoder.latents else None
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
        return LoadedBatch(collate(decoded, rows) if decoded else None, skips, None if pixels is None else pixels[: len(decoded)])

    def largest_batch_bytes(self) -> int:
        """Bytes of the largest batch that any plan asks for; a sample of each bucket stands for all of it."""
        largest = 0
        for stream, readers, decoder in zip(self.sampler.streams, self.readers, self.decoders, strict=True):
            for bucket, size, parts in zip(stream.buckets, stream.batch_sizes, stream.parts, strict=True):
                for part in parts:
                    sample = readers[part.source][int(part.order.take(0, 1)[0])]
                    largest = max(largest, size * decoder.num_bytes(sample, bucket))
        return largest

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
        bad = [error for (of_stream, of_source, _), error in self._bad.items() if (of_stream, of_source) == (stream, source)]
        if (stream, source) not in self._has_good and len(bad) >= min(len(reader), _MAX_BAD_IN_A_ROW):
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
    _floats: RecycledMemory | None = None  # kept from epoch to epoch

    def __iter__(self) -> Iterator[MediaBatch]:
        sampler: PlanSampler = self.sampler
        handed_out = sampler.first_batch
        self._handed_out = handed_out
        iterator = super().__iter__()
        sampler.first_batch = 0
        empty = True
        if self._floats is None:
            self._floats = RecycledMemory()
        for loaded in iterator:
            for skip in loaded.skips:
                self.dataset.report.add(skip)
            self._handed_out += 1
            if loaded.batch is not None:
                empty = False
                yield loaded.batch_of_bytes() if self.as_bytes else loaded.take(self._floats)
        if empty and not handed_out:
            raise SourceError(_all_bad(self.dataset.readers[0][0], [], self.dataset.report.summary()))

    def identity(self) -> str:
        """SHA-256 over what decides the batches: shards (sizes and times of writing), plans and decoders' settings, but not workers."""
        digest = hashlib.sha256()
        for readers, stream, decoder in zip(self.dataset.readers, self.sampler.streams, self.dataset.decoders, strict=True):
            shards = [(str(path), stamp_of(path)) for reader in readers for path in reader.paths]
            settings = {name: value for name, value in vars(decoder).items() if isinstance(value, _PLAIN)}
            place = (stream.rank, stream.world_size, stream.seed, stream.carry, stream.batch_sizes, list(map(str, stream.buckets)))
            digest.update(repr((shards, place, sorted(settings.items()), type(decoder).__qualname__)).encode())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, int]:
        """Epoch, batches of it that were handed out, and whether those are all that it uses."""
        handed_out = getattr(self, "_handed_out", 0)
        whole = handed_out >= min(len(self.sampler), self.used() if self.used else len(self.sampler))
        return {"epoch": self.sampler.epoch, "num_batches": handed_out, "whole": whole}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration begin after the batches that a state had handed out."""
        whole = bool(state.get("whole", state["num_batches"] >= len(self.sampler)))
        self.sampler.set_epoch(state["epoch"] + whole)
        self.sampler.first_batch = 0 if whole else state["num_batches"]


def collate(samples: Sequence[Decoded], rows: LatentRows | None = None) -> MediaBatch:
    """Join decoded samples, all but their pixels; texts are padded to the longest of the batch, a rate of None is a picture's."""
    rates = [sample.fps for sample in samples]
    latents, sounds = [sample.latent for sample in samples], [sample.audio for sample in samples]
    joined = None if rows is None else rows.joined(latents)
    if joined is None and latents[0] is not None:
        joined = _stack(latents)
    return MediaBatch(
        captions=[sample.caption for sample in samples],
        keys=[sample.key for sample in samples],
        latents=joined,
        fps=None if any(rate is None for rate in rates) else torch.tensor(rates, dtype=torch.float32),
        audio=None if sounds[0] is None else _stack(sounds),
        audio_hz=samples[0].audio_hz,
        text=_pad_texts([sample.text for sample in samples]),
        extras={name: _stack([sample.extras[name] for sample in samples]) for name in samples[0].extras},
        metadata=[sample.metadata for sample in samples],
    )


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise SourceError(
            f"a batch of tensors of shapes {sorted(shapes)} was drawn; a batch has one shape; "
            "pack samples of different shapes into different shards, or write `latent_shape` into their json"
        )
    return torch.stack(list(tensors))


def _pad_texts(texts: Sequence[Any]) -> dict[str, TextEmbedding]:
    names = set(texts[0]).intersection(*texts[1:])
    embeddings = {}
    for name in sorted(names):
        length = max(text[name][0].shape[0] for text in texts)
        tokens = torch.zeros(len(texts), length, texts[0][name][0].shape[1], dtype=texts[0][name][0].dtype)
        mask = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, text in enumerate(texts):
            given, real = text[name]
            tokens[row, : len(given)], mask[row, : len(given)] = given, real
        embeddings[name] = TextEmbedding(tokens, mask)
    return embeddings


def _pin(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pin(part) for name, part in value.items()}
    return value.pin_memory() if isinstance(value, Tensor) else value


def _all_bad(reader: ShardReader, errors: Sequence[SampleError], report: str = "") -> str:
    causes = Counter(error.cause for error in errors)
    counted = ", ".join(f"{count} x {cause}" for cause, count in causes.most_common())
    further = f" and {len(reader.paths) - 1} further shards" if len(reader.paths) > 1 else ""
    example = f" (e.g. {errors[-1]})" if errors else ""
    return (
        f"{reader.paths[0]}{further} were given; none of the {len(errors) or len(reader)} samples tried can be used: {counted or report}"
        f"{example}; look at them with `moviegen data inspect {reader.paths[0]}`, and ask for fewer frames or another rate"
    )
