"""Videos, images and sounds on TensorBoard's pages while a model trains."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

from moviegen_core.autoencoder import AudioAutoencoder
from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_core.callbacks.ema import ExponentialMovingAverage
from moviegen_core.callbacks.predictions import predictions
from moviegen_core.errors import UsageError
from moviegen_core.media.images import gif_bytes, png_bytes, sheet, shrink, strip
from moviegen_core.media.sound import spectrogram, wav_bytes, waveform

logger = logging.getLogger(__name__)


class MediaLogger(Callback):
    """What loggers of media have in common: the event file, and that they are idle on all but a few steps.

    Args:
        num_samples: samples to show, at least 1.
        max_px: longer side of what is shown; larger videos are averaged down to it.
        num_strip_frames: frames in the strips.
    """

    def __init__(self, *, num_samples: int = 4, max_px: int = 256, num_strip_frames: int = 8) -> None:
        for name, value in {"num_samples": num_samples, "max_px": max_px, "num_strip_frames": num_strip_frames}.items():
            if value < 1:
                raise UsageError(f"{name}={value} was given to {type(self).__name__}", "it counts from 1", f"give {name} a larger number")
        self.num_samples = num_samples
        self.max_px = max_px
        self.num_strip_frames = num_strip_frames

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse loggers that cannot show media; a run without any logger is left alone."""
        if trainer.loggers and not trainer.fast_dev_run and not any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
            names = ", ".join(type(logger).__name__ for logger in trainer.loggers)
            raise UsageError(
                f"{type(self).__name__} was given with {names}",
                "media are written for lightning.pytorch.loggers.TensorBoardLogger",
                "add it to `trainer.logger` or remove the callback",
            )

    def show_videos(
        self, trainer: Trainer, tag: str, videos: Sequence[Float[Tensor, "3 t h w"]], captions: Sequence[str], *, fps: float
    ) -> None:
        """Log every video as an animation, all of them as one sheet of strips, and the captions as text."""
        for writer in _writers(trainer):
            small = [shrink(video, self.max_px) for video in videos]
            for index, video in enumerate(small):
                if video.shape[1] > 1:
                    add_gif(writer, f"{tag}/{index}", video, trainer.global_step, fps=fps)
            strips = [strip(video, self.num_strip_frames) for video in small]
            add_picture(writer, f"{tag}/strips", sheet(strips, captions, columns=1), trainer.global_step)
            # Markdown: a caption must not be taken for markup.
            listed = "\n".join(f"{index}. `{caption.replace('`', chr(39))}`" for index, caption in enumerate(captions))
            writer.add_text(f"{tag}/captions", listed, trainer.global_step)

    def show_sounds(self, trainer: Trainer, tag: str, sounds: Sequence[Float[Tensor, "c n"]], *, hz: int) -> None:
        """Log every sound to listen to, and its waveform and its spectrogram (rows on the mel scale) to look at.

        One that holds NaN or infinite values is left out with a warning: a picture is no reason to end a training.
        """
        for writer in _writers(trainer):
            for index, sound in enumerate(sounds):
                if not bool(sound.isfinite().all()):
                    logger.warning("%s/%d at step %d holds NaN or infinite values and is not shown", tag, index, trainer.global_step)
                    continue
                add_sound(writer, f"{tag}/{index}", sound, trainer.global_step, hz=hz)
                add_picture(writer, f"{tag}/{index}/waveform", waveform(sound), trainer.global_step)
                add_picture(writer, f"{tag}/{index}/spectrogram", spectrogram(sound, scale="mel", hz=hz), trainer.global_step)


class SampleLogger(MediaLogger):
    """Generates samples while the model trains and shows them on TensorBoard.

    From captions, it asks the model for `generate(captions)`, which returns videos (b, 3, t, h, w) in [-1, 1] or waveforms (b, c, n) in
    [-1, 1], and reads `fps` (videos) or `audio_hz` (waveforms) from it. From whole samples (`from_batch`), which models need that hear or
    see something (sound for a video, say), it asks for `predict_step`. Where an `ExponentialMovingAverage` is among the callbacks, its
    weights draw the samples. The random state of the training is left as it was.

    Args:
        prompts: captions to generate from; the first captions of the validation data unless given.
        every_n_steps: optimizer steps between samples; at the end of every validation unless given.
        from_batch: generate for the first validation samples with all that they hold, video and latents included, not for captions alone.
        num_samples: prompts to use, at least 1.
        max_px: longer side of what is shown; larger videos are averaged down to it.
        num_strip_frames: frames in the strips.
    """

    def __init__(
        self,
        *,
        prompts: list[str] | None = None,
        every_n_steps: int | None = None,
        from_batch: bool = False,
        num_samples: int = 4,
        max_px: int = 256,
        num_strip_frames: int = 8,
    ) -> None:
        super().__init__(num_samples=num_samples, max_px=max_px, num_strip_frames=num_strip_frames)
        self.prompts = prompts
        self.every_n_steps = every_n_steps
        self.from_batch = from_batch
        self._captions: list[str] = []
        self._batch: MediaBatch | None = None
        self._last_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would never log anything."""
        if self.from_batch and (self.prompts is not None or self.every_n_steps is not None):
            raise UsageError(
                "SampleLogger was given from_batch: true with prompts or every_n_steps",
                "samples of the validation data are shown at the end of a validation",
                "leave `prompts` and `every_n_steps` out",
            )
        if not self.from_batch and not callable(getattr(pl_module, "generate", None)):
            raise UsageError(
                f"SampleLogger was given with {type(pl_module).__name__}",
                "it asks the model for `generate(captions)`, which this one lacks",
                "remove the callback, or use ReconstructionLogger for an autoencoder",
            )
        if self.prompts is None and self.every_n_steps is not None:
            raise UsageError(
                f"SampleLogger was given every_n_steps={self.every_n_steps} and no prompts",
                "without prompts the captions of the validation data are used, at the end of a validation",
                "give `prompts`, or leave `every_n_steps` out",
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count steps from where training starts or resumes."""
        self._last_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Sample where enough optimizer steps have been made."""
        if self.every_n_steps is None:
            return
        step = trainer.global_step
        # Steps, not differences, are multiples: a resumed run samples where the uninterrupted one would have.
        if step // self.every_n_steps > self._last_step // self.every_n_steps:
            self.sample(trainer, pl_module, self.prompts)
        self._last_step = step

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first captions."""
        if self.prompts is None and batch_idx == 0 and dataloader_idx == 0:
            self._captions = list(batch.captions)
            self._batch = _first(batch, self.num_samples) if self.from_batch else None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample, unless that is done by steps."""
        if self.every_n_steps is not None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.from_batch:
            self.sample_batch(trainer, pl_module)
        else:
            self.sample(trainer, pl_module, self._captions if self.prompts is None else self.prompts)

    def sample(self, trainer: Trainer, pl_module: LightningModule, captions: Sequence[str]) -> None:
        """Generate from the captions and log what comes."""
        captions = list(captions)[: self.num_samples]
        if not captions or not trainer.loggers or trainer.fast_dev_run:
            return
        with _evaluating(trainer, pl_module):
            media = pl_module.generate(captions)
        if media.ndim == 5:
            self.show_videos(trainer, "samples", list(media), captions, fps=float(getattr(pl_module, "fps", 16.0)))
        else:
            self.show_sounds(trainer, "samples", list(media), hz=int(pl_module.audio_hz))

    def sample_batch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate for the kept samples and log what comes; a sound for a video is shown under that video."""
        if self._batch is None or not trainer.loggers or trainer.fast_dev_run:
            return
        batch = self._batch
        with _evaluating(trainer, pl_module):
            made = predictions(pl_module.predict_step(batch, 0))
        films = [sample.video for sample in made if sample.video is not None] or list(() if batch.video is None else batch.video)
        if films:
            rate = made[0].fps if made[0].video is not None or batch.fps is None else float(batch.fps[0])
            self.show_videos(trainer, "samples", films, [sample.caption for sample in made], fps=rate)
        sounds = [sample.audio for sample in made if sample.audio is not None]
        if sounds:
            self.show_sounds(trainer, "samples", sounds, hz=int(made[0].audio_hz))


class ReconstructionLogger(MediaLogger):
    """Shows validation videos above what the autoencoder makes of them; sounds as `input` and `output`, to hear and to see.

    The autoencoder is the model itself where it has `encode` and `decode`, or else its `autoencoder`.

    Args:
        num_samples: videos, or sounds, of the first validation batch to show, at least 1.
        max_px: longer side of what is shown; larger videos are averaged down to it.
        num_strip_frames: frames in the strips.
        fps: frames per second of the animations where the batch does not say.
    """

    def __init__(self, *, num_samples: int = 2, max_px: int = 256, num_strip_frames: int = 8, fps: float = 16.0) -> None:
        super().__init__(num_samples=num_samples, max_px=max_px, num_strip_frames=num_strip_frames)
        self.fps = fps

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Reconstruct the first batch."""
        if (
            batch_idx
            or dataloader_idx
            or trainer.sanity_checking
            or trainer.state.fn != "fit"
            or not trainer.loggers
            or trainer.fast_dev_run
        ):
            return
        autoencoder = pl_module if hasattr(pl_module, "encode") else getattr(pl_module, "autoencoder", None)
        of_sound = isinstance(autoencoder, AudioAutoencoder)
        media = batch.audio if of_sound else batch.video
        if autoencoder is None or media is None:
            kind = "sounds" if of_sound else "pixels"
            missing = "an autoencoder" if autoencoder is None else f"{kind} in the validation batches"
            raise UsageError(
                f"ReconstructionLogger was given with {type(pl_module).__name__}",
                f"{missing} would be needed, there is none",
                "remove the callback",
            )
        if of_sound:
            self._reconstruct_sounds(trainer, pl_module, autoencoder, media[: self.num_samples])
            return
        video = media[: self.num_samples]
        with _evaluating(trainer, pl_module):
            output = autoencoder.decode(autoencoder.encode(video), num_frames=video.shape[2])
        fps = self.fps if batch.fps is None else float(batch.fps[0])
        pairs = list(torch.cat([video.float(), output.float()], dim=3))
        self.show_videos(
            trainer, "reconstructions", pairs, [f"{key}: input above, output below" for key in batch.keys[: len(pairs)]], fps=fps
        )

    def _reconstruct_sounds(
        self, trainer: Trainer, pl_module: LightningModule, autoencoder: AudioAutoencoder, audio: Float[Tensor, "b a s"]
    ) -> None:
        with _evaluating(trainer, pl_module):
            output = autoencoder.decode(autoencoder.encode(audio), num_frames=audio.shape[-1])
        for name, sounds in (("input", audio), ("output", output)):
            self.show_sounds(trainer, f"reconstructions/{name}", list(sounds.float()), hz=autoencoder.sample_rate)


def add_gif(writer: Any, tag: str, video: Float[Tensor, "3 t h w"], step: int, *, fps: float) -> None:
    """Write an animation into the event file; TensorBoard's image page plays it (`SummaryWriter.add_video` would need moviepy)."""
    _add_image(writer, tag, gif_bytes(video, fps), (video.shape[3], video.shape[2]), step)


def add_picture(writer: Any, tag: str, picture: Image.Image, step: int) -> None:
    """Write a still into the event file."""
    _add_image(writer, tag, png_bytes(picture), picture.size, step)


def add_sound(writer: Any, tag: str, audio: Float[Tensor, "c n"], step: int, *, hz: int) -> None:
    """Write a sound into the event file, with all its channels (`SummaryWriter.add_audio` takes one)."""
    channels, samples = audio.shape
    sound = Summary.Audio(
        sample_rate=hz, num_channels=channels, length_frames=samples, encoded_audio_string=wav_bytes(audio, hz), content_type="audio/wav"
    )
    _add(writer, Summary.Value(tag=tag, audio=sound), step)


def _add_image(writer, tag, encoded, size, step):
    width, height = size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
    _add(writer, Summary.Value(tag=tag, image=image), step)


def _add(writer, value, step):
    writer._get_file_writer().add_summary(Summary(value=[value]), step)


def _first(batch: MediaBatch, count: int) -> MediaBatch:
    """The first samples of a batch."""
    size = len(batch)

    def cut(value: Any) -> Any:
        if isinstance(value, TextEmbedding):
            return TextEmbedding(value.tokens[:count], value.mask[:count])
        if isinstance(value, dict):
            return {name: cut(part) for name, part in value.items()}
        return value[:count] if isinstance(value, (list, Tensor)) and len(value) == size else value

    return replace(batch, **{field.name: cut(getattr(batch, field.name)) for field in fields(batch)})


def _writers(trainer: Trainer) -> list[Any]:
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


@contextmanager
def _evaluating(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Evaluation mode, averaged weights, the run's precision, and random states that are put back."""
    modes = {module: module.training for module in pl_module.modules()}
    device = pl_module.device
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        for callback in trainer.callbacks:
            if isinstance(callback, ExponentialMovingAverage) and callback.use_for_predict:
                stack.enter_context(callback.averaged(pl_module))
        stack.enter_context(trainer.precision_plugin.forward_context())
        stack.enter_context(torch.no_grad())
        pl_module.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
