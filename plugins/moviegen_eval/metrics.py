"""The oracles as torchmetrics metrics: they accumulate over batches and ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from moviegen_core.errors import UsageError
from moviegen_data.toyworld import SceneSpec
from moviegen_eval.hearing import SoundOracle
from moviegen_eval.hearing_score import compare, events_of
from moviegen_eval.oracle import ATTRIBUTES, Oracle, match


class OracleAccuracy(Metric):
    """Fractions of objects whose colour, shape and motion the oracle reads as the scene says.

    Args:
        kwargs: settings of every torchmetrics metric.
    """

    higher_is_better = True
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.oracle = Oracle()
        self.add_state("hits", torch.zeros(len(ATTRIBUTES) + 1, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, video: Float[Tensor, "b 3 t h w"], metadata: Sequence[Mapping[str, Any]]) -> None:
        """Read a batch of clips in [-1, 1]; each sample's metadata holds its scene under "scene"."""
        for clip, item in zip(video, metadata, strict=True):
            if "scene" not in item:
                raise UsageError(
                    f"metadata of {', '.join(item) or 'nothing'} was given", "the oracle needs 'scene'", "predict with ToyWorldData"
                )
            for row in match(self.oracle.read(clip), SceneSpec.from_dict(item["scene"])):
                self.hits += torch.tensor([*row, all(row)], dtype=torch.long, device=self.hits.device)
                self.count += 1

    def compute(self) -> dict[str, Tensor]:
        """Fractions by attribute, and "all" of them at once."""
        return dict(zip((*ATTRIBUTES, "all"), self.hits / self.count.clamp(min=1), strict=True))


class SoundOracleAccuracy(Metric):
    """Onset F1 over all clips, and fractions of sounding objects whose timbre and pitch are heard and of clips whose ambience is.

    Args:
        tolerance_s: how far an onset may be from its event, in seconds.
        kwargs: settings of every torchmetrics metric.
    """

    higher_is_better = True
    full_state_update = False

    def __init__(self, *, tolerance_s: float = 0.04, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.oracle, self.tolerance_s = SoundOracle(), tolerance_s
        # Matched, reference and estimated onsets; right timbres, right pitches, sounding objects; right ambiences, clips.
        self.add_state("counts", torch.zeros(8, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, audio: Float[Tensor, "b a s"], audio_hz: int, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Listen to a batch; each sample's metadata holds its "scene" and "events"."""
        for sound, item in zip(audio, metadata, strict=True):
            found = compare(self.oracle.read(sound, audio_hz), *events_of(item), tolerance_s=self.tolerance_s)
            onsets = (found.onsets.num_matched, found.onsets.num_reference, found.onsets.num_estimate)
            row = (*onsets, sum(found.timbres), sum(found.pitches), len(found.timbres), int(found.ambience), 1)
            self.counts += torch.tensor(row, dtype=torch.long, device=self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        """Figures by name; 0 where nothing of the kind was to be heard."""
        matched, reference, estimate, timbres, pitches, objects, ambiences, clips = self.counts.unbind()
        pairs = {"timbre": (timbres, objects), "pitch": (pitches, objects), "ambience": (ambiences, clips)}
        shares = {name: right / total.clamp(min=1) for name, (right, total) in pairs.items()}
        return {"onset_f1": 2 * matched / (reference + estimate).clamp(min=1), **shares}
