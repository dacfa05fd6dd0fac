"""Every image's probabilities against a slow computation, on every mesh; ensembles."""

import jax
import numpy as np
import oracle
import pytest

from alexnet_jax import InputError
from alexnet_jax.data.decode import decode
from alexnet_jax.evaluation.predictions import Predictor, predict_split
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.parallel.mesh import make_mesh

CLASSES = ('blue', 'green', 'red')


def network_of(variant='released', *, width=0.0625, seed=0, side=224, classes=CLASSES):
    """Random, and strong enough that images differ in what they are taken for."""
    name = NetworkName(variant, width)
    params = init_parameters(name.build(), jax.random.key(seed), num_classes=len(classes))
    params = jax.tree.map(lambda leaf: np.asarray(leaf) * 2, params)
    random = np.random.default_rng(seed)
    params['fc8']['kernel'] = random.normal(0, 0.1, params['fc8']['kernel'].shape).astype(np.float32)
    params['fc8']['bias'] = -params['fc8']['kernel'].sum(axis=0) / 2
    mean = random.uniform(90, 130, (side, side, 3)).astype(np.float32)
    return Network(name=name, params=params, mean_image=mean, classes=classes, source='random')


def slow_probabilities(network, records, protocol):
    """(n, classes): image by image and view by view, with the plain network in float64 and NumPy's softmax."""
    name, side = network.name.variant, network.mean_image.shape[0]
    end = 256 - side
    middle = (end // 2, end // 2)
    corners = [(0, 0), (0, end), (end, 0), (end, end), middle]
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network.params)
        plain = jax.jit(lambda x: oracle.network(name, params, x, None))
        rows = []
        for jpeg, _ in records:
            image, found = decode(jpeg).astype(np.float64), []
            for top, left in [middle] if protocol == 'centre' else corners:
                view = image[top : top + side, left : left + side]
                for x in [view] if protocol == 'centre' else [view, view[:, ::-1]]:
                    logits = np.asarray(plain((x - network.mean_image)[None]))[0]
                    powers = [np.exp(logit - max(logits)) for logit in logits]
                    found.append([power / sum(powers) for power in powers])
            rows.append([sum(column) / len(found) for column in zip(*found, strict=True)])
    return np.array(rows)


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


@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_all_rows_equal_the_plain_network_on_every_mesh(slow, validation, shape):
    """13 images in batches of 4: the last one is filled up. float32 against float64."""
    network, expected = slow
    predictor, told = Predictor(network, make_mesh(*shape), validation, batch_size=4), []
    for protocol, rows in expected.items():
        found = predictor.predict(protocol, progress=told.append)
        np.testing.assert_allclose(found.probabilities, rows, rtol=0, atol=2e-5)
        np.testing.assert_array_equal(found.labels, [label for _, label in validation])
        assert (found.probabilities.dtype, found.labels.dtype) == (np.float32, np.int32)
    assert told == [4, 8, 12, 13] * 2


def test_what_a_mesh_cannot_share_is_one_line(validation):
    arguments = {'protocol': 'centre', 'batch_size': 4}
    with pytest.raises(InputError, match='has no two towers that could live apart: use --mesh=1,1'):
        predict_split(network_of('caffenet', side=227), make_mesh(1, 2), validation, **arguments)
    with pytest.raises(InputError, match='a batch of 3 does not divide over 2 devices: use a multiple of 2'):
        predict_split(network_of(), make_mesh(2, 1), validation, **arguments | {'batch_size': 3})
