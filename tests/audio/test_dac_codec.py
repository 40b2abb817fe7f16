"""The codec's parts against closed forms and against transformers' DacModel with the same weights."""

import math
import pickle

import numpy as np
import pytest
import torch
from scipy.fft import dct
from torch import nn
from torch.nn import functional as F
from transformers import DacConfig, DacModel
from transformers.models.dac.modeling_dac import DacDecoderBlock, DacEncoderBlock

from moviegen_audio import codec
from moviegen_audio.codec import CodecNetwork, DecoderBlock, EncoderBlock, fold_samples, unfold_samples
from moviegen_audio.convolution import Conv1d, ConvTranspose1d, fold_weight_norm
from moviegen_audio.dac_import import _by_layer, _fill, _rename, load_dac
from moviegen_audio.filter_bank import cosines
from moviegen_audio.snake import Snake1d
from moviegen_core.errors import UsageError
from moviegen_core.testing import check_drawn_alike, check_gradients, check_meta_construction

SMALL = {"encoder_width": 4, "decoder_width": 32, "strides": (2, 4), "latent_channels": 3}


def dac(strides=(2, 4), **changes) -> DacModel:
    torch.manual_seed(0)
    config = DacConfig(
        **({"encoder_hidden_size": 4, "decoder_hidden_size": 32, "downsampling_ratios": list(strides), "n_codebooks": 2} | changes)
    )
    model = DacModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # its own start leaves biases at 0 and α at 1
            parameter.add_(0.2 * torch.randn_like(parameter).abs())
    return model


def as_map(x: torch.Tensor) -> torch.Tensor:
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 16, 1, 33), (3, 1, 4), (1, 600, 3)])
def test_snake_is_its_formula(shape):
    snake = Snake1d(shape[1])
    nn.init.uniform_(snake.alpha, 0.05, 4.0)
    x = 3.0 * torch.randn(shape)
    alpha = snake.alpha.view(-1, *[1] * (len(shape) - 2))
    torch.testing.assert_close(snake(x), x + (alpha * x).sin().square() / alpha)


def test_snake_differentiates():
    x = torch.randn(2, 5, 8, dtype=torch.double, requires_grad=True)
    alpha = torch.linspace(0.1, 3.0, 5, dtype=torch.double, requires_grad=True)
    snake = Snake1d(5)
    assert torch.autograd.gradcheck(lambda x, alpha: torch.func.functional_call(snake, {"alpha": alpha}, (x,)), (x, alpha))


def test_snake_stays_finite_where_alpha_is_zero_and_in_half_precision():
    snake = Snake1d(4)
    nn.init.zeros_(snake.alpha)
    x = torch.randn(2, 4, 9, requires_grad=True)
    y = snake(x)
    torch.testing.assert_close(y, x)
    y.sum().backward()
    assert snake.alpha.grad.isfinite().all()
    assert snake(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 3, "padding": 9}])
@pytest.mark.parametrize("weight_norm", [True, False])
def test_convolution_is_torchs(options, weight_norm):
    layer = Conv1d(3, 5, 7, weight_norm=weight_norm, **options)
    reference = nn.Conv1d(3, 5, 7, **options)
    with torch.no_grad():
        nn.init.normal_(layer.bias)
        if weight_norm:
            layer.gain.mul_(torch.linspace(0.5, 2.0, 5)[:, None, None])
            reference = nn.utils.parametrizations.weight_norm(reference)
            reference.parametrizations.weight.original0.copy_(layer.gain)
            reference.parametrizations.weight.original1.copy_(layer.weight)
        else:
            reference.weight.copy_(layer.weight)
        reference.bias.copy_(layer.bias)
    x = torch.randn(2, 3, 40)
    torch.testing.assert_close(layer(as_map(x)).squeeze(2), reference(x))


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 8, 9])
def test_resampling_keeps_whole_frames_for_odd_strides_too(stride):
    up, x = ConvTranspose1d(3, 2, stride=stride, weight_norm=False), torch.randn(1, 3, 6)
    y = up(as_map(x)).squeeze(2)
    assert y.shape[-1] == 6 * stride
    expected = F.conv_transpose1d(x, up.weight, up.bias, stride, -(-stride // 2))
    torch.testing.assert_close(y[..., : expected.shape[-1]], expected)
    assert EncoderBlock(2, stride=stride)(as_map(torch.randn(1, 2, 6 * stride))).shape == (1, 4, 1, 6)


@pytest.mark.parametrize("patch", [1, 2, 5])
def test_folding_is_undone_by_unfolding(patch):
    audio = torch.randn(2, 2, 30)
    folded = fold_samples(audio, patch)
    assert folded.shape == (2, 2 * patch, 1, 30 // patch) and folded.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(unfold_samples(folded, patch), audio, rtol=0, atol=0)
    torch.testing.assert_close(folded[0, patch, 0], audio[0, 1, ::patch], rtol=0, atol=0)


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 8])
def test_blocks_equal_those_of_transformers(stride):
    torch.manual_seed(1)
    config = DacConfig(encoder_hidden_size=4, decoder_hidden_size=16)
    pairs = (
        (EncoderBlock(4, stride=stride), DacEncoderBlock(config, stride, 1), "encoder.block.0", "encoder.blocks.0"),
        (DecoderBlock(16, stride=stride), DacDecoderBlock(config, stride, 0), "decoder.block.0", "decoder.blocks.0"),
    )
    for ours, theirs, their_prefix, our_prefix in pairs:
        layers = dict(ours.named_modules())
        for name, tensors in _by_layer({f"{their_prefix}.{key}": value for key, value in theirs.state_dict().items()}).items():
            assert _fill(layers[_rename(name).removeprefix(f"{our_prefix}.")], tensors) is None
        x = torch.randn(2, 4 if ours is pairs[0][0] else 16, 8 * stride)
        expected = theirs(x)
        found = ours(as_map(x)).squeeze(2)
        # Of an odd stride they lose the last sample, which then lies within the reach of three dilated convolutions.
        reach = 0 if stride % 2 == 0 or ours is pairs[0][0] else 3 * (1 + 3 + 9)
        kept = expected.shape[-1] - reach
        torch.testing.assert_close(found[..., :kept], expected[..., :kept], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weight_norm", [True, False])
def test_whole_encoder_and_decoder_equal_those_of_transformers(weight_norm, tmp_path):
    theirs = dac()
    theirs.save_pretrained(tmp_path)
    ours = CodecNetwork(**SMALL, weight_norm=weight_norm)
    report = load_dac(ours, tmp_path)
    assert report.untouched == ["to_moments", "from_latent"]
    assert all("quantiser" in reason for reason in report.refused.values()) and report.refused
    audio, features = torch.randn(2, 1, 96), torch.randn(2, 16, 9)
    with torch.no_grad():
        torch.testing.assert_close(ours.encoder(audio).squeeze(2), theirs.encoder(audio), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.decoder(as_map(features)), theirs.decoder(features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spelling", ["old", "new"])
def test_weight_norm_in_a_file_is_understood(spelling, tmp_path):
    theirs = dac()
    plain = {key: value.clone() for key, value in theirs.state_dict().items()}
    state = {}
    for key, value in plain.items():
        if key.endswith("weight") and "conv" in key:
            names = (
                ("weight_g", "weight_v")
                if spelling == "old"
                else ("parametrizations.weight.original0", "parametrizations.weight.original1")
            )
            length = value.norm(dim=(1, 2), keepdim=True)
            state |= {key.replace("weight", names[0]): length, key.replace("weight", names[1]): 3.0 * value}
        else:
            state[key] = value
    one, other = CodecNetwork(**SMALL), CodecNetwork(**SMALL)
    load_dac(one, plain)
    load_dac(other, state)
    audio = torch.randn(1, 1, 64)
    torch.testing.assert_close(one.encoder(audio), other.encoder(audio))


def test_layers_that_do_not_fit_are_told_with_the_reason():
    network = CodecNetwork(**(SMALL | {"strides": (2, 5)}))
    before = network.encoder.blocks[1].down.weight.clone()
    report = load_dac(network, dac().state_dict())
    assert report.refused["encoder.block.1.conv1"] == "its weight is (16, 8, 8), here (16, 8, 10)"
    assert "encoder.blocks.1.down" in report.untouched and "encoder.blocks.1.units.2.conv1" in report.taken
    assert torch.equal(before, network.encoder.blocks[1].down.weight)
    told = report.summary()
    assert "left out encoder.block.1.conv1: its weight" in told and "not filled: encoder.blocks.1.down" in told
    deeper = load_dac(CodecNetwork(**SMALL), dac(strides=(2, 4, 2)).state_dict())
    assert deeper.refused["encoder.block.2.conv1"] == "this model has fewer levels"


def test_weights_that_are_no_codecs(tmp_path):
    network = CodecNetwork(**SMALL)
    with pytest.raises(UsageError, match="DAC has no such layer; give weights in the layout"):
        load_dac(network, {"linear.weight": torch.zeros(2, 2)})
    with pytest.raises(UsageError, match="it holds no tensors"):
        load_dac(network, {})
    with pytest.raises(UsageError, match=r"there is no file '.*model.safetensors'"):
        load_dac(network, tmp_path)
    with pytest.raises(UsageError, match="there is no file"):
        load_dac(network, tmp_path / "absent.safetensors")


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="such as 32"):
        CodecNetwork(encoder_width=4, decoder_width=30, strides=(2, 2, 2, 2))
    with pytest.raises(UsageError, match="leave levels without a stride out"):
        CodecNetwork(strides=(1, 2))
    with pytest.raises(UsageError, match="a patch is at least one sample"):
        CodecNetwork(patch_size=0)


@pytest.mark.parametrize("weight_norm", [True, False])
def test_it_builds_on_the_meta_device_and_every_weight_gets_a_gradient(weight_norm):
    def factory() -> CodecNetwork:
        return CodecNetwork(**SMALL, audio_channels=2, patch_size=2, weight_norm=weight_norm)

    network = check_meta_construction(factory)
    check_drawn_alike(factory)
    audio = torch.randn(2, 2, 64)
    check_gradients(network, lambda: [network.encode(audio), network.decode(network.encode(audio)[:, :3])])


def test_no_sound_depends_on_the_others_of_its_batch():
    network, audio = CodecNetwork(**SMALL), torch.randn(2, 1, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.encode(audio)[:1], network.encode(audio[:1]))


def test_cosines_are_scipys():
    torch.testing.assert_close(cosines(7) @ torch.eye(7), torch.from_numpy(dct(np.eye(7), norm="ortho", axis=0)).float())


@pytest.mark.parametrize(("patch", "strides"), [(4, (2, 3)), (1, (2, 3, 4)), (3, (8,))])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_filter_bank_passes_low_frequencies_from_the_start(patch, strides, channels, monkeypatch):
    """Without chance and Snake's curve the start is an orthogonal projection: a smooth sound comes through, and noise in its share."""
    monkeypatch.setattr(codec, "_NOISE_SCALE", 0.0)
    monkeypatch.setattr(codec, "_BRANCH_SCALE", 0.0)
    sizes = {
        "patch_size": patch,
        "strides": strides,
        "audio_channels": channels,
        "encoder_width": 8,
        "decoder_width": 8 * 2 ** len(strides),
    }
    network = CodecNetwork(**sizes, latent_channels=8, filter_bank=True, weight_norm=False)
    for part in network.modules():
        if isinstance(part, Snake1d):
            nn.init.constant_(part.alpha, 1e-4)
    hop = patch * math.prod(strides)
    audio = 0.01 * torch.sin(0.4 * math.pi * torch.arange(40 * hop) / hop).expand(1, channels, -1)
    noise = 0.01 * torch.randn(1, channels, 40 * hop)
    with torch.no_grad():
        passed, some = (network.decode(network.encode(sound)[:, :8]) for sound in (audio, noise))
    assert float((passed - audio).norm() / audio.norm()) < 0.2
    energy = float(noise.square().sum())
    assert float((some * noise).sum()) / energy == pytest.approx(8 / (hop * channels), rel=0.2)
    assert float((some * (noise - some)).sum()) / energy == pytest.approx(0.0, abs=2e-3)


@pytest.mark.parametrize("weight_norm", [True, False])
def test_a_filter_bank_is_drawn_alike_and_trainable(weight_norm):
    def factory() -> CodecNetwork:
        return CodecNetwork(**SMALL, audio_channels=2, patch_size=2, weight_norm=weight_norm, filter_bank=True)

    network = check_meta_construction(factory)
    check_drawn_alike(factory)
    pickle.loads(pickle.dumps(network))  # as for processes that are spawned
    check_gradients(network, lambda: [network.encode(torch.ones(1, 2, 64)), network.decode(torch.ones(1, 3, 4))])


def test_folded_weight_norm_gives_the_same():
    torch.manual_seed(0)
    network = CodecNetwork(**SMALL)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gain"):
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    audio, latent = torch.randn(2, 1, 80), torch.randn(2, 3, 10)
    encoded, decoded = network.encode(audio), network.decode(latent)
    fold_weight_norm(network)
    assert not any(name.endswith("gain") for name in network.state_dict())
    torch.testing.assert_close(network.encode(audio), encoded, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.decode(latent), decoded, rtol=1e-5, atol=1e-6)
