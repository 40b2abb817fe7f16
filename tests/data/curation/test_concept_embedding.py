"""Embeddings of concepts by tiny random models, saved and loaded the way real ones are."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    XCLIPConfig,
    XCLIPModel,
    XCLIPTextConfig,
    XCLIPVisionConfig,
)

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.stages.concept_embedding import ConceptEmbedding
from moviegen_data.stills import read_stills

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SEEN = {**SIZES, "image_size": 32, "patch_size": 16}
PROCESSOR = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    texts, pictures = CLIPTextConfig(**SIZES, vocab_size=50, bos_token_id=1, eos_token_id=2, pad_token_id=0), CLIPVisionConfig(**SEEN)
    CLIPModel(CLIPConfig(text_config=texts.to_dict(), vision_config=pictures.to_dict(), projection_dim=8)).save_pretrained(folder)
    CLIPImageProcessorPil(**PROCESSOR).save_pretrained(folder)
    return folder


def stage_of(folder, **settings):
    return ConceptEmbedding(path=str(folder), device="cpu", **settings)


def test_frames_are_averaged(clip_model, make_film, tmp_path):
    media = [Media(make_film(tmp_path / f"{seed}.mp4", seed=seed)) for seed in range(3)]
    clips = [Clip(key=medium.path.stem, source=medium.path.name) for medium in media]
    stage = pickle.loads(pickle.dumps(stage_of(clip_model, num_frames=2)))
    found = stage.apply_batch(clips, media)
    alone = pickle.loads(pickle.dumps(stage)).apply(clips[1], media[1])
    np.testing.assert_array_equal(alone.vectors["concept"], found[1].vectors["concept"])  # to the bit
    network, processor = CLIPModel.from_pretrained(clip_model), CLIPImageProcessorPil.from_pretrained(clip_model)
    pixels = processor(list(read_stills(media[0].path, [0.375, 1.125])), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        embeds = network.visual_projection(network.vision_model(pixels).pooler_output)
    mean = torch.nn.functional.normalize(embeds, dim=1).mean(0)
    np.testing.assert_allclose(found[0].vectors["concept"], mean / mean.norm(), atol=2e-3)
    assert np.abs(found[0].vectors["concept"] - found[1].vectors["concept"]).max() > 1e-3


def test_a_video_model_embeds_clips_as_a_whole(make_film, tmp_path):
    torch.manual_seed(0)
    texts = XCLIPTextConfig(**SIZES, vocab_size=50, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    sizes = {"mit_hidden_size": 16, "mit_intermediate_size": 32, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    videos = XCLIPVisionConfig(**SEEN, **sizes, num_frames=4)
    config = XCLIPConfig(text_config=texts.to_dict(), vision_config=videos.to_dict(), projection_dim=16, prompt_num_attention_heads=2)
    XCLIPModel(config).save_pretrained(tmp_path / "model")
    CLIPImageProcessorPil(**PROCESSOR).save_pretrained(tmp_path / "model")
    media = Media(make_film(tmp_path / "a.mp4", num_frames=16))
    found = stage_of(tmp_path / "model").apply(Clip(key="a", source="a.mp4"), media)
    Image.fromarray(read_stills(media.path, [0.0])[0]).save(tmp_path / "a.png")
    still = stage_of(tmp_path / "model").apply(Clip(key="b", source="a.png"), Media(tmp_path / "a.png"))
    for clip in (found, still):
        assert clip.vectors["concept"].shape == (16,)
        assert np.linalg.norm(clip.vectors["concept"].astype(np.float32)) == pytest.approx(1.0, abs=1e-2)


def test_other_models_are_refused(make_film, tmp_path):
    from transformers import ResNetConfig, ResNetModel

    clip, media = Clip(key="a", source="a.mp4"), Media(make_film(tmp_path / "a.mp4"))
    with pytest.raises(UsageError, match="no such folder"):
        stage_of(tmp_path / "absent").apply(clip, media)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="ResNetModel"):
        stage_of(tmp_path / "model").apply(clip, media)
    with pytest.raises(UsageError):
        stage_of("model", num_frames=0)
