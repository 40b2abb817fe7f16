"""Which samples are kept, which latent frames are known by them, and how kept and generated sound join."""

import pytest
import torch

from moviegen_audio.infilling import join, kept_outside, known_frames
from moviegen_core.errors import UsageError


def test_spans_in_seconds_to_samples():
    kept = kept_outside([(0.1, 0.2), (0.15, 0.3), (0.9, 1.0)], 100, 100)
    assert (~kept).nonzero().flatten().tolist() == [*range(10, 30), *range(90, 100)]


@pytest.mark.parametrize("span", [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5), (0.2, float("inf"))])
def test_spans_that_are_none_are_refused(span):
    with pytest.raises(UsageError, match="the sound lasts 1 s"):
        kept_outside([span], 100, 100)


def test_a_latent_frame_is_known_where_all_of_its_samples_are_kept():
    kept = torch.ones(2, 23, dtype=torch.bool)
    kept[0, 9] = False  # the last sample of the second frame
    kept[1, 22] = False
    assert known_frames(kept, 5).tolist() == [[True, False, True, True, True], [True, True, True, True, False]]


def wave(num_samples=400):
    return 0.8 * torch.sin(torch.arange(num_samples) * 0.05).expand(2, 1, -1).clone()


def test_kept_samples_are_bit_for_bit_and_edges_do_not_jump():
    sound, kept = wave(), torch.ones(2, 400, dtype=torch.bool)
    kept[0, 150:250] = False
    kept[1, :80] = False
    kept[1, 300:] = False
    generated = sound * 0.9 + 0.05  # what a poor autoencoder makes of it
    made = join(sound, generated, kept, fade=30)
    assert torch.equal(made.masked_select(kept[:, None]), sound.masked_select(kept[:, None]))
    steps, plain = (torch.where(kept[:, None], sound, x).diff(dim=2).abs() for x in (made, generated))
    assert plain.max() > 0.08 > 0.05 > steps.max()
    assert torch.equal(made[0, 0, 180:220], generated[0, 0, 180:220]) and torch.equal(made[1, 0, :50], generated[1, 0, :50])


def test_what_the_gap_holds_does_not_matter():
    kept = torch.ones(2, 400, dtype=torch.bool)
    kept[:, 100:200] = False
    generated = wave() * 0.9
    other = wave()
    other[:, :, 100:200] = float("nan")
    assert torch.equal(join(wave(), generated, kept, 20), join(other, generated, kept, 20))


@pytest.mark.parametrize("fade", [0, 1, 1000])
@pytest.mark.parametrize("gap", [(0, 1), (399, 400), (10, 11), (10, 13), (0, 400), (1, 399)])
def test_any_gap_and_any_fade(gap, fade):
    kept = torch.ones(2, 400, dtype=torch.bool)
    kept[:, slice(*gap)] = False
    made = join(wave(), wave() * 0.5, kept, fade)
    assert made.isfinite().all() and made.abs().max() <= 1.0
    assert torch.equal(made.masked_select(kept[:, None]), wave().masked_select(kept[:, None]))


def test_stereo_and_gaps_of_each_sample():
    sound, kept = wave().repeat(1, 2, 1), torch.rand(2, 400, generator=torch.Generator().manual_seed(0)) > 0.3
    made = join(sound, sound * 0.7, kept, 5)
    assert torch.equal(made.masked_select(kept[:, None]), sound.masked_select(kept[:, None]))
