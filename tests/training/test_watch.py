import math

import pytest

from alexnet_jax.training.watch import WINDOW, Diverged, LossWatch


@pytest.mark.parametrize('loss', [math.nan, math.inf])
def test_stops_on_nan_and_names_the_step(loss):
    watch = LossWatch(10)
    assert watch.look(41, 2.0) is None
    with pytest.raises(Diverged, match='at step 42'):
        watch.look(42, loss)


def test_warns_once_when_the_loss_stays_at_the_logarithm_of_the_classes():
    watch = LossWatch(1000)
    said = [watch.look(step, 6.9) for step in range(1, 3 * WINDOW)]
    warnings = [text for text in said if text]
    assert len(warnings) == 1
    assert said[WINDOW - 1] == warnings[0]
    assert 'ln(classes) = 6.908' in warnings[0]
    assert 'biases of 1' in warnings[0]


def test_does_not_warn_when_the_network_learns():
    watch = LossWatch(1000)
    assert not any(watch.look(step, 6.9 - 0.004 * step) for step in range(1, 3 * WINDOW))
