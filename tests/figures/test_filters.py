"""The statistic of specialisation against counting by hand, and the sheet of filters."""

import itertools

import numpy as np
import pytest

from alexnet_jax.figures.filters import filter_pictures, memory_of_start, sheet, specialisation


def kernel_of(shares):
    """1x1 filters with these chromatic shares: sqrt(1 - s) along grey and sqrt(s) across it."""
    grey, colour = np.ones(3) / np.sqrt(3), np.array([1, -1, 0]) / np.sqrt(2)
    return np.stack([np.sqrt(1 - s) * grey + np.sqrt(s) * colour for s in shares], axis=-1)[None, None]


def test_the_statistic_is_that_of_all_assignments():
    shares = [0.1, 0.3, 0.2, 0.15, 0.5, 0.25, 0.9, 0.8]
    found = specialisation(kernel_of(shares))
    np.testing.assert_allclose(found.shares, [shares[:4], shares[4:]], atol=1e-12)
    assert found.means == pytest.approx((0.1875, 0.6125))
    assert found.medians == pytest.approx((0.175, 0.65))
    assert found.difference == pytest.approx(0.425)
    chosen = [set(four) for four in itertools.combinations(range(8), 4)]
    sums = [abs(sum(shares[i] for i in range(8) if i in four) * 2 - sum(shares)) / 4 for four in chosen]
    exact = sum(value >= 0.425 - 1e-9 for value in sums) / len(sums)
    assert exact == 4 / 70  # the split itself, one as good, and both mirrored
    assert found.p == pytest.approx(exact, abs=0.01)  # four standard deviations of 9999 draws


def test_towers_that_are_alike():
    found = specialisation(kernel_of([0.2, 0.7, 0.7, 0.2]))
    assert found.difference == pytest.approx(0, abs=1e-12)
    assert found.p == 1.0


def test_chance_is_seldom_taken_for_specialisation():
    random = np.random.default_rng(1)
    ps = [specialisation(random.normal(size=(3, 3, 3, 12)), permutations=199).p for _ in range(200)]
    assert 2 <= sum(p <= 0.05 for p in ps) <= 20  # 10 expected


def test_memory_of_the_start():
    start = np.zeros((1, 2, 1, 3))
    start[0, :, 0] = [[1, 1, 0], [0, 0, 0]]
    now = np.zeros((1, 2, 1, 3))
    now[0, :, 0] = [[-3, 1, 0], [0, 1, 2]]  # mirrored and longer; turned by 45 degrees; from nothing
    assert memory_of_start(now, start) == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_a_filter_is_drawn_around_middle_grey():
    kernel = np.zeros((1, 2, 3, 2))
    kernel[0, 0, :, 0], kernel[0, 1, :, 0] = (0.5, 0, -0.25), (-0.5, 0.25, 0)
    pictures = filter_pictures(kernel)
    np.testing.assert_array_equal(pictures[0], [[[255, 128, 64], [0, 191, 128]]])
    assert (pictures[1] == 128).all()  # a filter of zeros


@pytest.mark.parametrize(('count', 'columns'), [(48, 16), (24, 12), (7, 7), (34, 16)])
def test_a_sheet_fills_its_rows_where_it_can(count, columns):
    pictures = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(11, 1).repeat(11, 2).repeat(3, 3)
    found = sheet(pictures, most_columns=16)
    assert found.shape == (-(-count // columns) * 59 - 4, min(count, columns) * 59 - 4, 4)
    assert tuple(found[54, 54]) == (0, 0, 0, 255) and tuple(found[0, 55]) == (0, 0, 0, 0)
    assert tuple(found[0, 59]) == (1, 1, 1, 255)
    if count > columns:
        assert tuple(found[59, 0]) == (columns,) * 3 + (255,)
