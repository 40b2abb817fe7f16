"""What a `predict_step` returned, sample by sample, and the callback that writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from moviegen_core.errors import UsageError
from moviegen_core.parallel.place import data_place


@dataclass(frozen=True)
class Prediction:
    """One sample of what a `predict_step` returned.

    Args:
        key: its unique name.
        caption: its text.
        video: pixels in [-1, 1] (3, t, h, w), or None.
        fps: frames per second.
        latents: normalised latents (c, t, h, w), or None.
        audio: waveform in [-1, 1] (channels, samples), or None.
        audio_hz: its sampling rate, or None.
        metadata: the sample's own json.
    """

    key: str
    caption: str
    video: Float[Tensor, "3 t h w"] | None
    fps: float
    latents: Float[Tensor, "c t h w"] | None
    audio: Float[Tensor, "c n"] | None
    audio_hz: int | None
    metadata: Mapping[str, Any]


def predictions(output: Any) -> list[Prediction]:
    """Take apart what `predict_step` returned: a mapping, or a record such as `MediaBatch`.

    It holds `keys` and `captions`, and whichever exist of `video` (b, 3, t, h, w), `fps`, `latents` (b, c, t, h, w), `audio` (b, c, n) with
    `audio_hz`, and `metadata`.
    """
    fields = output if isinstance(output, Mapping) else vars(output)
    if "keys" not in fields or "captions" not in fields:
        known = ", ".join(sorted(fields)) or "nothing"
        raise UsageError(f"predict_step returned {known}", "a writer needs `keys` and `captions` beside the media", "return these too")
    num_samples = len(fields["keys"])

    def column(name: str, default: Any = None) -> Sequence[Any]:
        values = fields.get(name)
        return [default] * num_samples if values is None or len(values) == 0 else values

    return [
        Prediction(
            key=fields["keys"][i],
            caption=fields["captions"][i],
            video=column("video")[i],
            fps=float(column("fps", 16.0)[i]),
            latents=column("latents")[i],
            audio=column("audio")[i],
            audio_hz=fields.get("audio_hz"),
            metadata=column("metadata", {})[i],
        )
        for i in range(num_samples)
    ]


class SampleWriter(BasePredictionWriter):
    """Writes predictions batch by batch, once where several processes made them together."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def write_batch(self, prediction: Any, batch: Any, number: int) -> None:
        """Write what the model returned for a batch, `number` of this run."""
        raise NotImplementedError(f"{type(self).__name__} must define write_batch(prediction, batch, number)")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the batch, on the one process that leads those that made it."""
        if data_place(trainer).leads:
            self.write_batch(prediction, batch, batch_idx)
