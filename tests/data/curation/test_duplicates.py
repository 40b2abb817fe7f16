"""Duplicates: of those that look alike the best stays, whatever the order; hashes and embeddings that see through re-encoding."""

import io
import pickle
import random
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.neighbours import leaders
from moviegen_data.curation.stages.copy_embedding import CopyEmbedding
from moviegen_data.curation.stages.duplicates import Duplicates
from moviegen_data.curation.stages.perceptual_hash import PerceptualHash, hash_picture
from moviegen_data.stills import read_stills

pytest.importorskip("faiss", reason="the extra `curation` is not installed")


def clip_of(key, vector=None, *, source=None, width=1280, height=720, start_s=0.0, end_s=8.0, **scores):
    clip = Clip(key=key, source=source or f"{key}.mp4", start_s=start_s, end_s=end_s, facts={"width": width, "height": height}).scored(
        **scores
    )
    return clip if vector is None else clip.embedded(copy_embedding=np.asarray(vector))


def kept(found):
    return {clip.key for clip in found if clip.drop is None}


def crowd(count=400, width=24, copies=3, seed=0):
    """Random directions, each with copies a little off."""
    rng = np.random.default_rng(seed)
    return [
        clip_of(f"{number:04d}-{copy}", base + 0.01 * rng.normal(size=width), height=720 + copy)
        for number, base in enumerate(rng.normal(size=(count, width)))
        for copy in range(copies)
    ]


@pytest.mark.parametrize("exact_up_to", [50_000, 100])
def test_the_best_of_each_family_stays(exact_up_to):
    clips = crowd()
    found = Duplicates(exact_up_to=exact_up_to).apply(clips)
    assert kept(found) == {f"{number:04d}-2" for number in range(400)}
    drop = next(clip.drop for clip in found if clip.drop)
    assert drop.reason == "duplicate" and drop.measured.endswith("to 0000-2") and drop.wanted == "below 0.99"


def test_it_is_what_comparing_each_with_each_gives():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    expected = []
    for number in range(300):
        expected.append(next((other for other in range(number) if expected[other] == other and cosines[number, other] >= 0.9), number))
    np.testing.assert_array_equal(leaders(vectors, 0.9, exact_up_to=1000), expected)


def test_order_does_not_matter():
    clips = crowd(60)
    found = kept(Duplicates(threshold=0.9).apply(clips))
    for seed in range(3):
        shuffled = random.Random(seed).sample(clips, len(clips))
        again = pickle.loads(pickle.dumps(Duplicates(threshold=0.9))).apply(shuffled)
        assert [clip.key for clip in again] == [clip.key for clip in shuffled] and kept(again) == found


def test_a_chain_loses_only_its_links():
    turn = [np.array([np.cos(angle), np.sin(angle)]) for angle in np.deg2rad([0, 6, 12])]
    clips = [clip_of("a", turn[0]), clip_of("b", turn[1]), clip_of("c", turn[2])]
    assert kept(Duplicates().apply(clips)) == {"a", "c"}  # 6 degrees are 0.9945, 12 degrees 0.978


def test_what_is_better():
    same = [1.0, 2.0, 3.0]
    clips = [
        clip_of("a", same, end_s=8.0, aesthetic=5.0),
        clip_of("b", same, end_s=9.0, aesthetic=4.0),
        clip_of("c", same, width=1920, height=1080, end_s=4.0, aesthetic=3.0),
        clip_of("d", same, end_s=9.0),
    ]
    assert kept(Duplicates().apply(clips)) == {"c"}
    assert kept(Duplicates().apply(clips[:2])) == {"b"}
    assert kept(Duplicates().apply([clips[3], clips[1]])) == {"b"}
    assert kept(Duplicates(prefer=["aesthetic"]).apply(clips)) == {"a"}
    assert kept(Duplicates(prefer=[]).apply(clips[::-1])) == {"a"}
    with pytest.raises(UsageError, match="aesthetic"):
        Duplicates(prefer=["beauty"]).apply(clips)


def test_clips_of_one_medium_that_share_their_time():
    rng = np.random.default_rng(0)
    one, other, third, fourth = rng.normal(size=(4, 64))
    clips = [
        clip_of("a-0", one, source="a.mp4", start_s=0.0, end_s=10.0),
        clip_of("a-1", other, source="a.mp4", start_s=6.0, end_s=14.0),  # half of its time
        clip_of("a-2", third, source="a.mp4", start_s=14.0, end_s=18.0),
        clip_of("b-0", fourth, source="b.mp4", start_s=6.0, end_s=14.0),
    ]
    found = Duplicates().apply(clips)
    assert kept(found) == {"a-0", "a-2", "b-0"}
    assert found[1].drop.reason == "overlap" and found[1].drop.measured == "0.50 of its time with a-0"
    assert kept(Duplicates(overlap=None).apply(clips)) == {clip.key for clip in clips}
    assert kept(Duplicates(overlap=0.6).apply(clips)) == {clip.key for clip in clips}


def test_thousands_alike_and_vectors_without_direction():
    clips = [clip_of(f"{number:04d}", np.ones(16)) for number in range(3000)]
    odd = replace(clip_of("odd"), vectors={"copy_embedding": np.array([np.inf] + [0] * 15, np.float16)})  # as a foreign record may hold it
    clips += [clip_of("zero", np.zeros(16)), odd]
    found = Duplicates().apply(clips)
    assert kept(found) == {"0000"}
    assert {clip.key: clip.drop.reason for clip in found[-2:]} == {"zero": "no usable vector", "odd": "no usable vector"}
    assert Duplicates().apply([]) == []
    with pytest.raises(UsageError, match="CopyEmbedding before Duplicates"):
        Duplicates().apply([clip_of("a")])
    for settings in ({"threshold": 0.0}, {"threshold": 1.5}, {"overlap": 0.0}):
        with pytest.raises(UsageError):
            Duplicates(**settings)


def changed(picture, kind):
    image = Image.fromarray(picture)
    width, height = image.size
    if kind == "recompressed":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=15)
        image = Image.open(file).convert("RGB")
    elif kind == "smaller":
        image = image.resize((width // 2, height // 2))
    elif kind == "darker":
        image = ImageEnhance.Brightness(image).enhance(0.6)
    elif kind == "cropped":
        image = image.crop((round(width * 0.02), round(height * 0.02), round(width * 0.98), round(height * 0.98)))
    return np.asarray(image)


def test_hashes_agree_with_imagehash(make_film, tmp_path):
    imagehash = pytest.importorskip("imagehash", reason="the reference")
    picture = read_stills(make_film(tmp_path / "a.mp4", height=96, width=128), [0.5])[0]
    theirs = imagehash.phash(Image.fromarray(picture), hash_size=8, highfreq_factor=4).hash.reshape(-1)[1:]
    assert (theirs == (hash_picture(picture) > 0)).mean() >= 62 / 63  # theirs counts the mean when it takes the median


@pytest.mark.parametrize("kind", ["recompressed", "smaller", "darker", "cropped"])
def test_hashes_see_through_changes_and_tell_films_apart(make_film, tmp_path, kind):
    films = [read_stills(make_film(tmp_path / f"{seed}.mp4", seed=seed, height=96, width=128), [0.2, 0.6, 1.0, 1.4]) for seed in range(6)]
    plain, other = (
        [np.concatenate([hash_picture(each(picture)) for picture in pictures]) for pictures in films]
        for each in (lambda picture: picture, lambda picture: changed(picture, kind))
    )
    cosines = np.array(plain) @ np.array(other).T / plain[0].size
    assert cosines.diagonal().min() >= 0.75
    assert cosines[~np.eye(6, dtype=bool)].max() < 0.75


def test_hashes_of_clips(make_film, tmp_path):
    path = make_film(tmp_path / "a.mp4", num_frames=16)
    whole = PerceptualHash().apply(Clip(key="a", source="a.mp4"), Media(path))
    part = pickle.loads(pickle.dumps(PerceptualHash())).apply(Clip(key="b", source="a.mp4", start_s=0.0, end_s=2.0), Media(path))
    assert set(np.unique(whole.vectors["perceptual_hash"])) == {-1.0, 1.0} and whole.vectors["perceptual_hash"].size == 4 * 63
    np.testing.assert_array_equal(whole.vectors["perceptual_hash"], part.vectors["perceptual_hash"])
    Image.fromarray(read_stills(path, [0.0])[0]).save(tmp_path / "a.png")
    still = PerceptualHash().apply(Clip(key="c", source="a.png"), Media(tmp_path / "a.png"))
    assert still.vectors["perceptual_hash"].size == 4 * 63
    found = Duplicates(vector="perceptual_hash", overlap=None).apply([whole, part])
    assert found[0].drop is None and found[1].drop.measured == "1.0000 to a"


def test_black_is_black(tmp_path):
    for name, level in (("a", 0), ("b", 3)):
        noise = np.random.default_rng(0).integers(0, 2, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise + np.uint8(level)).save(tmp_path / f"{name}.png")
    found = [PerceptualHash().apply(Clip(key=name, source=f"{name}.png"), Media(tmp_path / f"{name}.png")) for name in "ab"]
    assert kept(Duplicates(vector="perceptual_hash").apply(found)) == {"a"}


def test_an_absent_library_is_told_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r"moviegen\[curation\]"):
        Duplicates().apply(crowd(2))


class Network(torch.nn.Module):
    """Means of a coarse grid: what a copy-detection network's answer looks like."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Linear(48, 16)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.nn.functional.adaptive_avg_pool2d(pictures, 4).flatten(1))


@pytest.fixture(scope="module")
def torchscript(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "copies.torchscript.pt"
    network = Network().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather export
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 64, 64)), str(path))
    return path, network


def test_embeddings_are_the_networks_own(torchscript, make_film, tmp_path):
    path, network = torchscript
    media = [Media(make_film(tmp_path / f"{seed}.mp4", seed=seed)) for seed in range(3)]
    clips = [Clip(key=str(number), source=medium.path.name) for number, medium in enumerate(media)]
    stage = pickle.loads(pickle.dumps(CopyEmbedding(path=str(path), num_frames=2, size_px=64, device="cpu")))
    found = stage.apply_batch(clips, media)
    assert pickle.loads(pickle.dumps(stage)).apply(clips[0], media[0]).to_json() == found[0].to_json()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pictures = [Image.fromarray(each).resize((64, 64), Image.Resampling.BILINEAR) for each in read_stills(media[0].path, [0.375, 1.125])]
    inputs = torch.stack([(torch.from_numpy(np.array(each)).permute(2, 0, 1) / 255 - mean) / std for each in pictures])
    with torch.no_grad():
        units = torch.nn.functional.normalize(network(inputs), dim=1)
    expected = torch.nn.functional.normalize(units.mean(0), dim=0)
    np.testing.assert_allclose(found[0].vectors["copy_embedding"], expected, atol=2e-3)


def test_a_folder_of_an_image_model(make_film, tmp_path):
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path / "model")
    media = Media(make_film(tmp_path / "a.mp4"))
    found = CopyEmbedding(path=str(tmp_path / "model"), size_px=32, device="cpu").apply(Clip(key="a", source="a.mp4"), media)
    vector = found.vectors["copy_embedding"].astype(np.float32)
    assert vector.shape == (12,) and np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-2)


def test_models_that_are_none(make_film, tmp_path, torchscript):
    clip, media = Clip(key="a", source="a.mp4"), Media(make_film(tmp_path / "a.mp4"))
    with pytest.raises(UsageError, match="there is nothing"):
        CopyEmbedding(path=str(tmp_path / "absent.pt")).apply(clip, media)
    for name, content in (("empty.pt", b""), ("text.pt", b"no network"), ("cut.pt", torchscript[0].read_bytes()[:2000])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match="no TorchScript"):
            CopyEmbedding(path=str(tmp_path / name), device="cpu").apply(clip, media)
    with pytest.raises(UsageError):
        CopyEmbedding(path="a.pt", batch=0)


@pytest.mark.media
def test_real_films_are_told_from_each_other_and_from_their_copies(media):
    """Of each film two halves, and of each half a smaller, darker, cropped and recompressed copy: all found, nothing else."""
    films = [
        "dog_leash_720p_silent_track.mp4",
        "man_talking_540x960.mp4",
        "chaplin_640x360.mp4",
        "pancake_426x240.mkv",
        "swans_480x480.mp4",
    ]
    hashes = {}
    for name in films:
        pictures = read_stills(media / "video" / name, [0.3, 0.8, 1.3, 1.8], max_side=256)
        for kind in ("plain", "recompressed", "smaller", "darker", "cropped"):
            hashes[name, kind] = np.concatenate([hash_picture(changed(picture, kind)) for picture in pictures])
    for (name, kind), vector in hashes.items():
        for other in films:
            cosine = vector @ hashes[other, "plain"] / vector.size
            assert (cosine >= 0.75) == (other == name), (name, kind, other, cosine)
