"""How colourful a filter is, by hand."""

import numpy as np
import pytest

from alexnet_jax.model.colour import colour_shares, tower_colours


def filters(*colours):
    """A kernel of 1x1 filters with these RGB weights."""
    return np.array(colours, np.float32).T[None, None]


@pytest.mark.parametrize(
    ('colour', 'share'),
    [
        ((1, 1, 1), 0),  # grey
        ((-2, -2, -2), 0),
        ((1, -1, 0), 1),  # red against green
        ((1, 1, -2), 1),  # yellow against blue
        ((1, 0, 0), 2 / 3),  # 1 - (1/sqrt 3)^2
        ((2, 1, 0), 1 - 9 / 3 / 5),
        ((0, 0, 0), 0),
    ],
)
def test_colour_shares_of_a_filter_of_one_pixel(colour, share):
    np.testing.assert_allclose(colour_shares(filters(colour)), [share], atol=1e-12)


def test_colour_shares_counts_places_by_their_energy():
    kernel = np.zeros((1, 2, 3, 1), np.float32)
    kernel[0, 0, :, 0] = 1, 1, 1  # energy 3, grey
    kernel[0, 1, :, 0] = 3, -3, 0  # energy 18, colour
    np.testing.assert_allclose(colour_shares(kernel), [18 / 21])


def test_colour_shares_of_random_weights_are_two_thirds():
    kernel = np.random.default_rng(0).normal(size=(11, 11, 3, 2000))
    assert abs(colour_shares(kernel).mean() - 2 / 3) < 0.002  # of standard deviation .025 / sqrt(2000)


def test_tower_colours_takes_the_first_half_for_tower_0():
    kernel = filters((1, 1, 1), (1, 0, 0), (1, -1, 0), (1, -1, 0))
    assert tower_colours(kernel) == pytest.approx({'colour_tower0': 1 / 3, 'colour_tower1': 1.0})
