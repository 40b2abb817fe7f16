"""Resampling of concepts: the closed form of the rates, exact totals, and that what is decided depends on keys alone."""

import pickle
import random

import numpy as np
import pytest
from scipy.optimize import brentq

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip
from moviegen_data.curation.stages.aspect import AspectMix
from moviegen_data.curation.stages.concepts import ConceptResampling, keep_rates, merged

pytest.importorskip("faiss", reason="the extra `curation` is not installed")


def blobs(*sizes, width=32, spread=0.05, seed=0, annotations=None):
    """Clips of concepts of these sizes, each around a direction of its own."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(width, width)))[0][: len(sizes)]
    return [
        Clip(key=f"{concept}-{number:05d}", source="a.mp4", annotations=annotations(concept, number) if annotations else {}).embedded(
            concept=centres[concept] + spread * rng.normal(size=width)
        )
        for concept, size in enumerate(sizes)
        for number in range(size)
    ]


def volumes(found, count):
    return [sum(clip.drop is None and clip.key.startswith(f"{concept}-") for clip in found) for concept in range(count)]


def test_rates_are_those_of_a_root_finder():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(1, 500, size=20)
        free = np.array([rng.integers(0, size + 1) for size in sizes])
        total = int(rng.integers(1, max(2, free.sum())))
        rates = keep_rates(sizes, free, total)
        if total >= free.sum():
            assert (rates == 1).all()
            continue
        scale = brentq(lambda c: (free * np.minimum(1, c / np.sqrt(sizes))).sum() - total, 0, 1e3)  # noqa: B023
        np.testing.assert_allclose(rates[free > 0], np.minimum(1, scale / np.sqrt(sizes))[free > 0], rtol=1e-6)


def test_volumes_follow_the_root_of_the_size():
    found = ConceptResampling(share=0.3, num_clusters=12).apply(blobs(1600, 400, 100, 25))
    kept = volumes(found, 4)
    assert sum(kept) == round(0.3 * 2125)
    # 25 stays whole (its rate ends at 1); the others are as sqrt(1600) : sqrt(400) : sqrt(100)
    expected = keep_rates(np.array([1600, 400, 100, 25]), np.array([1600, 400, 100, 25]), 638) * [1600, 400, 100, 25]
    np.testing.assert_allclose(kept, expected, atol=1.01)
    assert kept[0] / kept[1] == pytest.approx(2.0, rel=0.02)
    sizes = {clip.key[0]: clip.scores["concept_size"] for clip in found}
    assert sizes == {"0": 1600, "1": 400, "2": 100, "3": 25}  # twelve clusters were merged into the four there are
    assert len({clip.annotations["concept"] for clip in found}) == 4
    drop = next(clip.drop for clip in found if clip.drop)
    assert (drop.reason, drop.measured) == ("frequent concept", "one of 1600")


def test_without_merging_the_large_concept_would_escape():
    kept = volumes(ConceptResampling(share=0.5, num_clusters=12, merge_cosine=1.0).apply(blobs(1000, 100)), 2)
    assert kept[0] > volumes(ConceptResampling(share=0.5, num_clusters=12).apply(blobs(1000, 100)), 2)[0]


def test_what_is_preserved_stays_and_counts_for_the_size():
    clips = blobs(400, 100, annotations=lambda concept, number: {"humans": number % 4 == 0})
    found = ConceptResampling(share=0.5, num_clusters=2, preserve={"humans": True}).apply(clips)
    assert all(clip.drop is None for clip in found if clip.annotations["humans"])
    assert sum(clip.drop is None for clip in found if not clip.annotations["humans"]) == round(0.5 * 375)
    assert {clip.scores["concept_size"] for clip in found} == {400, 100}


def test_what_nobody_annotated_cannot_be_preserved():
    with pytest.raises(UsageError, match="no clip has the annotation 'humans'; there are people"):
        ConceptResampling(preserve={"humans": True}).apply(blobs(4, annotations=lambda concept, number: {"people": True}))


def test_neither_order_nor_a_restart_changes_it():
    clips = blobs(200, 50, 10)
    stage = ConceptResampling(share=0.4)
    kept = {clip.key for clip in stage.apply(clips) if clip.drop is None}
    shuffled = random.Random(1).sample(clips, len(clips))
    again = pickle.loads(pickle.dumps(stage)).apply([Clip.from_json(clip.to_json()) for clip in shuffled])
    assert [clip.key for clip in again] == [clip.key for clip in shuffled]
    assert {clip.key for clip in again if clip.drop is None} == kept
    other = {clip.key for clip in ConceptResampling(share=0.4, seed=5).apply(clips) if clip.drop is None}
    assert other != kept and len(other) == len(kept)


def test_clusters_near_a_larger_one_become_part_of_it_without_chains():
    angles = np.deg2rad([0, 20, 40, 180])
    centres = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    numbers = np.array([0] * 9 + [1] * 5 + [2] * 3 + [3] * 2)
    found = merged(centres, numbers, np.cos(np.deg2rad(25)))
    assert np.bincount(found).tolist() == [14, 3, 2]  # 40 degrees is near the follower at 20 only
    assert len(set(found[:14])) == 1


def test_few_and_strange_clips():
    stage = ConceptResampling()
    assert stage.apply([]) == []
    assert stage.apply(blobs(1))[0].drop is None
    assert sum(clip.drop is None for clip in stage.apply(blobs(11, spread=0.0))) == 9
    with pytest.raises(UsageError, match="ConceptEmbedding"):
        stage.apply([Clip(key="a", source="a.mp4")])
    with pytest.raises(UsageError, match="8 and 9"):
        stage.apply([Clip(key=str(width), source="a.mp4").embedded(concept=np.ones(width)) for width in (8, 9)])
    for settings in ({"share": 0.0}, {"share": 1.1}, {"merge_cosine": 0.0}, {"num_clusters": 0}):
        with pytest.raises(UsageError):
            ConceptResampling(**settings)


def test_the_mix_of_shapes_outlives_resampling():
    """Both choose by hashes of keys; were they the same ones, the shape that had been thinned would be preferred."""
    sizes = ((1280, 720), (720, 1280))
    clips = [clip.described(width=sizes[n % 2][0], height=sizes[n % 2][1]) for n, clip in enumerate(blobs(2000, spread=0.01))]
    mixed = [clip for clip in AspectMix(mix={"landscape": 0.8, "portrait": 0.2}).apply(clips) if clip.drop is None]
    left = [clip for clip in ConceptResampling(share=0.4, num_clusters=1).apply(mixed) if clip.drop is None]
    assert len(left) == 500
    assert sum(clip.facts["height"] == 1280 for clip in left) / 500 == pytest.approx(0.2, abs=0.05)  # 2.8 standard deviations
