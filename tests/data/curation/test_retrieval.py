"""Retrieval by texts with tiny random models, against what transformers says of the same words and pictures."""

import math
import pickle
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from moviegen_core.errors import UsageError
from moviegen_data import ShardReader
from moviegen_data.curation import Clip, curate
from moviegen_data.curation.stages.concept_embedding import ConceptEmbedding
from moviegen_data.curation.stages.concepts import ConceptResampling
from moviegen_data.curation.stages.retrieval import TextRetrieval
from moviegen_data.curation.texts import read_texts

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SEEN = {**SIZES, "image_size": 32, "patch_size": 16}
QUERIES, OTHERS = ["a dog runs", "the dog sits and runs over the floor"], ["a red ball", "the blue sky", "a square"]


@pytest.fixture(scope="module")
def tokenizer(tokenizer):
    """One that ends texts, as CLIP's does, which looks for a text's meaning there."""
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)])
    return PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<start>")


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request, tmp_path_factory, tokenizer):
    made = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    words = {**SIZES, **ids, "vocab_size": 50, "max_position_embeddings": 12}
    if request.param == "clip":
        texts, pictures = CLIPTextConfig(**words), CLIPVisionConfig(**SEEN)
        model = CLIPModel(CLIPConfig(text_config=texts.to_dict(), vision_config=pictures.to_dict(), projection_dim=16))
    else:
        texts, pictures = SiglipTextConfig(**words), SiglipVisionConfig(**SEEN)
        model = SiglipModel(SiglipConfig(text_config=texts.to_dict(), vision_config=pictures.to_dict()))
    for weights in model.parameters():  # random enough for texts to differ
        torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(made)
    return made


def stage_of(folder, **settings):
    return TextRetrieval(**{"path": str(folder), "device": "cpu", "queries": QUERIES, "others": OTHERS, **settings})


def clips_of(vectors):
    return [Clip(key=f"k{number}", source="a.mp4").embedded(concept=vector) for number, vector in enumerate(vectors)]


@torch.no_grad()
def cosines(folder, vectors, tokenizer):
    """Of vectors and texts, each text alone; by the model as transformers runs it, on pictures that do not matter."""
    kind = SiglipModel if "siglip" in folder.name else CLIPModel
    model = kind.from_pretrained(folder).eval()
    filled = {"padding": "max_length", "max_length": 12} if kind is SiglipModel else {}
    rows = []
    for text in [*QUERIES, *OTHERS]:
        inputs = dict(tokenizer(text, return_tensors="pt", **filled))
        tokens = {"input_ids": inputs["input_ids"]}
        rows.append(model(**tokens, pixel_values=torch.zeros(1, 3, 32, 32)).text_embeds[0])
    return torch.nn.functional.normalize(torch.as_tensor(vectors, dtype=torch.float32), dim=1) @ torch.stack(rows).T


def test_scores_are_the_models_own(folder, tokenizer):
    vectors = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float16)
    stage = pickle.loads(pickle.dumps(stage_of(folder, batch=2)))
    given = clips_of(vectors)
    found = stage.apply(given)
    expected = cosines(folder, vectors, tokenizer)
    near, rival = expected[:, :2].max(1), expected[:, 2:].max(1).values
    assert [clip.key for clip in found] == [clip.key for clip in given]
    np.testing.assert_allclose([clip.scores["humans_cosine"] for clip in found], near.values, atol=1e-4)
    np.testing.assert_allclose([clip.scores["humans_margin"] for clip in found], near.values - rival, atol=1e-4)
    humans = [clip.annotations["humans"] for clip in found]
    assert humans == (near.values >= rival).tolist() and 0 < sum(humans) < 40
    assert [clip.annotations.get("humans_text") for clip in found] == [
        QUERIES[text] if human else None for text, human in zip(near.indices, humans, strict=True)
    ]
    assert all(clip.drop is None for clip in found)
    assert [clip.to_json() for clip in stage.apply(given[:3])] == [clip.to_json() for clip in found[:3]]  # whoever stands beside them


def test_limits(folder, tokenizer):
    vectors = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float16)
    expected = cosines(folder, vectors, tokenizer)
    near, margin = expected[:, :2].max(1).values, expected[:, :2].max(1).values - expected[:, 2:].max(1).values
    low, wide = float(near.mean()), float(margin.mean())
    for settings, wanted in (
        ({"min_cosine": low, "others": None}, near >= low),
        ({"min_cosine": low, "min_margin": wide}, (near >= low) & (margin >= wide)),
    ):
        found = stage_of(folder, annotation="dogs", **settings).apply(clips_of(vectors))
        assert [clip.annotations["dogs"] for clip in found] == wanted.tolist()
        assert ("dogs_margin" in found[0].scores) == (settings.get("others", OTHERS) is not None)
    for settings in (
        {"others": None},
        {"min_cosine": 1.5},
        {"min_margin": math.nan},
        {"min_margin": 3},
        {"batch": 0},
        {"queries": []},
        {"queries": ["a dog"], "others": "others"},
        {"annotation": ""},
        {"annotation": "caption"},
        {"annotation": "width"},
    ):
        with pytest.raises(UsageError):
            stage_of(folder, **settings)


def test_what_is_found_is_preserved(folder, tokenizer):
    pytest.importorskip("faiss", reason="the extra `curation` is not installed")
    vectors = np.random.default_rng(2).normal(size=(60, 16)).astype(np.float16)
    found = ConceptResampling(share=0.2, num_clusters=4, preserve={"humans": True}).apply(stage_of(folder).apply(clips_of(vectors)))
    humans = [clip for clip in found if clip.annotations["humans"]]
    others = [clip for clip in found if not clip.annotations["humans"]]
    assert all(clip.drop is None for clip in humans)
    assert sum(clip.drop is None for clip in others) == round(0.2 * len(others))


def test_what_does_not_fit_is_an_error(folder, tmp_path):
    with pytest.raises(UsageError, match="k0 has the vectors: none"):
        stage_of(folder).apply([Clip(key="k0", source="a.mp4")])
    with pytest.raises(UsageError, match="have 3 numbers, the texts' 16"):
        stage_of(folder).apply(clips_of(np.ones((2, 3), np.float16)))
    long = "a dog " * 9
    with pytest.raises(UsageError, match="a dog a dog.* it has 19 tokens, and the model takes 12"):
        stage_of(folder, others=[long]).apply(clips_of(np.ones((2, 16), np.float16)))
    with pytest.raises(UsageError, match="no such folder"):
        stage_of(tmp_path / "absent").apply(clips_of(np.ones((2, 16), np.float16)))
    assert stage_of(folder).apply([]) == []
    embedding, other = ConceptEmbedding(path=str(folder)), ConceptEmbedding(path=str(tmp_path))
    own = stage_of(f"{folder}/../{folder.name}")
    own.check_among([embedding, own, other])
    with pytest.raises(UsageError, match="made by the model in"):
        own.check_among([other, own])


def test_two_of_one_annotation_are_refused(folder):
    first, second = stage_of(folder), stage_of(folder, queries=["a cat"])
    with pytest.raises(UsageError, match="annotates the same"):
        second.check_among([first, second])
    other = stage_of(folder, queries=["a cat"], annotation="cats")
    other.check_among([first, other])


def test_a_tokenizer_that_does_not_fit_is_an_error(folder, tokenizer, tmp_path):
    """Each of these would find what it looks for everywhere, or end the run with a stack trace."""
    clips = clips_of(np.ones((2, 16), np.float16))
    names = {"eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<start>"}
    unpadded = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    unpadded.no_padding()
    given = shutil.copytree(folder, tmp_path / "no padding")
    PreTrainedTokenizerFast(tokenizer_object=unpadded, **names).save_pretrained(given)
    with pytest.raises(UsageError, match="no token to fill texts up with"):
        stage_of(given).apply(clips)
    given = shutil.copytree(folder, tmp_path / "none", ignore=shutil.ignore_patterns("*token*"))
    with pytest.raises(UsageError, match="knows no words" if "clip" in folder.name else "was given for TextRetrieval"):
        stage_of(given).apply(clips)
    if "clip" in folder.name:
        given = shutil.copytree(folder, tmp_path / "no end")
        endless = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        endless.post_processor = TemplateProcessing(single="$A", special_tokens=[])
        PreTrainedTokenizerFast(tokenizer_object=endless, pad_token="<pad>", **names).save_pretrained(given)
        with pytest.raises(UsageError, match="does not end texts"):
            stage_of(given).apply(clips)
    with pytest.raises(UsageError, match="makes all texts alike"):
        stage_of(folder, queries=["zebra"], others=["lion", "tiger"]).apply(clips)


def test_weights_that_are_no_numbers_are_an_error(folder, tmp_path):
    given = shutil.copytree(folder, tmp_path / "damaged")
    weights = load_file(given / "model.safetensors")
    weights["text_model.final_layer_norm.weight"][0] = math.nan
    save_file(weights, given / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="in float32 is no number"):
        stage_of(given).apply(clips_of(np.ones((2, 16), np.float16)))


def test_from_films_to_shards(folder, make_film, tmp_path):
    """Humans are what the films show less of: half as many others stay beside them, and the shards tell."""
    media = tmp_path / "media"
    media.mkdir()
    for number in range(9):
        make_film(media / f"{number}.mp4", seed=number)
    model = {"path": str(folder), "device": "cpu"}
    stages = {
        "probe": {"class_path": "Probe"},
        "embedding": {"class_path": "ConceptEmbedding", "init_args": {**model, "num_frames": 2}},
        "humans": {"class_path": "TextRetrieval", "init_args": {**model, "queries": QUERIES, "others": OTHERS}},
    }
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    curate(str(media), str(tmp_path / "all"), config=str(tmp_path / "all.yaml"))
    told = metadata_of(tmp_path / "all")
    margins = sorted(record["scores"]["humans_margin"] for record in told)
    assert len(told) == 9 and margins[2] < margins[6]
    stages["humans"]["init_args"]["min_margin"] = margins[6]  # three are humans
    stages["share"] = {"class_path": "LeastShare", "init_args": {"having": {"humans": True}, "share": 0.6}}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    curate(str(media), str(tmp_path / "some"), config=str(tmp_path / "some.yaml"))
    assert sorted(record["humans"] for record in metadata_of(tmp_path / "some")) == [False, False, True, True, True]


def metadata_of(shards):
    reader = ShardReader(str(shards))
    return [reader[number].metadata for number in range(len(reader))]


def test_another_list_is_another_run(folder, tmp_path):
    file = tmp_path / "queries.txt"
    file.write_text("a dog\n")
    first = stage_of(folder, queries=str(file))
    file.write_text("a dog\na cat # too\n")
    second = stage_of(folder, queries=str(file))
    assert second.queries == ["a dog", "a cat"] and first.fingerprint() != second.fingerprint()
    moved = stage_of(folder, queries=["a dog", "a red ball"], others=OTHERS[1:])  # the same texts in all
    assert moved.fingerprint() != stage_of(folder, queries=["a dog"], others=OTHERS).fingerprint()


def test_the_lists_that_come_along():
    """As many texts of people as in 3.2.1, and none of them among the others."""
    humans, others = (read_texts(name, name="queries", stage="TextRetrieval") for name in ("humans", "others"))
    assert len(humans) == 600 and len(others) > 200
    assert not set(humans) & set(others)
    assert not [text for text in others if {"person", "people", "man", "woman", "child", "without", "no"} & set(text.split())]
