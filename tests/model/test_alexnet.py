"""The Flax module against the plain network, in float64, and the geometry of its input."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from builders import draw_parameters
from jax import lax

from alexnet_jax.model import ops_cpu
from alexnet_jax.model.alexnet import AlexNet, init_parameters
from alexnet_jax.model.ops import DropoutStream
from alexnet_jax.model.zoo import PAPER, VARIANTS
from experiments.fidelity_tables import MAIN_NETWORKS

WIDTH, CLASSES = 0.0625, 7


@pytest.fixture(scope='module')
def batch():
    random = np.random.default_rng(1)
    return random.standard_normal((3, 227, 227, 3)) * 60, random.integers(0, CLASSES, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'train'),
    [
        # Every network but the author's ablations; Caffe's two differ in one place.
        *(pytest.param(name, False, marks=[pytest.mark.repeats] * (name == 'caffe_alexnet')) for name in MAIN_NETWORKS),
        *((name, True) for name in ('released', 'caffe_alexnet', 'one_weird_trick')),  # the three kinds of dropout
        *(pytest.param(name, True, marks=pytest.mark.repeats) for name in ('paper', 'caffenet')),
    ],
)
def test_alexnet_has_the_logits_of_the_plain_network(name, train, batch):
    variant = VARIANTS[name].scaled(WIDTH)
    images = batch[0][:, : variant.input_size, : variant.input_size]
    dropped = [6 * 6 * variant.convs[-1].features, 256] if name == 'one_weird_trick' else [256, 256]
    key, drawn = jax.random.key(5), draw_parameters(variant, num_classes=CLASSES)
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, drawn)
        stream = DropoutStream(key, jnp.arange(3), jnp.arange(2)) if train else None
        found = AlexNet(variant, CLASSES).apply({'params': params}, jnp.asarray(images), stream)
        for_cpu = AlexNet(variant, CLASSES, operations=ops_cpu).apply({'params': params}, jnp.asarray(images), stream)
        masks = oracle.dropout_masks(key, 3, dropped) if train else None
        expected = oracle.network(name, params, jnp.asarray(images), masks)
    assert expected.dtype == np.float64
    assert np.ptp(expected, axis=0).min() > 0  # the images are told apart
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(for_cpu, expected, rtol=1e-12)


def test_224_with_three_zeros_after_it_is_the_227_view():
    conv1 = PAPER.convs[0]
    random = np.random.default_rng(2)
    view, kernel = random.standard_normal((1, 224, 224, 3)), random.standard_normal((11, 11, 3, 4))
    seen_by_ports = np.zeros((1, 227, 227, 3))
    seen_by_ports[:, :224, :224] = view
    layout = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}
    with jax.enable_x64(True):
        ours = lax.conv_general_dilated(jnp.asarray(view), jnp.asarray(kernel), (4, 4), conv1.padding, **layout)
        theirs = lax.conv_general_dilated(jnp.asarray(seen_by_ports), jnp.asarray(kernel), (4, 4), 'VALID', **layout)
    assert ours.shape == (1, 55, 55, 4)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_init_parameters_has_the_variant_s_spread_and_biases():
    variant = VARIANTS['released'].scaled(0.125)
    params = init_parameters(variant, jax.random.key(0), num_classes=10)
    for layer in (*variant.convs, *variant.dense):
        kernel, bias = params[layer.name]['kernel'], params[layer.name]['bias']
        np.testing.assert_allclose(kernel.std(), layer.init_std, rtol=0.05)
        assert abs(float(kernel.mean())) < 4 * layer.init_std / kernel.size**0.5
        np.testing.assert_array_equal(bias, np.full(bias.shape, layer.init_bias, 'f4'))
