"""Several candidates for every sound, of which the best by a scorer is kept (6.1.6)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_audio.scorer import Scorer
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError


@dataclass(frozen=True)
class Candidate:
    """Sounds, and the latents that they were decoded from.

    Args:
        latents: normalised latents (b, c, t).
        audio: waveforms in [-1, 1] (b, a, s).
        scores: of all candidates, where there were several (b, k).
    """

    latents: Float[Tensor, "b c t"]
    audio: Float[Tensor, "b a s"]
    scores: Float[Tensor, "b k"] | None = None


def candidate_keys(keys: Sequence[str], number: int) -> list[str]:
    """What the noise of a candidate is drawn from, beside the seed: the sample's key for the first, key and number for the others."""
    return list(keys) if number == 0 else [f"{key}/candidate/{number}" for key in keys]


def best_of(candidates: Iterable[Candidate], score: Callable[[Tensor], Float[Tensor, " b"]]) -> Candidate:
    """The best candidate of every sample, the first of equals; one is held beside the one that is made.

    Args:
        candidates: made one after the other.
        score: gives each of a candidate's sounds a number.
    """
    best: Candidate | None = None
    scores: list[Tensor] = []
    for candidate in candidates:
        found = score(candidate.audio)
        if best is None:
            best = candidate
        else:
            better = (found > torch.stack(scores).amax(0)).view(-1, 1, 1)
            best = Candidate(torch.where(better, candidate.latents, best.latents), torch.where(better, candidate.audio, best.audio))
        scores.append(found)
    assert best is not None, "there is at least one candidate"
    return Candidate(best.latents, best.audio, torch.stack(scores, dim=1))


def checked_score(scorer: Scorer, audio: Float[Tensor, "b a s"], audio_hz: int, batch: MediaBatch) -> Float[Tensor, " b"]:
    """The scores of sounds.

    Raises:
        UsageError: the scorer gave anything but one finite number for each.
    """
    scores = scorer.score(audio, audio_hz, batch).float()
    if scores.shape != (len(batch),) or not scores.isfinite().all():
        raise UsageError(
            f"{type(scorer).__name__} gave scores of shape {tuple(scores.shape)}, {int((~scores.isfinite()).sum())} of them not finite",
            f"{len(batch)} sounds were to be compared",
            "let its score(audio, audio_hz, batch) give one finite number for each",
        )
    return scores.to(audio.device)
