"""What neighbours take from a response, by hand, and that the forms are those of their programs."""

import numpy as np
import pytest

from alexnet_jax.model.spec import ChannelNorm
from alexnet_jax.model.zoo import VARIANTS
from experiments.lateral_inhibition import get_norm, measure_inhibition, weighted_mean


def test_measure_inhibition_counts_neighbours_in_the_window_and_the_tower_alone():
    x = np.zeros((1, 1, 8), np.float32)
    x[0, 0, [0, 1, 4]] = 3, 4, 5  # channel 4 is the first of the other tower
    norm = ChannelNorm(3, 1.0, 1.0, 0.5)
    found = measure_inhibition(x, norm)[0, 0]
    # Of 3: sqrt(1 + 9) alone, sqrt(1 + 9 + 16) beside 4. Of 4: sqrt(17) and sqrt(26). Of 5 nothing.
    assert found[[0, 1, 4]] == pytest.approx([1 - (10 / 26) ** 0.5, 1 - (17 / 26) ** 0.5, 0], abs=1e-6)
    assert np.isnan(found[[2, 3, 5, 6, 7]]).all()
    assert weighted_mean(found, x[0, 0]) == pytest.approx((3 * found[0] + 4 * found[1]) / 12)
    whole = measure_inhibition(x, ChannelNorm(9, 1.0, 1.0, 0.5, across_towers=True))[0, 0]
    assert whole[4] == pytest.approx(1 - (26 / 51) ** 0.5, abs=1e-6)


def test_get_norm_has_the_order_and_the_neighbourhood_of_each_program():
    found = {name: get_norm(VARIANTS[name]) for name in ('paper', 'released', 'caffe_alexnet')}
    assert {name: (norm.k, norm.alpha, norm.across_towers, relu) for name, (norm, relu) in found.items()} == {
        'paper': (2, 1e-4, False, True),
        'released': (2, 2e-5, False, False),
        'caffe_alexnet': (1, pytest.approx(1e-4 / 5), True, True),
    }
