"""Aesthetics against the score computed by hand on a tiny random CLIP model; classical measures against closed forms."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from moviegen_core.errors import UsageError
from moviegen_core.media.video import write_video
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.stages.quality import Aesthetics, ClassicalQuality, laplacian, measures

CLIP = Clip(key="a", source="a.png")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    vision = CLIPVisionConfig(**sizes, image_size=28, patch_size=14)
    text = CLIPTextConfig(**sizes, vocab_size=16, max_position_embeddings=8)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)).eval()
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    head = nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.2), nn.Linear(8, 4), nn.Dropout(0.1), nn.Linear(4, 1)).eval()
    torch.save({f"layers.{name}": value for name, value in head.state_dict().items()}, folder / "head.pth")
    linear = nn.Linear(16, 1)
    save_file(linear.state_dict(), folder / "linear.safetensors")
    return folder, model, head, linear


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pictures(folder, *arrays):
    media = []
    for index, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{index}.png")
        media.append(Media(folder / f"{index}.png"))
    return media


@torch.no_grad()
def test_the_score_is_the_head_on_the_normalised_embedding(models, tmp_path):
    folder, model, head, linear = models
    picture = noise(28, 44)
    (media,) = pictures(tmp_path, picture)
    values = torch.from_numpy(picture[:, 8:36].copy()).permute(2, 0, 1)[None] / 255.0  # of the size of the model: only cut
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    values = (values - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    embedding = model.visual_projection(model.vision_model(pixel_values=values).pooler_output)
    embedding = embedding / embedding.norm(dim=-1, keepdim=True)
    for name, by_hand in (("head.pth", head), ("linear.safetensors", linear)):
        stage = Aesthetics(clip_path=str(folder), head_path=str(folder / name), min_score=-100.0, device="cpu")
        found = pickle.loads(pickle.dumps(stage)).apply(CLIP, media)
        assert found.scores["aesthetic"] == pytest.approx(float(by_hand(embedding)), abs=1e-5) and found.drop is None
        assert list(found.scores) == ["aesthetic"]


def test_larger_pictures_are_prepared_as_the_library_does(models):
    folder = models[0]
    stage = Aesthetics(clip_path=str(folder), head_path=str(folder / "head.pth"), device="cpu")
    smooth = np.asarray(Image.fromarray(noise(6, 9)).resize((90, 60), Image.Resampling.BICUBIC))
    reference = CLIPImageProcessor.from_pretrained(folder)(images=Image.fromarray(smooth), return_tensors="pt")["pixel_values"][0]
    assert (stage._predictor.prepare(smooth) - reference).abs().max() < 0.05


def test_batches_score_alike_and_the_threshold_drops(models, tmp_path):
    folder = models[0]
    media = pictures(tmp_path, noise(40, 60, 1), noise(60, 40, 2), np.zeros((8, 8, 3), np.uint8))
    stage = Aesthetics(clip_path=str(folder), head_path=str(folder / "head.pth"), device="cpu", batch_size=3)
    together = stage.apply_batch([CLIP] * 3, media)
    alone = [stage.apply(CLIP, medium) for medium in media]
    for one, other in zip(together, alone, strict=True):
        assert one.scores == other.scores  # to the bit
        assert one.drop.reason == "low aesthetic score"  # a random head knows no four points
    assert stage.batch_size == 3


def test_the_middle_frame_is_scored(models, tmp_path):
    folder = models[0]
    frames = np.repeat(np.stack([noise(3, 3, index) for index in range(3)]), 16, 1).repeat(16, 2)
    write_video(tmp_path / "a.mp4", torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1.0, fps=1.0, crf=1)
    stage = Aesthetics(clip_path=str(folder), head_path=str(folder / "head.pth"), device="cpu")
    media = Media(tmp_path / "a.mp4")
    (middle,) = stage._predictor.score([media.stills(1.5, 1.5)[0]])
    assert stage.apply(CLIP, media).scores["aesthetic"] == pytest.approx(middle, abs=1e-6)
    last = stage.apply(CLIP.part(0, 2.0, 3.0), media).scores["aesthetic"]
    assert last != pytest.approx(middle, abs=1e-6)


def test_absent_and_unfit_files_are_told(models, tmp_path):
    folder = models[0]
    (media,) = pictures(tmp_path, noise(28, 28))

    def fails(match, clip=folder, head=folder / "head.pth"):
        with pytest.raises(UsageError, match=match):
            Aesthetics(clip_path=str(clip), head_path=str(head), device="cpu").apply(CLIP, media)

    fails("no such folder", clip=tmp_path / "none")
    fails("the folder holds 0.png", clip=tmp_path)
    fails("no such file", head=tmp_path / "none.pth")
    torch.save({"weight": torch.zeros(1, 9), "bias": torch.zeros(1)}, tmp_path / "narrow.pth")
    fails("width 16", head=tmp_path / "narrow.pth")
    torch.save(nn.Linear(16, 1), tmp_path / "code.pth")  # a pickle that calls code
    fails("run that code", head=tmp_path / "code.pth")


def test_measures_are_those_of_closed_forms():
    rows = np.zeros((64, 64, 3), np.uint8)
    rows[::2] = 200
    found = measures(rows)
    # Rows of 0 and v: the Laplacian is 2v on dark rows and -2v on bright ones, but at the margin half of it.
    by_hand = np.where(np.arange(64) % 2, 2.0, -2.0) * 200 / 255
    by_hand[[0, -1]] /= 2
    assert found["sharpness"] == pytest.approx(by_hand.std(), abs=1e-4)
    assert found["contrast"] == pytest.approx(200 / 255, abs=1e-4)
    assert found["brightness"] == pytest.approx(100 / 255, abs=1e-4) and found["clipped"] == 0.5
    flat = measures(np.full((8, 8, 3), 255, np.uint8))
    assert flat == {"sharpness": 0.0, "contrast": 0.0, "brightness": 1.0, "clipped": 1.0}
    assert laplacian(torch.arange(12.0).view(3, 4))[1, 1] == 0.0


def test_blur_flatness_and_exposure_drop(tmp_path):
    sharp = np.asarray(Image.fromarray(noise(24, 32)).resize((256, 192), Image.Resampling.BICUBIC))
    soft = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(6)))
    flat = (110 + sharp.astype(int) // 20).astype(np.uint8)
    dark, bright = sharp // 16, 255 - sharp // 16
    media = pictures(tmp_path, sharp, soft, flat, dark, bright)
    stage = pickle.loads(pickle.dumps(ClassicalQuality(min_contrast=0.1, max_brightness=0.9)))
    found = [stage.apply(CLIP, medium) for medium in media]
    assert found[0].drop is None and all(clip.drop for clip in found[1:])
    assert all(set(clip.scores) == {"sharpness", "contrast", "brightness", "clipped"} for clip in found)
    only = ClassicalQuality(min_sharpness=0.0, min_contrast=0.0)
    assert only.apply(CLIP, media[3]).drop.reason == "low brightness"
    assert found[1].scores["sharpness"] < found[0].scores["sharpness"] / 2
    with pytest.raises(UsageError, match="0 to 1"):
        ClassicalQuality(max_clipped=2.0)
    with pytest.raises(UsageError, match="0 or more"):
        ClassicalQuality(min_sharpness=float("nan"))


@pytest.mark.slow
@pytest.mark.media
def test_real_clips_pass_but_graphics_and_darkness(media):
    stage = ClassicalQuality()
    found = {path.name: stage.apply(CLIP, Media(path)).drop for path in sorted((media / "video").iterdir())}
    dropped = {name: drop.reason for name, drop in found.items() if drop}
    assert dropped == {"line_art_1200x1200_60fps.mp4": "high clipped", "nasa_320x180_two_video_streams.mp4": "low brightness"}
