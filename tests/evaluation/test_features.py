"""Features of single stages against the plain network, on meshes."""

import jax
import numpy as np
import oracle
import pytest
from random_networks import network_of
from simplejpeg import decode_jpeg

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import find_stage, format_stages, iter_features
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh


@pytest.fixture(scope='module')
def network():
    return network_of()


@pytest.fixture(scope='module')
def expected(network, tiny):
    """By the plain network's functions: some stages of all 13 validation images' centre crops."""
    images = np.stack([decode_jpeg(jpeg)[16:240, 16:240] for jpeg, _ in tiny.records('validation')]).astype(np.float32)
    p = network.params

    @jax.jit
    def plain(x):
        conv1 = oracle.FIRST['released'](oracle.conv(x, p['conv1'], stride=4, pad=((0, 3), (0, 3))))
        x = conv2 = oracle.SECOND['released'](oracle.conv(conv1, p['conv2'], pad=((2, 2), (2, 2)), groups=2))
        for name, groups in (('conv3', 1), ('conv4', 2), ('conv5', 2)):
            x = oracle.relu(oracle.conv(x, p[name], pad=((1, 1), (1, 1)), groups=groups))
        fc6 = oracle.relu(oracle.pool(x).reshape(len(x), -1) @ p['fc6']['kernel'] + p['fc6']['bias']) * 0.5
        fc7 = oracle.relu(fc6 @ p['fc7']['kernel'] + p['fc7']['bias']) * 0.5
        return {'conv2': conv2, 'conv5/relu': x, 'fc7': fc7, 'fc8': fc7 @ p['fc8']['kernel'] + p['fc8']['bias']}

    return plain(images - network.mean_image)


@pytest.mark.parametrize(
    ('shape', 'layer'),
    [  # a convolution's halves, a dense layer's, and fc8, which both devices have whole
        ((1, 2), 'conv2'),
        ((2, 2), 'fc7'),
        ((1, 2), 'fc8'),
        pytest.param((1, 1), 'conv5/relu', marks=pytest.mark.repeats),
    ],
)
def test_iter_features_equals_the_plain_network(network, tiny, expected, shape, layer):
    """Towers put together in their order, units halved, 13 images in batches of 4."""
    records, told = tiny.records('validation'), []
    stage = find_stage(network.variant, layer)
    found = list(iter_features(network, make_mesh(*shape), records, stage=stage, batch_size=4, progress=told.append))
    rows = np.concatenate([rows for rows, _ in found])
    scale = np.abs(expected[layer]).max()
    assert scale > 0.1
    np.testing.assert_allclose(rows / scale, expected[layer] / scale, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in found]), [label for _, label in records])
    assert told == [4, 8, 12, 13]


def test_find_stage_takes_a_layer_for_its_last_stage():
    assert find_stage(VARIANTS['released'], 'conv1') == 'conv1/relu'
    assert find_stage(VARIANTS['paper'], 'conv1') == 'conv1/pool'
    assert find_stage(VARIANTS['paper'], 'conv1/norm') == 'conv1/norm'
    assert find_stage(VARIANTS['one_weird_trick'], 'fc7') == 'fc7/relu'
    for layer in ('pool5', 'conv', 'fc7/', ''):
        with pytest.raises(InputError, match='--layer=help lists them'):
            find_stage(VARIANTS['paper'], layer)


def test_format_stages_lists_all(network):
    lines = format_stages(network).splitlines()
    assert len(lines) == 23
    assert lines[2].split() == ['conv1/pool', '27x27x6', '4,374']
    assert lines[-2].split() == ['fc7/dropout', '256', '256', '=', 'fc7']
