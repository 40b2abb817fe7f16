"""Segment-level beam search (6.1.5): several candidates for every segment, and the best beginnings go on."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_audio.autoregressive import Generated, SegmentAutoregressive, step_counter
from moviegen_core.errors import UsageError
from moviegen_core.flow.windows import Window
from moviegen_core.randomness import seed_from


class SegmentScorer:
    """Ranks beginnings of a sample; give it to `SegmentBeamSearch`.

    Define `__call__` for a scorer of your own. One that listens decodes first: see `DecodedScorer`.
    """

    def __call__(self, latents: Float[Tensor, "b c ..."], window: Window) -> Float[Tensor, " b"]:
        """A score for every sample, higher is better.

        Args:
            latents: all that has been generated so far.
            window: the segment that was generated last.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__(latents, window)")


class Continuity(SegmentScorer):
    """Prefers beginnings without a jump: minus the largest mean squared difference of neighbouring frames, over the median one.

    It needs no model and hears only seams. The paper's scoring model is not told; a score of quality or of alignment to the film ranks
    what a listener would.
    """

    def __call__(self, latents, window):
        """See `SegmentScorer`."""
        jumps = latents.diff(dim=2).square().transpose(1, 2).flatten(2).mean(2)
        return -jumps.amax(1) / jumps.median(1).values.clamp_min(1e-12) if jumps.shape[1] else jumps.sum(1)


class DecodedScorer(SegmentScorer):
    """Scores the decoded sound.

    Args:
        decode: latents (b, c, t) to sound (b, a, s), for example a model's own `decode` with the number of samples filled in.
        score: sound to scores (b,), higher is better.
    """

    def __init__(self, *, decode: Callable[[Tensor], Tensor], score: Callable[[Tensor], Tensor]) -> None:
        self.decode = decode
        self.score = score

    def __call__(self, latents, window):
        """See `SegmentScorer`."""
        return self.score(self.decode(latents))


class SegmentBeamSearch(SegmentAutoregressive):
    """Segment-level autoregressive generation that tries several continuations and keeps the best beginnings.

    Every kept beginning is continued from `num_candidates` noises; the scorer ranks the results, sample by sample, and `beam_width` of
    them go on. The first candidate's noise is the one that is given, those of the others follow from it, so that a seed tells all. Time is
    that of `num_candidates` × `beam_width` samples; memory is that of one, and of the latents kept.

    Args:
        num_candidates: continuations of every beginning, at least 1.
        beam_width: beginnings that are kept, at least 1.
        scorer: ranks beginnings; `Continuity` unless given.
        **options: those of `SegmentAutoregressive`.

    Raises:
        UsageError: the lengths do not fit, or there is nothing to choose from.
    """

    def __init__(self, *, num_candidates: int = 4, beam_width: int = 2, scorer: SegmentScorer | None = None, **options: Any) -> None:
        super().__init__(**options)
        if min(num_candidates, beam_width) < 1:
            raise UsageError(
                f"num_candidates={num_candidates} and beam_width={beam_width} were given",
                "both are at least 1",
                "give for example num_candidates=4 and beam_width=2",
            )
        self.num_candidates = num_candidates
        self.beam_width = beam_width
        self.scorer = scorer or Continuity()

    def sample(self, velocity, noise, conditionings, *, progress=None):
        """Sample segment after segment, several at a time; see `Sampler.sample`."""
        windows = self.segments(noise.shape[2])
        report = step_counter(progress, self.steps * self._num_runs(len(windows)))
        beams = [Generated.nothing(noise)]
        for index, window in enumerate(windows):
            told = self.told(conditionings, index, windows, noise)
            fresh = noise[:, :, beams[0].length : window.stop]
            candidates = [
                self.extend(velocity, before, _redrawn(fresh, index, candidate), told, windows[index : index + 2], report)
                for before in beams
                for candidate in range(self.num_candidates)
            ]
            beams = self._best(candidates, window)
        return beams[0].latents

    def _num_runs(self, num_segments: int) -> int:
        """Segments that are sampled in all."""
        runs, beams = 0, 1
        for _ in range(num_segments):
            runs += beams * self.num_candidates
            beams = min(self.beam_width, beams * self.num_candidates)
        return runs

    def _best(self, candidates: Sequence[Generated], window: Window) -> list[Generated]:
        """The best of the candidates, chosen for each sample of the batch by itself."""
        scores = torch.stack([self.scorer(candidate.latents, window) for candidate in candidates])
        if scores.isnan().any():
            raise UsageError(
                f"the scorer {type(self.scorer).__name__} gave NaN for frames up to {window.stop}",
                "only numbers can be ranked",
                "mend the scorer, or see whether the model's sample is finite",
            )
        order = scores.argsort(dim=0, descending=True, stable=True)[: self.beam_width]
        return [_chosen(candidates, index) for index in order]


def _chosen(candidates: Sequence[Generated], index: Tensor) -> Generated:
    """For sample i of the batch what candidate index[i] generated."""

    def pick(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([tensors[candidate][sample] for sample, candidate in enumerate(index.tolist())])

    return Generated(
        latents=pick([candidate.latents for candidate in candidates]),
        noise=pick([candidate.noise for candidate in candidates]),
        trajectory=tuple(pick(states) for states in zip(*(candidate.trajectory for candidate in candidates), strict=True)),
    )


def _redrawn(noise: Tensor, segment: int, candidate: int) -> Tensor:
    """The noise of a candidate, drawn on the CPU from a seed that each sample's own noise gives: the same in any batch, on any device."""
    if candidate == 0:
        return noise
    drawn = []
    for sample in noise.cpu():
        name = hashlib.sha256(sample.contiguous().numpy().tobytes()).hexdigest()
        generator = torch.Generator().manual_seed(seed_from(name, segment, candidate))
        drawn.append(torch.randn(sample.shape, generator=generator))
    return torch.stack(drawn).to(noise)
