"""Which vectors lie near each other: exact for small sets, by inverted lists for large ones. Needs faiss."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from moviegen_core.errors import UsageError
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.optional import optional

_BLOCK = 256  # vectors looked up at a time; bounds the memory where thousands are alike
_SLACK = 1e-3  # the index finds candidates in single precision; what is this far below is looked at exactly
DECIMALS = 6  # sums differ in their last digits between machines, and a verdict must not


def unit_vectors(clips: list[Clip], name: str, *, stage: str, maker: str) -> Float[np.ndarray, "n d"]:
    """The clips' vectors of one name, of length 1; rows of zeros where a vector has no direction.

    Args:
        clips: the clips.
        name: the vectors' name.
        stage: what asks, for the error.
        maker: the stage that makes such vectors, for the error.

    Raises:
        UsageError: a clip has no such vector, or they differ in length.
    """
    absent = next((clip for clip in clips if name not in clip.vectors), None)
    if absent is not None:
        has = ", ".join(sorted(absent.vectors)) or "none"
        raise UsageError(f"{stage} compares {name!r}", f"the clip {absent.key} has the vectors: {has}", f"put {maker} before {stage}")
    widths = sorted({clip.vectors[name].size for clip in clips})
    if len(widths) > 1:
        raise UsageError(
            f"{stage} compares {name!r}",
            f"they have {widths[0]} and {widths[-1]} numbers",
            "embed all clips by the same stage and settings",
        )
    vectors = np.stack([clip.vectors[name].astype(np.float32).reshape(-1) for clip in clips])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > 0)
    return np.where(usable, vectors, 0.0) / np.where(usable, lengths, 1.0)


def leaders(vectors: Float[np.ndarray, "n d"], threshold: float, *, exact_up_to: int, seed: int = 0) -> Int[np.ndarray, "n"]:
    """For each vector the first one before it that leads and is near; one without leads, and is its own.

    So no two leaders are near each other, and every other one is near its leader. Vectors that come earlier are preferred. This
    is not a chain of neighbours: what is near a follower only is not drawn in.

    Args:
        vectors: of length 1, the preferred ones first.
        threshold: cosine from which two are near.
        exact_up_to: vectors up to which all are compared; of more, those whose direction falls into neighbouring cells.
        seed: of the cells.
    """
    count = len(vectors)
    found = np.arange(count)
    if count < 2:
        return found
    index = _index(vectors, exact_up_to, seed)
    is_open = np.ones(count, dtype=bool)  # neither leads nor follows yet
    for start in range(0, count, _BLOCK):
        # Whoever follows already is not looked up, so thousands that are alike cost one look.
        asking = start + np.flatnonzero(is_open[start : start + _BLOCK])
        for number, near in _near(index, vectors, asking, threshold):
            if is_open[number]:
                is_open[number] = False
                followers = near[(near > number) & is_open[near]]
                found[followers], is_open[followers] = number, False
    return found


def cosine(one: Float[np.ndarray, "d"], other: Float[np.ndarray, "d"]) -> float:
    """Cosine of two vectors of length 1, rounded so that machines agree."""
    return round(float(one.astype(np.float64) @ other.astype(np.float64)), DECIMALS)


def _index(vectors: Float[np.ndarray, "n d"], exact_up_to: int, seed: int) -> Any:
    faiss = optional("faiss", what="comparing vectors")
    count, width = vectors.shape
    if count <= exact_up_to:
        index = faiss.IndexFlatIP(width)
    else:
        num_cells = int(4 * count**0.5)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, num_cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.niter, index.cp.spherical = seed + 1, 10, True
        index.cp.min_points_per_centroid = 1  # small cells are no reason for a warning here
        index.cp.max_points_per_centroid = 64
        index.train(vectors)
        index.nprobe = max(16, num_cells // 32)
    index.add(vectors)
    return index


def _near(
    index: Any, vectors: Float[np.ndarray, "n d"], asking: Int[np.ndarray, "m"], threshold: float
) -> Iterator[tuple[int, Int[np.ndarray, "k"]]]:
    if not asking.size:
        return
    limits, _, numbers = index.range_search(vectors[asking], threshold - _SLACK)
    for place, number in enumerate(asking):
        near = numbers[int(limits[place]) : int(limits[place + 1])]
        exact = vectors[near].astype(np.float64) @ vectors[number].astype(np.float64)
        yield int(number), near[np.round(exact, DECIMALS) >= threshold]
