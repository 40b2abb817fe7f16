"""Windows and the paper's segmentation (6.1.5, figure 29)."""

import numpy as np
import pytest
import scipy.signal
import torch

from moviegen_core.flow.windows import Segments, Window, Windows, bartlett

SIZES = [(16, 4, 0), (17, 4, 2), (5, 8, 3), (9, 4, 1), (30, 10, 5), (31, 10, 8), (7, 1, 0), (1, 5, 2), (12, 2, 1)]


@pytest.mark.parametrize("size", [2, 3, 20, 1000])
def test_triangle_is_the_papers_bartlett_window(size):
    n = np.arange(size)
    formula = 2 / (size - 1) * ((size - 1) / 2 - np.abs(n - (size - 1) / 2))
    np.testing.assert_allclose(bartlett(size), formula, atol=1e-6)
    np.testing.assert_allclose(bartlett(size), scipy.signal.windows.bartlett(size), atol=1e-6)
    assert bartlett(size)[0] == 0.0 and bartlett(size)[-1] == 0.0


def test_window_of_one_position():
    assert bartlett(1).tolist() == [1.0]


def test_segments_of_figure_29():
    segments = Segments(size=20, overlap=5, shape="triangular")(30)
    assert [(s.start, s.stop) for s in segments] == [(0, 15), (10, 30)]


@pytest.mark.parametrize(("length", "size", "overlap"), SIZES)
def test_segments_follow_the_papers_formula(length, size, overlap):
    hop = size - overlap
    expected = [(max(0, (j - 1) * hop - overlap), min(length, j * hop)) for j in range(1, -(-length // hop) + 1)]
    segments = Segments(size=size, overlap=overlap)(length)
    assert [(s.start, s.stop) for s in segments] == expected
    assert all(1 <= s.size <= size for s in segments)


@pytest.mark.parametrize("kind", [Windows, Segments])
@pytest.mark.parametrize("shape", ["linear", "triangular", "uniform"])
@pytest.mark.parametrize(("length", "size", "overlap"), SIZES)
def test_masks_sum_to_one_everywhere_and_blend_to_the_identity(kind, shape, length, size, overlap):
    windows = kind(size=size, overlap=overlap, shape=shape)
    total = torch.zeros(length)
    for window, mask in zip(windows(length), windows.masks(length), strict=True):
        assert mask.isfinite().all() and (mask >= 0).all()
        total[window.start : window.stop] += mask
    torch.testing.assert_close(total, torch.ones(length))
    whole = torch.randn(2, 3, length, 2)
    parts = [whole[:, :, w.start : w.stop] for w in windows(length)]
    torch.testing.assert_close(windows.blend(parts, length, dim=2), whole)
    if 2 * overlap <= size:
        torch.testing.assert_close(torch.cat(list(windows.stream(iter(parts), length, dim=2)), dim=2), whole)


def test_masks_of_figure_29_cross_fade():
    # Right column of the figure, below: weights on [10, 15) go from one segment to the other; the second's first weight is an exact zero.
    first, second = Segments(size=20, overlap=5, shape="triangular").masks(30)
    torch.testing.assert_close(first[10:], torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    torch.testing.assert_close(second[:5], torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert second[0] == 0.0 and first[-1] == 0.0
    assert (first[:10] == 1.0).all() and (second[5:] == 1.0).all()  # also at the ends, where the window itself is zero
    first, second = Segments(size=20, overlap=5, shape="uniform").masks(30)
    assert (first[10:] == 0.5).all() and (second[:5] == 0.5).all()


def test_where_all_weights_are_zero_windows_count_alike():
    # One shared position is the last of one window and the first of the next: Bartlett gives it 0 / 0.
    first, second = Windows(size=5, overlap=1, shape="triangular").masks(9)
    assert first[-1] == 0.5 and second[0] == 0.5


def test_cut_windows_keep_the_weights_of_full_ones():
    windows = Windows(size=9, overlap=3, shape="triangular")
    last = windows(13)[-1]
    assert last == Window(6, 13)
    torch.testing.assert_close(windows.weights(last, 13), bartlett(9)[:7])
    segments = Segments(size=9, overlap=3, shape="triangular")
    torch.testing.assert_close(segments.weights(segments(13)[0], 13), bartlett(9)[3:])


def test_overlaps_beyond_half_a_window():
    segments = Segments(size=8, overlap=6)(9)
    assert [(s.start, s.stop, s.skipped) for s in segments] == [(0, 2, 6), (0, 4, 4), (0, 6, 2), (0, 8, 0), (2, 9, 0)]
