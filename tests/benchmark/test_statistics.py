"""Medians, quartiles and ratios by hand."""

import pytest

from alexnet_jax.benchmark.statistics import Spread, ratios


def test_quartiles_are_interpolated_between_the_values():
    assert Spread.of([4.0, 1.0, 3.0, 2.0]) == Spread(median=2.5, low=1.75, high=3.25)
    assert Spread.of([10.0, 20.0]) == Spread(median=15.0, low=12.5, high=17.5)


def test_ratios_are_taken_in_each_round():
    # A machine that slows down tenfold: the ratios are 2, 3, 2, and not what the medians of each would give, 2.4.
    assert ratios([2, 24, 20], [1, 8, 10]) == Spread(median=2.0, low=2.0, high=2.5)
    with pytest.raises(ValueError, match='shorter'):
        ratios([1, 2, 3], [1, 2])
