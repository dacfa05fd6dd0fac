"""The prediction's arithmetic, by hand."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from alexnet_jax.communication.cost_model import Cost, TooLargeError, compile_for, format_prediction, predict
from alexnet_jax.communication.messages import Message

# A v5e chip: 197 TFLOP/s, 819 GB/s, 50 GB/s a link.
COST = Cost(operations=197e9, traffic=2 * 819_000_000, arguments=10, temporaries=20, code=3)


def towers_on_2x2():
    devices = np.empty(4, object)
    devices[:] = [types.SimpleNamespace(coords=(x, y, 0)) for y in (0, 1) for x in (0, 1)]
    return types.SimpleNamespace(
        devices=devices.reshape(2, 2), axis_names=('data', 'tower'), shape={'data': 2, 'tower': 2}
    )


def message(axis, size):
    return Message('', 'all-reduce', axis, 'backward', (size,), 'float32', size)


def test_predict_divides_each_amount_by_its_published_rate():
    said = [message('tower', 50_000_000), message('data', 25_000_000), message('data,tower', 100_000_000)]
    found = predict(COST, said, towers_on_2x2(), 'v5e:2x2')
    assert found.compute == pytest.approx(1e-3)
    assert found.memory == pytest.approx(2e-3)
    # One link leads to the other tower, one to the other replica, two to all the others: 50, 25 and 50 MB a link.
    assert found.link_bytes == {'tower': 50_000_000, 'data': 25_000_000, 'data,tower': 50_000_000}
    assert found.links == pytest.approx(2.5e-3)
    assert found.step == pytest.approx(4.5e-3)  # memory and links
    assert found.bound == 'links'
    assert COST.memory == 33


@pytest.mark.parametrize(
    ('operations', 'traffic', 'step', 'bound'), [(197e9, 2 * 819_000_000, 2e-3, 'memory'), (591e9, 0, 3e-3, 'compute')]
)
def test_predict_without_messages_takes_the_larger_of_arithmetic_and_memory(operations, traffic, step, bound):
    cost = dataclasses.replace(COST, operations=operations, traffic=traffic)
    found = predict(cost, [], towers_on_2x2(), 'v5e:2x2')
    assert (found.links, found.bound) == (0, bound)
    assert found.step == pytest.approx(step)


class Lowered:
    def __init__(self, error):
        self.error = error

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.error)


def test_compile_for_says_in_one_line_that_a_chip_is_too_small():
    large = Lowered('RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm.\nMore')
    with pytest.raises(TooLargeError, match=r'does not fit into a chip .* use more chips or fewer images') as found:
        compile_for(large, None)
    assert '\n' not in found.value.args[0]
    with pytest.raises(jax.errors.JaxRuntimeError):  # all else is a bug
        compile_for(Lowered('INTERNAL: no'), None)


def test_format_prediction_has_every_term():
    predicted = predict(COST, [message('tower', 50_000_000)], towers_on_2x2(), 'v5e:2x2')
    text = format_prediction(COST, predicted, 'v5e:2x2', images=3000)
    assert 'a prediction: nothing was run' in text
    assert '197.0 GFLOP' in text and '1.000 ms' in text
    assert '1.64 GB' in text and '2.000 ms' in text
    assert 'link, tower' in text and '50.00 MB' in text
    assert 'predicted step: 3.000 ms, bound by memory; 1,000,000 images/s' in text
