"""Tests the specialisation against counting all assignments, and the rendering of filters."""

import itertools

import numpy as np
import pytest

from alexnet_jax.report.filters import measure_initial_share, measure_specialisation, render_filters, tile_images


def make_kernel(shares):
    """Makes 1x1 filters with these chromatic shares: sqrt(1 - s) along grey and sqrt(s) across it."""
    grey, colour = np.ones(3) / np.sqrt(3), np.array([1, -1, 0]) / np.sqrt(2)
    return np.stack([np.sqrt(1 - s) * grey + np.sqrt(s) * colour for s in shares], axis=-1)[None, None]


def test_measure_specialisation_matches_all_assignments():
    shares = [0.1, 0.3, 0.2, 0.15, 0.5, 0.25, 0.9, 0.8]
    stats = measure_specialisation(make_kernel(shares))
    np.testing.assert_allclose(stats.shares, [shares[:4], shares[4:]], atol=1e-12)
    assert stats.means == pytest.approx((0.1875, 0.6125))
    assert stats.medians == pytest.approx((0.175, 0.65))
    assert stats.difference == pytest.approx(0.425)
    chosen = [set(four) for four in itertools.combinations(range(8), 4)]
    sums = [abs(sum(shares[i] for i in range(8) if i in four) * 2 - sum(shares)) / 4 for four in chosen]
    exact = sum(value >= 0.425 - 1e-9 for value in sums) / len(sums)
    assert exact == 4 / 70  # the split itself, one as good, and both mirrored
    assert stats.p == pytest.approx(exact, abs=0.01)  # four standard deviations of 9999 draws


def test_measure_specialisation_of_equal_towers_is_zero():
    stats = measure_specialisation(make_kernel([0.2, 0.7, 0.7, 0.2]))
    assert stats.difference == pytest.approx(0, abs=1e-12)
    assert stats.p == 1.0


def test_measure_specialisation_has_few_false_positives():
    rng = np.random.default_rng(1)
    ps = [measure_specialisation(rng.normal(size=(3, 3, 3, 12)), permutations=199).p for _ in range(200)]
    assert 2 <= sum(p <= 0.05 for p in ps) <= 20  # 10 expected


def test_measure_initial_share_is_squared_cosine():
    start = np.zeros((1, 2, 1, 3))
    start[0, :, 0] = [[1, 1, 0], [0, 0, 0]]
    now = np.zeros((1, 2, 1, 3))
    now[0, :, 0] = [[-3, 1, 0], [0, 1, 2]]  # mirrored and longer; turned by 45 degrees; from nothing
    assert measure_initial_share(now, start) == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_render_filters_is_around_middle_grey():
    kernel = np.zeros((1, 2, 3, 2))
    kernel[0, 0, :, 0], kernel[0, 1, :, 0] = (0.5, 0, -0.25), (-0.5, 0.25, 0)
    images = render_filters(kernel)
    np.testing.assert_array_equal(images[0], [[[255, 128, 64], [0, 191, 128]]])
    assert (images[1] == 128).all()  # a filter of zeros


@pytest.mark.parametrize(('count', 'columns'), [(48, 16), (24, 12), (7, 7), (34, 16)])
def test_tile_images_fills_rows_where_possible(count, columns):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(11, 1).repeat(11, 2).repeat(3, 3)
    sheet = tile_images(images, max_columns=16)
    assert sheet.shape == (-(-count // columns) * 59 - 4, min(count, columns) * 59 - 4, 4)
    assert tuple(sheet[54, 54]) == (0, 0, 0, 255) and tuple(sheet[0, 55]) == (0, 0, 0, 0)
    assert tuple(sheet[0, 59]) == (1, 1, 1, 255)
    if count > columns:
        assert tuple(sheet[59, 0]) == (columns,) * 3 + (255,)
