"""Inflation against diffusers' AutoencoderKL with the same random weights."""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from moviegen_tae.inflation import load_image_autoencoder
from moviegen_tae.model import AutoencoderNetwork
from moviegen_tae.training import TemporalAutoencoder

SIZES = {"base_channels": 8, "channel_multipliers": (1, 2, 2, 4), "num_res_blocks": 2, "latent_channels": 4, "norm_groups": 4}


def image_model(*, quant: bool = True) -> AutoencoderKL:
    torch.manual_seed(0)
    model = AutoencoderKL(
        block_out_channels=(8, 16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    ).eval()
    for parameter in model.parameters():  # norms and biases away from one and zero
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def inflated(image: AutoencoderKL, dimensionality: str) -> AutoencoderNetwork:
    network = AutoencoderNetwork(**SIZES, temporal_factor=1 if dimensionality == "2d" else 8, dimensionality=dimensionality)
    load_image_autoencoder(network, image.state_dict())
    return network.requires_grad_(False)


@pytest.mark.parametrize("dimensionality", ["2d", "2.5d", "3d"])
def test_one_frame_equals_the_image_model(dimensionality: str) -> None:
    image = image_model()
    network = inflated(image, dimensionality)
    pixels = torch.rand(2, 3, 32, 40) * 2 - 1
    posterior = image.encode(pixels).latent_dist
    mean, logvar = network.encode(pixels.unsqueeze(2))
    torch.testing.assert_close(mean.squeeze(2), posterior.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logvar.squeeze(2), posterior.logvar, rtol=1e-5, atol=1e-5)
    decoded = network.decode(mean)
    torch.testing.assert_close(decoded[:, :, 0], image.decode(posterior.mean).sample, rtol=1e-5, atol=1e-5)


def test_static_video_equals_the_image_model() -> None:
    image = image_model()
    network = inflated(image, "2.5d")
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    latent, _ = network.encode(pixels.unsqueeze(2).expand(-1, -1, 11, -1, -1))
    wanted = image.encode(pixels).latent_dist.mean
    assert latent.shape[2] == 2
    torch.testing.assert_close(latent, wanted.unsqueeze(2).expand_as(latent), rtol=1e-5, atol=1e-5)
    frames = network.decode(latent)
    torch.testing.assert_close(frames, image.decode(wanted).sample.unsqueeze(2).expand_as(frames), rtol=1e-5, atol=1e-5)


def test_frame_wise_model_equals_the_image_model_on_moving_video() -> None:
    image = image_model()
    network = inflated(image, "2d")
    video = torch.rand(2, 3, 3, 16, 24) * 2 - 1
    latent, _ = network.encode(video)
    wanted = torch.stack([image.encode(frame).latent_dist.mean for frame in video.unbind(2)], dim=2)
    torch.testing.assert_close(latent, wanted, rtol=1e-5, atol=1e-5)


def test_a_model_without_quant_convolutions() -> None:
    image = image_model(quant=False)
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    mean, _ = inflated(image, "2.5d").encode(pixels.unsqueeze(2))
    torch.testing.assert_close(mean.squeeze(2), image.encode(pixels).latent_dist.mean, rtol=1e-5, atol=1e-5)


def test_folder_in_diffusers_layout(tmp_path) -> None:
    image = image_model()
    image.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "AutoencoderKL"
    network = AutoencoderNetwork(**SIZES, temporal_factor=8, dimensionality="2.5d")
    load_image_autoencoder(network, tmp_path)
    assert torch.equal(network.quant_conv.weight, image.quant_conv.weight)


def test_old_attention_names(tmp_path) -> None:
    image = image_model()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, value in image.state_dict().items():
        for new, name in old.items():
            if f".{new}." in key:
                key, value = key.replace(new, name), value[..., None, None] if value.ndim == 2 else value
        state[key] = value.contiguous()
    save_file(state, tmp_path / "old.safetensors")
    network = AutoencoderNetwork(**SIZES, temporal_factor=8, dimensionality="2.5d")
    load_image_autoencoder(network, tmp_path / "old.safetensors")
    pixels = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(network.encode(pixels.unsqueeze(2))[0].squeeze(2), image.encode(pixels).latent_dist.mean)


@pytest.mark.parametrize("changes", [{}, {"patch_size": 2, "channel_multipliers": (1, 2, 2)}], ids=["pixels", "patches"])
def test_our_own_image_checkpoint(tmp_path, changes) -> None:
    torch.manual_seed(0)
    image = TemporalAutoencoder(**(SIZES | changes), temporal_factor=1, dimensionality="2d")
    image.set_latent_statistics(torch.arange(4.0), torch.arange(1.0, 5.0))
    torch.save({"state_dict": image.state_dict()}, tmp_path / "image.ckpt")
    video = TemporalAutoencoder(**(SIZES | changes))
    load_image_autoencoder(video, tmp_path / "image.ckpt")
    pixels = torch.rand(1, 3, 1, 16, 16)
    torch.testing.assert_close(video.encode(pixels), image.encode(pixels))
    torch.testing.assert_close(video(pixels), image(pixels))
    still = pixels.expand(-1, -1, 8, -1, -1)
    torch.testing.assert_close(video(still), image(still))


def test_a_model_of_another_shape_is_refused() -> None:
    network = AutoencoderNetwork(**(SIZES | {"num_res_blocks": 1}), temporal_factor=8, dimensionality="2.5d")
    with pytest.raises(ValueError, match="num_res_blocks"):
        load_image_autoencoder(network, image_model().state_dict())
    network = AutoencoderNetwork(**(SIZES | {"latent_channels": 16}), temporal_factor=8, dimensionality="2.5d")
    with pytest.raises(ValueError, match="latent_channels"):
        load_image_autoencoder(network, image_model().state_dict())
    with pytest.raises(FileNotFoundError, match="image_checkpoint"):
        load_image_autoencoder(network, "nowhere.safetensors")
