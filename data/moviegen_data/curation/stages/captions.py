"""Captions without a model: from files beside the media, or from what stages found out."""

import os
import string
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from moviegen_core.errors import UsageError
from moviegen_core.randomness import keyed_share
from moviegen_data.captions import caption_beside, caption_records
from moviegen_data.curation.annotations import require_own_names
from moviegen_data.curation.captioner import Captioner, Said
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.fingerprints import fingerprint_of
from moviegen_data.curation.media import Media
from moviegen_data.faults import SampleError

_BESIDE = "sidecar"
_USUAL = ("camera_motion",)  # annotations that a file may lack


class SidecarCaptions(Captioner):
    """Takes captions that exist: of a whole medium, for each of its clips.

    Where the file is changed, a run that goes on captions all clips anew; where NAME.txt is, those of the medium's part.

    Args:
        source: `sidecar` for NAME.txt beside each medium, or a csv, json or jsonl file, whose names are relative to the curated folder or
            to its own.
        column: the column that holds the caption, where it is not called caption, text or prompt.
        annotations: further columns that become annotations of the clips, where they are filled in; the file has them all, unless it is
            camera_motion alone.
        absent: what becomes of a clip without a caption: `drop`, or `keep`, which leaves it to a later captioner with `keep_existing`.
        portion: the clips whose turn it is, see `Captioner`.
        keep_existing: leave clips alone that have a caption.
        min_words: words below which a caption says too little.
        seed: of the clips' places.

    Raises:
        UsageError: the portion is not within [0, 1], a column or an annotation is named for `sidecar`, or an annotation is called as
            something else in shards; on first use: the file is absent, of an unknown kind, or lacks the columns.
        SourceError: on use: the system cannot read a NAME.txt.
    """

    def __init__(
        self,
        *,
        source: str = "sidecar",
        column: str | None = None,
        annotations: Sequence[str] = _USUAL,
        absent: Literal["drop", "keep"] = "drop",
        portion: tuple[float, float] = (0.0, 1.0),
        keep_existing: bool = False,
        min_words: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(portion=portion, keep_existing=keep_existing, min_words=min_words, seed=seed)
        if source == _BESIDE and column is not None:
            raise UsageError(f"column={column!r} was given to SidecarCaptions", "NAME.txt has no columns", "name a csv, json or jsonl file")
        if source == _BESIDE and set(annotations) - set(_USUAL):
            given = f"annotations={list(annotations)} was given to SidecarCaptions"
            raise UsageError(given, "NAME.txt has no columns", "name a csv, json or jsonl file")
        require_own_names(annotations, given="SidecarCaptions", others=["captioner"])
        self.source, self.column, self.annotations, self.absent = source, column, tuple(annotations), absent

    @property
    def leaves_some(self) -> bool:
        return self.absent == "keep"

    def fingerprint(self) -> str:
        return "" if self.source == _BESIDE else fingerprint_of(self.source)

    @property
    def beside(self) -> str | None:
        return ".txt" if self.source == _BESIDE else None

    def say(self, clips: Sequence[Clip], media: Sequence[Media]) -> list[Said | SampleError | None]:
        """What the files say."""
        return [self._said(self._record(clip, medium)) for clip, medium in zip(clips, media, strict=True)]

    def _said(self, record: Mapping[str, Any] | None) -> Said | SampleError | None:
        if self.absent == "keep" and (record is None or not record["caption"].strip()):
            return None
        if record is None:
            return SampleError("no caption", f"none in {self.source}")
        return Said(record["caption"], annotations={name: record[name] for name in self.annotations if name in record})

    def _record(self, clip: Clip, media: Media) -> Mapping[str, Any] | None:
        if self.source == _BESIDE:
            caption = caption_beside(media.path)
            return None if caption is None else {"caption": caption}
        own = media.path.resolve()
        names = [clip.source, str(own), os.path.relpath(own, Path(self.source).expanduser().resolve().parent)]
        return next((self._file[name] for name in names if name in self._file), None)

    @cached_property
    def _file(self) -> Mapping[str, Mapping[str, Any]]:
        path = Path(self.source).expanduser()
        if not path.is_file():
            advice = "give a csv, json or jsonl file, or `sidecar` for NAME.txt beside each medium"
            raise UsageError(f"the captions {self.source!r} were given to SidecarCaptions", "there is no such file", advice)
        further = () if self.annotations == _USUAL else self.annotations
        return {os.path.normpath(name): record for name, record in caption_records(path, column=self.column, further=further)}


class TemplateCaptions(Captioner):
    """Puts what is known of a clip into a sentence: for worlds whose truth is known, and for tests.

    Args:
        templates: sentences with names in braces, e.g. `a {color} {shape} moves {motion}`: annotations, facts, `key` or `source` of the
            clip. The clip's key decides which of several is taken. Clips that lack a name are dropped.
        portion: the clips whose turn it is, see `Captioner`.
        keep_existing: leave clips alone that have a caption.
        min_words: words below which a caption says too little.
        seed: of the clips' places.

    Raises:
        UsageError: there is no template, or one is malformed.
    """

    def __init__(
        self,
        *,
        templates: Sequence[str],
        portion: tuple[float, float] = (0.0, 1.0),
        keep_existing: bool = False,
        min_words: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(portion=portion, keep_existing=keep_existing, min_words=min_words, seed=seed)
        self.templates = tuple(templates)
        for template in self.templates:
            try:
                names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
            except ValueError as error:
                raise UsageError(
                    f"the template {template!r} was given", f"its braces do not match ({error})", "write each as {name}"
                ) from error
            if not all(name.isidentifier() for name in names):
                raise UsageError(f"the template {template!r} was given", "only plain names may stand in braces", "write each as {name}")
        if not self.templates:
            raise UsageError("no template was given to TemplateCaptions", "a caption is made from one", "give e.g. ['a {color} {shape}']")

    def say(self, clips: Sequence[Clip], media: Sequence[Media]) -> list[Said | SampleError]:
        """The sentences."""
        return [self._sentence(clip) for clip in clips]

    def _sentence(self, clip: Clip) -> Said | SampleError:
        place = keyed_share(f"template/{self.seed}/{clip.key}")
        template = self.templates[int(place * len(self.templates))]
        known = {**clip.facts, **clip.annotations, "key": clip.key, "source": clip.source}
        try:
            return Said(template.format_map(known))
        except KeyError as error:
            return SampleError("no caption", f"{template!r} names {error.args[0]!r}, known are {', '.join(sorted(known))}")
        except (ValueError, TypeError) as error:
            return SampleError("no caption", f"{template!r}: {error}")
