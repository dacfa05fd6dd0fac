"""Medians, quartiles and ratios by hand."""

import pytest

from alexnet_jax.benchmark.summary import summarise_ratios, summarise_values


def test_summarise_values_interpolates_quartiles():
    assert summarise_values('x', [4.0, 1.0, 3.0, 2.0]) == {'x': 2.5, 'x_quartiles': [1.75, 3.25]}
    assert summarise_values('x', [10.0, 20.0]) == {'x': 15.0, 'x_quartiles': [12.5, 17.5]}


def test_summarise_ratios_divides_in_each_round():
    # A machine that slows down tenfold: the ratios are 2, 3, 2, and not what the medians of each would give, 2.4.
    assert summarise_ratios('x', [2, 24, 20], [1, 8, 10]) == {'x': 2.0, 'x_quartiles': [2.0, 2.5]}
    with pytest.raises(ValueError, match='shorter'):
        summarise_ratios('x', [1, 2, 3], [1, 2])
