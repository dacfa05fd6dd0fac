"""Every image's probabilities against a slow computation, on every mesh."""

import numpy as np
import pytest
from random_networks import network_of, slow_probabilities

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.open_networks import make_predictor
from alexnet_jax.sharding.mesh import make_mesh


@pytest.fixture(scope='module')
def validation(tiny):
    return tiny.records('validation')


@pytest.fixture(scope='module')
def slow(validation):
    network = network_of()
    expected = {protocol: slow_probabilities(network, validation, protocol) for protocol in ('centre', 'ten_view')}
    assert np.abs(expected['centre'] - expected['ten_view']).max() > 1e-2  # one is not taken for the other
    assert len({int(row.argmax()) for row in expected['ten_view']}) > 1
    return network, expected


@pytest.mark.usefixtures('optimised')
@pytest.mark.repeats  # of test_evaluator.py, in float64, and of the commands' tests, through make_predictor
@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_make_predictor_equals_the_plain_network_on_every_mesh(slow, validation, shape):
    """13 images in batches of 4: the last one is filled up. float32 against float64."""
    network, expected = slow
    predict, told = make_predictor(network, make_mesh(*shape), validation, batch_size=4), []
    for protocol, rows in expected.items():
        found = predict(protocol=protocol, progress=told.append)
        np.testing.assert_allclose(found.probabilities, rows, rtol=0, atol=2e-5)
        np.testing.assert_array_equal(found.labels, [label for _, label in validation])
        assert (found.probabilities.dtype, found.labels.dtype) == (np.float32, np.int32)
    assert told == [4, 8, 12, 13] * 2


def test_make_predictor_refuses_what_a_mesh_cannot_share(validation):
    with pytest.raises(InputError, match='has no two towers that could live apart: use --mesh=1,1'):
        make_predictor(network_of('caffenet'), make_mesh(1, 2), validation, batch_size=4)
    with pytest.raises(InputError, match='a batch of 3 does not divide over 2 devices: use a multiple of 2'):
        make_predictor(network_of(), make_mesh(2, 1), validation, batch_size=3)
