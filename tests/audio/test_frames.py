"""Frame encoders, and the frames they give to a sound."""

import json
from fractions import Fraction

import pytest
import torch
from PIL import Image

from moviegen_audio.alignment import nearest_frames, take_frames
from moviegen_audio.clip_frames import ClipFrameEncoder
from moviegen_audio.frames import EmbeddedFrameEncoder
from moviegen_core.errors import UsageError
from moviegen_core.testing import check_meta_construction


@pytest.mark.parametrize("fps", [1, 8, 15, 24, 25, 30, 50, 60])
def test_nearest_frames_are_those_whose_middles_are_nearest(fps):
    num_latent_frames, num_frames = 60, 2 * fps + 3
    found = nearest_frames(num_latent_frames, 25.0, torch.tensor([float(fps)]), num_frames)[0].tolist()
    half = Fraction(1, 2)
    for place, frame in enumerate(found):
        distances = [abs((j + half) / fps - (place + half) / 25) for j in range(num_frames)]
        assert distances[frame] == min(distances)


def test_closed_forms():
    assert nearest_frames(7, 25.0, torch.tensor([25.0]), 100)[0].tolist() == list(range(7))
    assert nearest_frames(8, 25.0, torch.tensor([50.0]), 100)[0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert nearest_frames(7, 25.0, torch.tensor([8.0]), 100)[0].tolist() == [0, 0, 0, 1, 1, 1, 2]
    both = nearest_frames(25, 25.0, torch.tensor([8.0, 24.0]), 100)
    assert both[:, -1].tolist() == [7, 23]


def test_a_video_that_ends_early_keeps_its_last_frame():
    assert nearest_frames(50, 25.0, torch.tensor([15.0]), 15)[0, 24:].tolist() == [14] * 26


def test_taking_frames():
    features = torch.arange(12.0).view(2, 3, 2)
    taken = take_frames(features, torch.tensor([[0, 0, 2], [1, 2, 2]]))
    assert taken[0].tolist() == [[0, 1], [0, 1], [4, 5]] and taken[1].tolist() == [[8, 9], [10, 11], [10, 11]]


# -- the embedded one --------------------------------------------------------------------------------------------------------------


def moving_dot(step):
    video = torch.full((1, 3, 9, 32, 32), -1.0)
    for frame in range(9):
        x = 16 + step * (frame - 4)
        video[:, :, frame, 14:18, x - 2 : x + 2] = 1.0
    return video


def test_embedded_encoder_sees_two_neighbours_on_either_side():
    torch.manual_seed(0)
    encoder = EmbeddedFrameEncoder(feature_width=8)
    video = torch.rand(1, 3, 11, 20, 28) * 2 - 1
    before = encoder(video)
    changed = video.clone()
    changed[:, :, 5] = -changed[:, :, 5]
    moved = (encoder(changed) - before).abs().amax((0, 2)) > 1e-5
    assert before.shape == (1, 11, 8)
    assert moved.tolist() == [3 <= frame <= 7 for frame in range(11)]


def test_embedded_encoder_tells_the_direction_of_motion():
    torch.manual_seed(0)
    encoder = EmbeddedFrameEncoder(feature_width=8)
    right, left, still = (encoder(moving_dot(step))[0, 4] for step in (2, -2, 0))
    assert torch.equal(moving_dot(2)[:, :, 4], moving_dot(-2)[:, :, 4])
    assert (right - left).norm() > 0.1 and (right - still).norm() > 0.1


def test_embedded_encoder_takes_any_size_and_builds_on_meta():
    encoder = check_meta_construction(EmbeddedFrameEncoder)
    for size in ((1, 8, 8), (2, 33, 90)):
        assert encoder(torch.rand(1, 3, *size)).shape == (1, size[0], 128)
    with pytest.raises(UsageError, match="multiple of 8"):
        EmbeddedFrameEncoder(size_px=20)


# -- pretrained ones ---------------------------------------------------------------------------------------------------------------

TINY = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16, "patch_size": 8}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(CLIPConfig(text_config=text, vision_config=TINY, projection_dim=10)).save_pretrained(folder)
    return folder


def video():
    torch.manual_seed(3)
    return torch.rand(2, 3, 5, 20, 30) * 2 - 1


def test_clip_frames_are_transformers_own_image_embeddings(clip):
    from transformers import CLIPModel

    encoder = ClipFrameEncoder(pretrained=str(clip), frames_per_pass=3)
    found = encoder(video())
    assert encoder.feature_width == 10 and found.shape == (2, 5, 10) and not list(encoder.parameters())
    frames = encoder.prepare(video().transpose(1, 2).flatten(0, 1))
    expected = CLIPModel.from_pretrained(clip).eval().get_image_features(pixel_values=frames).pooler_output
    torch.testing.assert_close(found.flatten(0, 1), expected, atol=1e-5, rtol=1e-4)


def test_the_vision_tower_alone_and_other_kinds(clip, tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

    config = CLIPVisionConfig(**TINY, projection_dim=10)
    CLIPVisionModelWithProjection.from_pretrained(clip, config=config).save_pretrained(tmp_path / "tower")
    whole = ClipFrameEncoder(pretrained=str(clip))(video())
    torch.testing.assert_close(ClipFrameEncoder(pretrained=str(tmp_path / "tower"))(video()), whole)
    siglip = SiglipVisionModel(SiglipVisionConfig(**TINY)).eval()
    siglip.save_pretrained(tmp_path / "siglip")
    encoder = ClipFrameEncoder(pretrained=str(tmp_path / "siglip"))
    frames = encoder.prepare(video().transpose(1, 2).flatten(0, 1))
    torch.testing.assert_close(encoder(video()).flatten(0, 1), siglip(pixel_values=frames).pooler_output, atol=1e-5, rtol=1e-4)
    assert encoder.feature_width == 24


def test_frames_are_prepared_as_clip_does(clip, tmp_path):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 9), size=(40, 61), mode="bicubic").clamp(0, 1)
    pixels = (picture[0].permute(1, 2, 0) * 255).round().byte()
    expected = processor(images=Image.fromarray(pixels.numpy()), return_tensors="pt")["pixel_values"]
    frames = ClipFrameEncoder(pretrained=str(clip)).prepare(pixels.permute(2, 0, 1)[None] / 127.5 - 1.0)
    assert (frames - expected).abs().max() < 0.05


def test_the_models_own_pixel_statistics_are_used(clip, tmp_path):
    import shutil

    shutil.copytree(clip, tmp_path / "own")
    (tmp_path / "own" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    encoder = ClipFrameEncoder(pretrained=str(tmp_path / "own"))
    torch.testing.assert_close(encoder.prepare(torch.ones(1, 3, 16, 16)), torch.full((1, 3, 16, 16), 2.0))


def test_what_is_no_vision_model_is_refused(tmp_path):
    from transformers import T5Config

    with pytest.raises(UsageError, match="there is no such folder"):
        ClipFrameEncoder(pretrained=str(tmp_path / "absent"))
    T5Config(d_model=8).save_pretrained(tmp_path / "t5")
    with pytest.raises(UsageError, match="no vision tower"):
        ClipFrameEncoder(pretrained=str(tmp_path / "t5"))
