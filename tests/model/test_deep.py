"""The longer chains: their sizes and initial weights by hand, what they compute by the plain network."""

import math

import jax
import numpy as np
import oracle
import pytest
from builders import draw_parameters

from alexnet_jax.model.alexnet import AlexNet, init_parameters
from alexnet_jax.model.deep import deepen
from alexnet_jax.model.spec import MaxPool, Relu, get_layer_sizes
from alexnet_jax.model.zoo import NETWORKS, PAPER, RELEASED

ENTRY, MIDDLE, LAST = 9 * 256 * 384, 9 * 192 * 384, 9 * 192 * 256  # weights of conv3, conv4 and conv5, paper 3.5


@pytest.mark.parametrize('count', [5, 10, 20])
def test_deep_networks_have_so_many_layers_of_3x3_between_conv2_and_fc6(count):
    variant = NETWORKS[f'deep{count}']
    rows = get_layer_sizes(variant, num_classes=1000)
    names = [f'conv{i}' for i in range(1, count + 3)]
    assert [row.name for row in rows] == [*names, 'fc6', 'fc7', 'fc8']
    assert [row.weights for row in rows[2 : count + 2]] == [ENTRY, *[MIDDLE] * (count - 2), LAST]
    assert [row.output for row in rows[1 : count + 2]] == [(13, 13, n) for n in (256, *[384] * (count - 1))] + [
        (6, 6, 256)
    ]
    assert sum(row.weights + row.biases for row in rows) == 60_965_224 + (count - 3) * (MIDDLE + 384)
    assert [conv.then for conv in variant.convs[2:]] == [(Relu(),)] * (count - 1) + [(Relu(), MaxPool())]
    assert variant.exchanges == ('conv3', 'fc6', 'fc7', 'fc8') and variant.divisible
    assert (variant.convs[:2], variant.dense) == (RELEASED.convs[:2], RELEASED.dense)


def test_deepen_by_three_is_the_network_itself_but_for_its_start():
    found = get_layer_sizes(deepen(PAPER, 3), num_classes=10)
    assert found == get_layer_sizes(PAPER, num_classes=10)


def test_deep_networks_start_as_he_et_al_do_at_any_width():
    """Variance 2 / (k^2 c), k 3 and c the channels that a unit reads: equation 10."""
    params = init_parameters(NETWORKS['deep5'].scaled(0.25), jax.random.key(0), num_classes=10)
    for layer, channels in {'conv3': 64, 'conv4': 48, 'conv5': 48, 'conv6': 48, 'conv7': 48}.items():
        assert params[layer]['kernel'].shape[2] == channels
        assert float(params[layer]['kernel'].std()) == pytest.approx(math.sqrt(2 / (9 * channels)), rel=0.02), layer
        assert not params[layer]['bias'].any()


def test_deep_network_equals_the_plain_one():
    variant = NETWORKS['deep5'].scaled(0.03125)
    params = draw_parameters(variant, num_classes=3)
    images = np.random.default_rng(1).normal(0, 60, (2, 224, 224, 3))

    def plain(x):
        x = oracle.FIRST['released'](oracle.conv(x, params['conv1'], stride=4, pad=((0, 3), (0, 3))))
        x = oracle.SECOND['released'](oracle.conv(x, params['conv2'], pad=((2, 2), (2, 2)), groups=2))
        for layer, groups in {'conv3': 1, 'conv4': 2, 'conv5': 2, 'conv6': 2, 'conv7': 2}.items():
            x = oracle.relu(oracle.conv(x, params[layer], pad=((1, 1), (1, 1)), groups=groups))
        x = oracle.pool(x).reshape(len(x), -1)
        for layer in ('fc6', 'fc7'):
            x = oracle.relu(x @ params[layer]['kernel'] + params[layer]['bias']) / 2
        return x @ params['fc8']['kernel'] + params['fc8']['bias']

    with jax.enable_x64(True):
        found = jax.jit(AlexNet(variant, 3).apply)({'params': params}, images)
        np.testing.assert_allclose(found, jax.jit(plain)(images), rtol=1e-10)
    assert np.ptp(found) > 1e-3
