"""Chunked encoding and decoding give what the whole gives, and hold no more than a chunk."""

import itertools

import pytest
import torch

from moviegen_audio.dac_vae import DacVae
from moviegen_audio.streaming import ChunkedMap, Geometry, receptive_field
from moviegen_core.errors import UsageError

SIZES = {"strides": (2, 3, 5), "patch_size": 2, "encoder_width": 4, "decoder_width": 32, "latent_channels": 4}  # a hop of 60


def pair(chunk_frames: int, **changes) -> tuple[DacVae, DacVae]:
    torch.manual_seed(0)
    whole = DacVae(**(SIZES | changes)).eval()
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
            if name.endswith(".conv2.gain"):
                parameter.add_(0.5)  # so that the dilated convolutions matter
    whole.set_latent_statistics(torch.linspace(-1, 1, 4), torch.linspace(0.5, 2, 4))
    chunked = DacVae(**(SIZES | changes), chunk_frames=chunk_frames).eval()
    chunked.load_state_dict(whole.state_dict())
    return whole.double(), chunked.double()  # so that rounding, which other shapes change, stays out of it


@pytest.mark.parametrize("chunk_frames", [1, 3, 16])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 59, 60, 61, 60 * 16, 60 * 33 + 7])
@torch.no_grad()
def test_chunks_equal_the_whole(samples, channels, chunk_frames):
    whole, chunked = pair(chunk_frames, audio_channels=channels)
    audio = torch.randn(2, channels, samples).clamp(-1, 1)
    latent = whole.encode(audio)
    torch.testing.assert_close(chunked.encode(audio), latent, atol=1e-4, rtol=0)
    torch.testing.assert_close(chunked.decode(latent, num_frames=samples), whole.decode(latent, num_frames=samples), atol=1e-4, rtol=0)


@pytest.mark.parametrize("strides", [(3,), (8, 2), (5, 9), (7, 2, 3)])
@torch.no_grad()
def test_chunks_equal_the_whole_for_other_strides(strides):
    whole, chunked = pair(5, strides=strides, patch_size=1)
    audio = torch.randn(1, 1, whole.hop_length * 23)
    latent = whole.encode(audio)
    torch.testing.assert_close(chunked.encode(audio), latent, atol=1e-4, rtol=0)
    torch.testing.assert_close(chunked.decode(latent), whole.decode(latent), atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_chunk_without_its_context_would_differ():
    whole, _ = pair(4)
    audio = torch.randn(1, 1, 60 * 16)
    apart = torch.cat([whole.encode(audio[..., : 60 * 8]), whole.encode(audio[..., 60 * 8 :])], dim=-1)
    assert (apart - whole.encode(audio)).abs().max() > 1e-2


@pytest.mark.parametrize("sizes", [[1], [60], [7, 500, 1, 0, 61], [100_000]])
@torch.no_grad()
def test_streams_take_pieces_of_any_length(sizes):
    whole, _ = pair(4)
    audio = torch.randn(1, 1, 60 * 21 + 5)

    audio = audio.double()

    def cut(x: torch.Tensor):
        start = 0
        for size in itertools.cycle(sizes):
            if start >= x.shape[-1]:
                return
            yield x[..., start : start + size]
            start += size

    latent = whole.encode(audio)
    found = list(whole.stream_encode(cut(audio), chunk_frames=4))
    assert len(found) == 6
    torch.testing.assert_close(torch.cat(found, dim=-1), latent, atol=1e-4, rtol=0)
    decoded = torch.cat(list(whole.stream_decode(cut(latent), chunk_frames=4)), dim=-1)
    torch.testing.assert_close(decoded, whole.decode(latent), atol=1e-4, rtol=0)
    assert not list(whole.stream_encode(iter([]))) and not list(whole.stream_decode(iter([])))


@torch.no_grad()
def test_memory_is_bounded_and_the_first_chunk_comes_early():
    model, _ = pair(4)
    seen, given = [], []
    encode = model.network.encode
    model.network.encode = lambda x: (seen.append(x.shape[-1]), encode(x))[1]

    def pieces():
        for index in range(200):
            given.append(index)
            yield torch.randn(1, 1, 60, dtype=torch.double)

    stream = model.stream_encode(pieces(), chunk_frames=4)
    next(stream)
    assert len(given) < 30
    assert sum(latent.shape[-1] for latent in stream) == 196
    assert max(seen) <= 60 * 40 and len(seen) == 50


@torch.no_grad()
def test_the_receptive_field_is_exact():
    """Measured by changing one sample at a time: what lies outside does nothing, what lies at its edges does something."""
    model, _ = pair(1)
    network, frames = model.network, 41
    audio = torch.randn(1, 1, 60 * frames, dtype=torch.double)
    first, last = receptive_field(network.encoder_layers(), 20, 20)
    latent = network.encode(audio)[..., 20]
    for position, matters in ((first - 1, False), (first, True), (last, True), (last + 1, False)):
        changed = audio.clone()
        # Patches are seen whole, so any sample of one counts.
        changed[..., position] += 1e3
        assert bool((network.encode(changed)[..., 20] != latent).any()) == matters, position
    samples = network.decode(torch.zeros(1, 4, frames, dtype=torch.double))[..., 1200]
    first, last = receptive_field(network.decoder_layers(), 1200, 1200)
    for position, matters in ((first - 1, False), (first, True), (last, True), (last + 1, False)):
        changed = torch.zeros(1, 4, frames, dtype=torch.double)
        changed[..., position] += 1.0
        assert bool((network.decode(changed)[..., 1200] != samples).any()) == matters, position


def test_geometries_by_hand():
    assert Geometry(kernel_size=7, dilation=9, padding=27).inputs(100, 101) == (73, 128)
    assert Geometry(kernel_size=8, stride=4, padding=2).inputs(3, 3) == (10, 17)
    assert Geometry(kernel_size=8, stride=4, padding=2, transposed=True).inputs(10, 10) == (2, 3)
    with pytest.raises(UsageError, match="a chunk has at least one latent frame"):
        ChunkedMap([], chunk_frames=0, input_per_frame=1, output_per_frame=1)


@torch.no_grad()
def test_samples_of_the_posterior_do_not_depend_on_chunks():
    whole, chunked = pair(3)
    audio = torch.randn(1, 1, 600)
    torch.manual_seed(5)
    one = whole.encode(audio, sample=True)
    torch.manual_seed(5)
    torch.testing.assert_close(chunked.encode(audio, sample=True), one, atol=1e-4, rtol=0)
