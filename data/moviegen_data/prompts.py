"""Prompts to predict for, from a list or a file, with the controls that are prefixed to them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError
from moviegen_core.parallel.place import data_place
from moviegen_core.prompts import CameraMotion, with_camera_motion, with_fps
from moviegen_data.buckets import Bucket
from moviegen_data.order import SampleOrder
from moviegen_data.plan import BatchPlan, BatchStream, BucketPart, PlanSampler
from moviegen_data.tables import read_table

_COLUMNS = ("prompt", "caption", "text", "prompt_en", "video_prompt", "instruction")
_KEYS = ("key", "id")


class PromptData(LightningDataModule):
    """Prompts for `predict`.

    Args:
        prompts: texts, or a file of them: txt (one a line), csv (with a header), json (a list of texts or of records, or a mapping from key
            to text) or jsonl. Further columns travel along as metadata; `fps`, `camera_motion`, `num_frames`, `height` and `width` of a
            record win over the settings below.
        keys: the prompts' names, which with the model's seed choose the noise; their positions unless given here or in the file.
        column: the column that holds the prompt, where it is not called prompt, caption or text.
        fps: sampling rate to ask for, prefixed as "FPS-16" (3.1.4); none unless given.
        camera_motion: camera motion to ask for, prefixed as "zoom in." (3.2.1, B.2); none unless given.
        num_frames: frames to generate; the model's own number unless given.
        height: rows in pixels, likewise.
        width: columns in pixels, likewise.
        batch_size: prompts in a batch on each rank.
        limit: read only so many of the first prompts.

    Raises:
        UsageError: the file is absent or holds no prompt, or keys are too few or come twice.
    """

    def __init__(
        self,
        *,
        prompts: str | list[str],
        keys: list[str] | None = None,
        column: str | None = None,
        fps: float | None = None,
        camera_motion: CameraMotion | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        batch_size: int = 4,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (limit is not None and limit < 1):
            raise UsageError(f"batch_size={batch_size}, limit={limit} were given", "both are at least 1", "give positive numbers")
        records = list(read_prompts(prompts, column=column))[:limit]
        if not records:
            raise UsageError(f"the prompts {prompts!r} were given", "they hold no text", "give at least one prompt")
        self.keys = _keys(records, keys)
        sizes = {"fps": fps, "camera_motion": camera_motion, "num_frames": num_frames, "height": height, "width": width}
        wanted = {name: value for name, value in sizes.items() if value is not None}
        self.records = [wanted | _given(record) for record in records]
        self.captions = [_caption(record) for record in self.records]
        self.batch_size = batch_size

    def predict_dataloader(self) -> DataLoader:
        """Batches of prompts; where they do not divide by the ranks, the last ranks repeat a few."""
        place = data_place(self.trainer)
        parts = [[BucketPart(0, SampleOrder([len(group)], chosen=None, shuffle=False), 1.0)] for group in self._groups()]
        stream = BatchStream(
            [Bucket(num_frames=1, height=1, width=1)] * len(parts), parts,
            batch_size=self.batch_size, rank=place.rank, world_size=place.count, carry=False,
        )  # fmt: skip
        return DataLoader(_Prompts(self, self._groups()), sampler=PlanSampler(stream), batch_size=None, collate_fn=_same)

    def batch(self, numbers: Sequence[int]) -> MediaBatch:
        """The prompts of these positions."""
        rates = [self.records[number].get("fps") for number in numbers]
        return MediaBatch(
            captions=[self.captions[number] for number in numbers],
            keys=[self.keys[number] for number in numbers],
            fps=None if any(rate is None for rate in rates) else torch.tensor([float(rate) for rate in rates], dtype=torch.float32),
            metadata=[dict(self.records[number]) for number in numbers],
        )

    def _groups(self) -> list[list[int]]:
        """Positions of prompts that ask for one size, so that every batch has one."""
        groups: dict[Any, list[int]] = {}
        for number, record in enumerate(self.records):
            size = tuple(str(record.get(name)) for name in ("num_frames", "height", "width"))
            groups.setdefault((*size, record.get("fps") is None), []).append(number)
        return list(groups.values())


class _Prompts(Dataset[MediaBatch]):
    def __init__(self, data: PromptData, groups: list[list[int]]) -> None:
        self.data, self.groups = data, groups

    def __len__(self) -> int:
        return len(self.data.captions)

    def __getitem__(self, plan: BatchPlan) -> MediaBatch:
        batch = self.data.batch([self.groups[plan.bucket][number] for _, number in plan.samples])
        for record, repeated in zip(batch.metadata, plan.repeated, strict=True):
            record |= {"repeated": True} if repeated else {}
        return batch


def read_prompts(prompts: str | Sequence[str], *, column: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield a record with at least `prompt` for each prompt of a list or a file.

    Raises:
        UsageError: the file is absent, of an unknown kind, or its records have no prompt.
    """
    if not isinstance(prompts, str):
        yield from ({"prompt": text} for text in prompts)
        return
    path = Path(prompts).expanduser()
    if path.suffix.lower() not in (".txt", ".csv", ".json", ".jsonl"):
        raise UsageError(
            f"the prompts {prompts!r} were given", "prompts come in txt, csv, json and jsonl files", "give such a file, or a list of texts"
        )
    if not path.is_file():
        near = ", ".join(sorted(other.name for other in path.parent.glob("*.*"))[:6]) if path.parent.is_dir() else "no such folder"
        raise UsageError(
            f"the prompts {prompts!r} were given", f"there is no such file; {path.parent} holds {near or 'nothing'}", "correct the path"
        )
    for row in _rows(path):
        yield _record(row, path, column)


def _rows(path: Path) -> Sequence[Any]:
    content = read_table(path, what="prompts")
    return [{"key": key, "prompt": value} for key, value in content.items()] if isinstance(content, Mapping) else content


def _record(row: Any, path: Path, column: str | None) -> dict[str, Any]:
    if isinstance(row, str):
        return {"prompt": row}
    names = list(row) if isinstance(row, Mapping) else []
    found = next((name for name in ((column,) if column else _COLUMNS) if name in names), None)
    if found is None or not isinstance(row[found], str):
        raise UsageError(
            f"a record of {path} was read for {column or 'a prompt'!r}",
            f"it has {', '.join(map(str, names)) or type(row).__name__}",
            f"name the column that holds the text with `column`, or call it one of {', '.join(_COLUMNS[:3])}",
        )
    return {**{name: value for name, value in row.items() if name != found}, "prompt": row[found]}


def _keys(records: Sequence[Mapping[str, Any]], given: Sequence[str] | None) -> list[str]:
    if given is not None and len(given) != len(records):
        raise UsageError(f"{len(given)} keys were given", f"there are {len(records)} prompts", "give one key for each prompt")
    own = [
        next((str(record[name]) for name in _KEYS if record.get(name) not in (None, "")), f"{number:05d}")
        for number, record in enumerate(records)
    ]
    keys = list(given) if given is not None else own
    twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if twice:
        raise UsageError(
            f"the keys {', '.join(twice[:3])} were given twice", f"{len(keys)} prompts have {len(set(keys))} names", "give each its own"
        )
    return keys


def _given(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says; an empty cell says nothing, but an empty prompt asks for anything."""
    return {name: value for name, value in record.items() if name == "prompt" or value not in (None, "")}


def _caption(record: Mapping[str, Any]) -> str:
    caption = record["prompt"]
    if record.get("camera_motion") is not None:
        caption = with_camera_motion(caption, record["camera_motion"])
    return with_fps(caption, float(record["fps"])) if record.get("fps") is not None else caption


def _same(batch: MediaBatch) -> MediaBatch:
    return batch
