"""Fewer clips of dominant concepts: clusters of embeddings, merged, and each sampled by its size (3.2.1, Table 39)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.randomness import keyed_share
from moviegen_data.curation.annotations import has, require_known
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.neighbours import leaders, unit_vectors
from moviegen_data.curation.optional import optional
from moviegen_data.curation.stage import SetStage


class ConceptResampling(SetStage):
    """Clusters clips by what they are about, and thins the large clusters.

    A clip of a cluster of n clips stays with a probability that falls as 1 / sqrt(n) (3.2.1, after Mahajan et al., 2018), so that a
    cluster's volume grows as sqrt(n): what is a hundred times as frequent stays ten times as frequent. Table 39 has
    "volume per cluster: 1 / sqrt(cluster size)", which read as a volume would make frequent concepts rarer than rare ones; it is taken
    as the rate that 3.2.1 names. The rate's scale follows from `share`; it ends at 1, so small clusters stay whole.

    Which clips of a cluster stay is decided by their keys and the seed. Each clip is annotated with the number of its `concept`, and
    scored with `concept_size`, the clips of it before sampling.

    Args:
        share: share of the clips that stays, in (0, 1], of those that are not preserved; 0.82 is 0.94 of 1.15 (Table 39).
        num_clusters: clusters before merging; unless given 4 x sqrt(clips).
        merge_cosine: cosine of centres from which a cluster is merged into a larger one, in (0, 1]; the paper gives none.
        preserve: annotations of clips that are never dropped, e.g. `{humans: true}` of `TextRetrieval`, as the frequency of videos
            with humans was preserved (3.2.1).
        vector: the vectors compared, `concept` of `ConceptEmbedding`.
        seed: of the clusters and of the choice.

    Raises:
        UsageError: a share is out of its range; on use: no clip has an annotation that is to be preserved.
    """

    def __init__(
        self,
        *,
        share: float = 0.82,
        num_clusters: int | None = None,
        merge_cosine: float = 0.9,
        preserve: Mapping[str, Any] | None = None,
        vector: str = "concept",
        seed: int = 0,
    ) -> None:
        for name, value in (("share", share), ("merge_cosine", merge_cosine)):
            if not 0 < value <= 1:
                raise UsageError(f"{name}={value} was given to ConceptResampling", "it is above 0 and at most 1", "give e.g. 0.82")
        require_at_least(1, num_clusters=1 if num_clusters is None else num_clusters)
        self.share, self.num_clusters, self.merge_cosine = share, num_clusters, merge_cosine
        self.preserve, self.vector, self.seed = dict(preserve or {}), vector, seed

    def apply(self, clips: Sequence[Clip]) -> Sequence[Clip]:
        """Drop clips of large clusters."""
        if not clips:
            return clips
        require_known(clips, self.preserve, given=f"preserve={self.preserve} of ConceptResampling")
        ranked = sorted(clips, key=lambda clip: clip.key)
        vectors = unit_vectors(ranked, self.vector, stage="ConceptResampling", maker="ConceptEmbedding")
        concepts = merged(*clusters(vectors, self._count(len(ranked)), self.seed), self.merge_cosine)
        sizes = np.bincount(concepts)
        is_free = np.array([not self._preserves(clip) for clip in ranked])
        quotas = self._quotas(sizes, np.bincount(concepts[is_free], minlength=len(sizes)))
        verdicts = {}
        places: dict[int, int] = {}
        order = sorted(range(len(ranked)), key=lambda number: (keyed_share(f"concept/{self.seed}/{ranked[number].key}"), number))
        for number in order:
            clip, concept = ranked[number], int(concepts[number])
            clip = clip.annotated(concept=concept).scored(concept_size=float(sizes[concept]))
            if is_free[number]:
                places[concept] = places.get(concept, 0) + 1
                if places[concept] > quotas[concept]:
                    wanted = f"{quotas[concept]} of this concept"
                    clip = clip.dropped("frequent concept", measured=f"one of {sizes[concept]}", wanted=wanted)
            verdicts[clip.key] = clip
        return [verdicts[clip.key] for clip in clips]

    def _count(self, num_clips: int) -> int:
        return min(num_clips, round(4 * num_clips**0.5) if self.num_clusters is None else self.num_clusters)

    def _preserves(self, clip: Clip) -> bool:
        return bool(self.preserve) and has(clip, self.preserve)

    def _quotas(self, sizes: Int[np.ndarray, "k"], free: Int[np.ndarray, "k"]) -> Int[np.ndarray, "k"]:
        """Clips that stay of each cluster's free ones; together the share of all free ones, to the clip."""
        total = round(self.share * int(free.sum()))
        wanted = free * keep_rates(sizes, free, total)
        quotas = np.floor(wanted + 1e-9).astype(np.int64)
        # Whole clips: what is missing goes to the largest remainders, of equal ones to the first cluster.
        remainders = np.where(quotas < free, wanted - quotas, -1.0)
        quotas[np.argsort(-remainders, kind="stable")[: max(0, total - int(quotas.sum()))]] += 1
        return quotas


def keep_rates(sizes: Int[np.ndarray, "k"], free: Int[np.ndarray, "k"], total: int) -> Float[np.ndarray, "k"]:
    """Rates min(1, c / sqrt(size)) with the one c for which `total` of the free clips stay.

    Args:
        sizes: clips of each cluster.
        free: those of them that may be dropped.
        total: free clips that stay.
    """
    if total >= free.sum():
        return np.ones(len(sizes))
    order = np.argsort(sizes, kind="stable")
    root, ours = np.sqrt(sizes[order]), free[order]
    # With the smaller clusters whole up to one, the others share what is left; the first that fits decides.
    whole = np.concatenate([[0], np.cumsum(ours)[:-1]])
    shared = np.cumsum((ours / root)[::-1])[::-1]
    scales = (total - whole) / np.maximum(shared, 1e-12)
    fits = np.flatnonzero(scales <= root)
    return np.minimum(1.0, scales[fits[0]] / np.sqrt(sizes))


def clusters(vectors: Float[np.ndarray, "n d"], count: int, seed: int) -> tuple[Float[np.ndarray, "k d"], Int[np.ndarray, "n"]]:
    """Centres on the sphere by k-means, and each vector's centre."""
    faiss = optional("faiss", what="clustering concepts")
    kmeans = faiss.Kmeans(
        vectors.shape[1], count, niter=20, seed=seed + 1, spherical=True, min_points_per_centroid=1, max_points_per_centroid=256
    )
    kmeans.train(vectors)
    _, numbers = kmeans.index.search(vectors, 1)
    return kmeans.centroids, numbers[:, 0]


def merged(centres: Float[np.ndarray, "k d"], numbers: Int[np.ndarray, "n"], threshold: float) -> Int[np.ndarray, "n"]:
    """Each vector's cluster after those near a larger one became part of it, counted from 0, the largest first."""
    sizes = np.bincount(numbers, minlength=len(centres))
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    found = leaders(np.ascontiguousarray(centres[order]), threshold, exact_up_to=len(order))
    place = np.zeros(len(centres), dtype=np.int64)
    place[order] = found
    _, dense = np.unique(place[numbers], return_inverse=True)
    after = np.bincount(dense)
    rank = np.empty(len(after), dtype=np.int64)
    rank[np.argsort(-after, kind="stable")] = np.arange(len(after))
    return rank[dense]
