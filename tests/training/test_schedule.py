"""Learning-rate schedules against hand-written sequences."""

import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.training.schedule import Plateau, fixed_drops, on_plateau, update_plateau


def test_fixed_drops_drops_at_its_steps():
    rate = fixed_drops(0.01, factor=0.1, at_steps=(3, 5))
    found = [float(rate(jnp.int32(step), Plateau.start())) for step in range(7)]
    np.testing.assert_allclose(found, [1e-2, 1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)


def test_fixed_drops_without_steps_is_constant():
    rate = fixed_drops(0.02, factor=0.1, at_steps=())
    assert float(rate(jnp.int32(10**6), Plateau.start())) == pytest.approx(0.02)


def test_update_plateau_divides_when_the_error_stops_improving():
    errors = [0.9, 0.8, 0.8, 0.85, 0.7, 0.71, 0.72, 0.70, 0.69, 0.8, 0.8, 0.8, 0.8]
    #         best best 1    2:drop best 1    2:drop  1    best 1    2:drop 1   2:no more than three
    expected_drops = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]
    rate, plateau, found = on_plateau(0.01, factor=0.1), Plateau.start(), []
    for error in errors:
        plateau = update_plateau(plateau, error, patience=2, max_drops=3)
        found.append(int(plateau.drops))
        np.testing.assert_allclose(rate(jnp.int32(0), plateau), 0.01 * 0.1 ** found[-1], rtol=1e-6)
    assert found == expected_drops
    assert float(plateau.best_error) == pytest.approx(0.69)
