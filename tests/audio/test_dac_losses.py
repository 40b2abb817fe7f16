"""Spectra, mel filters and losses against scipy, transformers and closed forms; discriminators."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from transformers.audio_utils import mel_filter_bank

from moviegen_audio.bottleneck import Posterior, bits_per_second
from moviegen_audio.discriminator import PeriodDiscriminator, SoundDiscriminator
from moviegen_audio.loss import ReconstructionLoss, SoundLossWeights, adversarial_loss, discriminator_loss, feature_matching_loss
from moviegen_audio.metrics import SoundMetrics
from moviegen_audio.opus import code_with_opus
from moviegen_audio.spectral import MelDistance, StftDistance, mel_filters, stft
from moviegen_core.errors import UsageError


def tone(hz: float, *, seconds: float = 0.5, rate: int = 48000, amplitude: float = 0.5) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hz * torch.arange(int(seconds * rate)) / rate)[None, None]


@pytest.mark.parametrize("window", [32, 512, 2048])
def test_stft_is_scipys(window):
    audio = torch.randn(2, 2, 5000)
    padded = np.pad(audio.numpy(), ((0, 0), (0, 0), (window // 2, window // 2)), mode="reflect")
    hann = scipy.signal.get_window("hann", window)
    _, _, expected = scipy.signal.stft(padded, window=hann, nperseg=window, noverlap=window - window // 4, boundary=None, padded=False)
    found = stft(audio, window=window)
    torch.testing.assert_close(found, torch.from_numpy(expected * hann.sum()).to(found.dtype), atol=1e-3, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")  # as in DAC
@pytest.mark.parametrize(("bands", "window", "rate"), [(5, 32, 48000), (80, 512, 44100), (320, 2048, 48000), (20, 256, 8000)])
def test_mel_filters_are_those_of_transformers(bands, window, rate):
    expected = mel_filter_bank(
        num_frequency_bins=window // 2 + 1,
        num_mel_filters=bands,
        min_frequency=0.0,
        max_frequency=rate / 2,
        sampling_rate=rate,
        norm="slaney",
        mel_scale="slaney",
    ).T
    found = mel_filters(num_bands=bands, window=window, sample_rate=rate)
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=1e-7, rtol=1e-4)


def test_mel_distance_of_a_louder_sound_is_the_logarithm_of_its_gain():
    audio = torch.randn(1, 1, 9600)
    distance = MelDistance(windows=(256, 512), num_bands=(10, 20))(audio, 10.0 * audio)
    assert float(distance) == pytest.approx(2.0, abs=1e-3)  # one decade at each of two window lengths
    assert float(MelDistance()(audio, audio)) == 0.0


def test_stft_distance_of_a_louder_sound():
    audio = torch.randn(1, 1, 9600)
    magnitudes = stft(audio, window=512).abs().mean()
    distance = StftDistance(windows=(512,))(audio, 10.0 * audio)
    assert float(distance) == pytest.approx(9.0 * float(magnitudes) + 2.0, rel=1e-3)


@pytest.mark.parametrize("length", [1, 7, 100, 1024, 1025])
def test_sounds_shorter_than_a_window_and_silence_have_finite_losses_and_gradients(length):
    for audio in (torch.zeros(1, 2, length), torch.randn(1, 2, length)):
        decoded = torch.zeros(1, 2, length, requires_grad=True)
        loss = MelDistance()(decoded, audio) + StftDistance()(decoded, audio)
        loss.backward()
        assert loss.isfinite() and decoded.grad.isfinite().all()


def test_losses_are_float32_whatever_the_input_and_autocast():
    audio, decoded = tone(440.0), tone(441.0)
    expected = MelDistance()(decoded, audio)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(MelDistance()(decoded, audio), expected)
    assert MelDistance()(decoded.bfloat16(), audio).dtype == torch.float32


def test_kl_is_torchs():
    mean, logvar = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    posterior = Posterior.from_moments(torch.cat([mean, logvar + 8.0], dim=1))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (0.5 * logvar).exp()), normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(posterior.kl(), expected)
    assert bits_per_second(math.log(2.0) * 3.0, 25.0) == pytest.approx(75.0)
    drawn = Posterior(torch.full((1, 1, 100_000), 2.0), torch.full((1, 1, 100_000), math.log(0.25))).sample()
    assert float(drawn.mean()) == pytest.approx(2.0, abs=0.01) and float(drawn.std()) == pytest.approx(0.5, abs=0.01)
    wild = Posterior.from_moments(torch.full((1, 2, 3), 1e4))
    assert wild.kl().isfinite() and wild.sample().isfinite().all()


def test_terms_are_weighted_and_only_those_switched_on():
    audio, decoded, posterior = tone(440.0), tone(500.0), Posterior(torch.ones(1, 4, 2), torch.zeros(1, 4, 2))
    terms = ReconstructionLoss(weights=SoundLossWeights(mel=0.0, waveform=3.0, kl=0.5))(decoded, audio, posterior)
    assert terms.keys() == {"waveform", "kl"}
    torch.testing.assert_close(terms["waveform"], 3.0 * (decoded - audio).abs().mean())
    torch.testing.assert_close(terms["kl"], torch.tensor(0.5 * 4 * 0.5))
    for broken in ({"mel": -1.0}, {"kl": float("nan")}):
        with pytest.raises(UsageError, match="set it to 0 or above"):
            SoundLossWeights(**broken)
    with pytest.raises(UsageError, match="set one of them above 0"):
        ReconstructionLoss(weights=SoundLossWeights(mel=0.0))
    with pytest.raises(UsageError, match="2 mel_windows and 1 mel_bands"):
        ReconstructionLoss(mel_windows=(32, 64), mel_bands=(5,))


def test_relative_waveform_error_does_not_depend_on_the_level():
    loud, wrong = tone(440.0), tone(440.0, amplitude=0.4)
    posterior = Posterior(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3))
    error = ReconstructionLoss(weights=SoundLossWeights(mel=0.0, relative_waveform=2.0, kl=0.0))
    for gain in (1.0, 0.01):
        torch.testing.assert_close(error(gain * wrong, gain * loud, posterior)["relative_waveform"], torch.tensor(2.0 * 0.2))
    both = torch.cat([loud, 0.01 * loud]), torch.cat([wrong, 0.01 * loud])
    torch.testing.assert_close(error(both[1], both[0], posterior)["relative_waveform"], torch.tensor(0.2))
    silent = torch.zeros_like(loud, requires_grad=True)
    error(silent, torch.zeros_like(loud), posterior)["relative_waveform"].backward()
    assert silent.grad.isfinite().all()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"mel_windows": (), "mel_bands": ()}, "mel_windows"),
        ({"mel_windows": (3,), "mel_bands": (5,)}, "mel_windows"),
        ({"mel_windows": (64,), "mel_bands": (0,)}, "mel_bands=0"),
        ({"stft_windows": ()}, "stft_windows"),
        ({"stft_windows": (512, -1)}, "stft_windows"),
        ({"log_floor": math.inf}, "log_floor"),
    ],
)
def test_distances_that_cannot_be_measured_are_refused(given, told):
    with pytest.raises(UsageError, match=told):
        ReconstructionLoss(**{"weights": SoundLossWeights(stft=1.0), **given})


@pytest.mark.parametrize(
    "given", [{"periods": (0,)}, {"periods": (), "windows": ()}, {"windows": (0,)}, {"windows": (8,)}, {"band_channels": 0}]
)
def test_discriminators_that_see_nothing_are_refused(given):
    with pytest.raises(UsageError, match="periods=|window of|band_channels=0"):
        SoundDiscriminator(1, **given)


def test_adversarial_terms_by_hand():
    real = [[torch.tensor([1.0, 3.0]), torch.tensor([0.5])], [torch.tensor([2.0]), torch.tensor([1.0])]]
    fake = [[torch.tensor([2.0, 3.0]), torch.tensor([0.25])], [torch.tensor([0.0]), torch.tensor([2.0])]]
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.25 + 0.0625 + 0.0 + 4.0)
    assert float(adversarial_loss(fake)) == pytest.approx(0.5625 + 1.0)
    assert float(feature_matching_loss(real, fake)) == pytest.approx(0.5 + 2.0)


@pytest.mark.parametrize("length", [100, 4000, 4001])
@pytest.mark.parametrize("channels", [1, 2])
def test_discriminator_judges_any_length(channels, length):
    judge = SoundDiscriminator(channels, windows=(256, 128), period_channels=2, band_channels=4)
    maps = judge(torch.randn(2, channels, length))
    assert [len(part) for part in maps] == [6] * 5 + [26] * 2
    assert all(part[-1].shape[:2] == (2, 1) for part in maps)
    assert all(m.isfinite().all() for m in sum(judge(torch.zeros(1, channels, length)), []))


def test_discriminator_does_not_hear_loudness_but_periods():
    judge = SoundDiscriminator(1, windows=(128,), period_channels=2, band_channels=4)
    audio = torch.randn(1, 1, 3000)
    for one, other in zip(sum(judge(audio), []), sum(judge(0.1 * audio + 0.3), []), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    periodic = torch.randn(1, 1, 1, 7).expand(1, 1, 200, 7).reshape(1, 1, -1)
    (first, *_) = PeriodDiscriminator(audio_channels=1, period=7, base_channels=2)(periodic)
    inner = first[:, :, 2:-2]
    torch.testing.assert_close(inner, inner[:, :, :1].expand_as(inner))  # each phase sees a constant


def test_metrics_are_closed_forms_and_leave_silence_out():
    metrics = SoundMetrics()
    audio = tone(1000.0)
    noise = torch.randn_like(audio)
    noise -= (noise * audio).sum() / audio.square().sum() * audio
    noise *= 0.1 * audio.norm() / noise.norm()
    metrics.update(0.7 * (audio + noise), audio)
    values = metrics.compute()
    assert float(values["si_sdr"]) == pytest.approx(20.0, abs=0.1)
    metrics.update(torch.zeros_like(audio), torch.zeros_like(audio))
    assert float(metrics.compute()["si_sdr"]) == pytest.approx(20.0, abs=0.1)
    metrics.reset()
    metrics.update(torch.zeros_like(audio), torch.zeros_like(audio))
    assert "si_sdr" not in metrics.compute() and float(metrics.compute()["mel_distance"]) == 0.0


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_keeps_the_sound_aligned_and_near_its_bit_rate(channels):
    generator = torch.Generator().manual_seed(0)
    audio = torch.cat([tone(440.0, seconds=2.0), tone(660.0, seconds=2.0)])[:channels, 0] * 0.8
    audio = audio + 0.01 * torch.randn(audio.shape, generator=generator)
    quality = []
    for bit_rate in (24000, 128000):
        result = code_with_opus(audio, bit_rate=bit_rate)
        assert result.audio.shape == audio.shape
        assert 0.5 * bit_rate < result.bits_per_second < 1.3 * bit_rate
        quality.append(float(10 * torch.log10(audio.square().sum() / (audio - result.audio).square().sum())))
    assert quality[1] > quality[0] and quality[1] > 15.0
    for broken in (torch.zeros(3, 100), torch.zeros(1, 0)):
        with pytest.raises(UsageError, match="given to Opus"):
            code_with_opus(broken)
    for bit_rate in (0, -5, 10**9):
        with pytest.raises(UsageError, match=f"bit_rate={bit_rate} was given"):
            code_with_opus(torch.zeros(1, 100), bit_rate=bit_rate)
    with pytest.raises(UsageError, match="44100 Hz was given to Opus"):
        code_with_opus(torch.zeros(1, 100), sample_rate=44100)


def test_a_floor_lets_silence_weigh_less() -> None:
    silence, hiss = torch.zeros(1, 1, 4800), 1e-4 * torch.randn(1, 1, 4800, generator=torch.Generator().manual_seed(0))
    for distance in (MelDistance, StftDistance):
        assert distance()(hiss, silence) > 0.5
        assert distance(log_floor=0.1)(hiss, silence) < 0.01
    with pytest.raises(UsageError, match="log_floor=0.0 was given"):
        ReconstructionLoss(log_floor=0.0)
