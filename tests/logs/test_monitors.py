import math
import re
import time

import pytest

from alexnet_jax.logs.monitors import WINDOW, LossMonitor, NonFiniteError, StepMonitor


@pytest.mark.parametrize('loss', [math.nan, math.inf])
def test_loss_monitor_raises_on_nan_and_names_the_step(loss):
    watch = LossMonitor(10)
    assert watch.check(41, 2.0) is None
    with pytest.raises(NonFiniteError, match='at step 42'):
        watch.check(42, loss)


def test_loss_monitor_warns_once_when_the_loss_stays_at_the_logarithm_of_the_classes():
    watch = LossMonitor(1000)
    said = [watch.check(step, 6.9) for step in range(1, 3 * WINDOW)]
    warnings = [text for text in said if text]
    assert len(warnings) == 1
    assert said[WINDOW - 1] == warnings[0]
    assert 'ln(classes) = 6.908' in warnings[0]
    assert 'biases of 1' in warnings[0]


def test_loss_monitor_does_not_warn_when_the_network_learns():
    watch = LossMonitor(1000)
    assert not any(watch.check(step, 6.9 - 0.004 * step) for step in range(1, 3 * WINDOW))


def test_step_monitor_warns_once_of_a_slow_step_and_says_when_it_ends():
    said = []
    with StepMonitor(said.append, least=0.3) as watch:
        for step in range(1, 8):
            watch.end_step(step)
            time.sleep(0.01)
        assert said == []
        time.sleep(1.0)
        assert len(said) == 1
        assert re.match(r'warning: step 8 has taken \d s, the median is 0\.0\d s', said[0])
        watch.end_step(8)
        assert said[1:] == ['step 8 ended after 1 s']


def test_step_monitor_ignores_what_is_no_step():
    said = []
    with StepMonitor(said.append, least=0.1) as watch:
        for step in range(1, 8):
            watch.end_step(step)
        watch.pause()
        time.sleep(0.6)
    assert said == []
