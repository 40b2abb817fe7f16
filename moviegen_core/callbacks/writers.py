"""Writers of predictions: mp4 with or without sound, GIF, PNG frames, strips, wav, flac, and a contact sheet of all."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from moviegen_core.callbacks.predictions import Prediction, SampleWriter, predictions
from moviegen_core.errors import UsageError
from moviegen_core.files import safe_name, write_bytes
from moviegen_core.media.images import gif_bytes, png_bytes, sheet, shrink, strip, write_strip
from moviegen_core.media.sound import flac_bytes, require_finite, wav_bytes
from moviegen_core.media.video import AudioCodec, to_uint8, write_video
from moviegen_core.parallel.place import data_place

Format = Literal["mp4", "gif", "png", "strip", "wav", "flac", "sheet"]
_FORMATS = get_args(Format)

_SHEET_PX = 128
_SHEET_FRAMES = 6
_SHEET_CELLS = 64


class PredictionWriter(SampleWriter):
    """Writes what a model predicts into a folder, every file whole or not at all, named after the sample's key.

    Where a model makes sound for the videos of its batch, and returns no video, the mp4 shows those. A sound that is shorter than the
    picture is followed by silence, a longer one goes on over the last frame. Beside the media of a sample lies `NAME.json` with its key,
    caption, frame rate, sizes and metadata. A video of one frame is an image and is written as PNG whatever the format. Latents are
    written by `moviegen_data.latents.LatentShardWriter`.

    Args:
        output: the folder.
        formats: any of `mp4` (with sound where the model gives some), `gif`, `png` (a folder of frames), `strip` (8 frames side by side),
            `wav` (16 bits), `flac` (24 bits), and `sheet` (one `contact_sheet.png` of the run's first 64 samples).
        overwrite: replace files of an earlier run; otherwise they are an error before anything is generated.
        crf: quality of the mp4, 0 (lossless) to 51 (worst).
        audio_codec: of the mp4's sound, `aac` (every player takes it) or `opus`.
    """

    def __init__(
        self,
        *,
        output: str = "predictions",
        formats: Sequence[Format] = ("mp4", "strip"),
        overwrite: bool = False,
        crf: int = 18,
        audio_codec: AudioCodec = "aac",
    ) -> None:
        super().__init__()
        unknown = [name for name in formats if name not in _FORMATS]
        if unknown or not formats:
            raise UsageError(f"formats={list(formats)} was given", f"there are {', '.join(_FORMATS)}", "give some of these")
        self.output = Path(output)
        self.formats = list(formats)
        self.overwrite = overwrite
        self.crf = crf
        self.audio_codec: AudioCodec = audio_codec
        self._earlier: set[str] = set()
        self._names: Counter[str] = Counter()
        self._cells: list[tuple[Image.Image, str]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what is there already."""
        self._names.clear()
        self._cells.clear()
        self._earlier = {path.stem for path in self.output.iterdir()} if self.output.is_dir() else set()
        # No process may write before all have looked.
        trainer.strategy.barrier("predictions")

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Refuse to overwrite before time is spent on sampling."""
        taken = [key for key in getattr(batch, "keys", ()) if safe_name(key) in self._earlier]
        if taken and not self.overwrite:
            raise UsageError(
                f"a prediction named {taken[0]!r} was asked for",
                f"{self.output} holds one of an earlier run",
                "give another `output`, or `overwrite: true` to replace it",
            )

    def write_batch(self, prediction: Any, batch: Any, number: int) -> None:
        """Write every sample of the batch."""
        for index, sample in enumerate(predictions(prediction)):
            self.write(_with_picture(sample, batch, index))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the contact sheet; every process that saw samples of its own writes one."""
        if self._cells:
            place = data_place(trainer)
            name = "contact_sheet.png" if place.count == 1 else f"contact_sheet_{place.rank}.png"
            pictures, captions = zip(*self._cells, strict=True)
            write_bytes(self.output / name, png_bytes(sheet(pictures, captions)))

    def write(self, sample: Prediction) -> None:
        """Write one sample in all formats; a sound that holds NaN is refused before anything is written."""
        if sample.audio is not None:
            require_finite(sample.audio, f"the sound of {sample.key!r}")
        name = self._name(sample.key)
        is_image = sample.video is not None and sample.video.shape[1] == 1
        for form in {"png" if is_image and form in ("mp4", "gif", "strip") else form: None for form in self.formats}:
            if form == "sheet":
                if sample.video is not None and len(self._cells) < _SHEET_CELLS:
                    self._cells.append((strip(shrink(sample.video, _SHEET_PX), _SHEET_FRAMES), sample.caption))
                continue
            if form == "mp4":
                self._write_mp4(self.output / f"{name}.mp4", sample)
            else:
                _WRITERS[form](self.output / name, sample)
        write_bytes(self.output / f"{name}.json", json.dumps(_describe(sample), ensure_ascii=False, indent=1, default=str).encode())

    def _write_mp4(self, path: Path, sample: Prediction) -> None:
        sound = {"audio": sample.audio, "audio_hz": None if sample.audio is None else sample.audio_hz, "audio_codec": self.audio_codec}
        write_video(path, _video(sample), fps=sample.fps, crf=self.crf, **sound)

    def _name(self, key: str) -> str:
        # The same key twice in one run (the same prompt listed twice) makes two files.
        name = safe_name(key)
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}-{self._names[name]}"


def _with_picture(sample: Prediction, batch: Any, index: int) -> Prediction:
    """A sound that was made for a video of the batch, with that video."""
    video = getattr(batch, "video", None)
    if sample.audio is None or sample.video is not None or video is None:
        return sample
    rates = getattr(batch, "fps", None)
    return replace(sample, video=video[index], fps=sample.fps if rates is None else float(rates[index]))


def _write_gif(path: Path, sample: Prediction) -> None:
    write_bytes(_with(path, ".gif"), gif_bytes(_video(sample), sample.fps))


def _write_png(path: Path, sample: Prediction) -> None:
    frames = [png_bytes(Image.fromarray(frame)) for frame in to_uint8(_video(sample))]
    if len(frames) == 1:
        write_bytes(_with(path, ".png"), frames[0])
        return
    for index, frame in enumerate(frames):
        write_bytes(path / f"{index:05d}.png", frame)


def _write_strip(path: Path, sample: Prediction) -> None:
    write_strip(_with(path, ".strip.png"), _video(sample))


def _write_wav(path: Path, sample: Prediction) -> None:
    write_bytes(_with(path, ".wav"), wav_bytes(*_sound(sample, "wav")))


def _write_flac(path: Path, sample: Prediction) -> None:
    write_bytes(_with(path, ".flac"), flac_bytes(*_sound(sample, "flac")))


def _sound(sample: Prediction, form: str) -> tuple[Tensor, int]:
    if sample.audio is None or sample.audio_hz is None:
        raise UsageError(f"`{form}` was asked for", f"the model made no sound for {sample.key!r}", f"take `{form}` out of `formats`")
    return torch.atleast_2d(sample.audio), sample.audio_hz


_WRITERS: dict[str, Callable[[Path, Prediction], None]] = {
    "gif": _write_gif,
    "png": _write_png,
    "strip": _write_strip,
    "wav": _write_wav,
    "flac": _write_flac,
}


def _video(sample: Prediction) -> Tensor:
    if sample.video is None:
        raise UsageError("a picture format was asked for", f"the model made no video for {sample.key!r}", "give `formats: [wav]`, say")
    return sample.video


def _describe(sample: Prediction) -> dict[str, Any]:
    described: dict[str, Any] = {"key": sample.key, "caption": sample.caption}
    if sample.video is not None:
        _, num_frames, height, width = sample.video.shape
        described |= {"fps": sample.fps, "num_frames": num_frames, "height": height, "width": width}
    if sample.audio is not None:
        described |= {"audio_hz": sample.audio_hz, "audio_samples": sample.audio.shape[-1]}
    if sample.metadata:
        described["metadata"] = dict(sample.metadata)
    return described


def _with(path: Path, suffix: str) -> Path:
    # Not `with_suffix`: names may hold dots.
    return path.with_name(path.name + suffix)
