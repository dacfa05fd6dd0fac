"""What the stages of the networks are called and what they hold, against the plain network's own functions."""

import functools

import jax
import numpy as np
import oracle
import pytest

from alexnet_jax.model.ablations import ablate
from alexnet_jax.model.alexnet import (
    INTERMEDIATES,
    AlexNet,
    get_parameter_shapes,
    get_stage_shapes,
    init_parameters,
    list_stages,
)
from alexnet_jax.model.zoo import VARIANTS

WIDTH = 0.0625


@pytest.mark.parametrize('name', sorted(VARIANTS))
def test_list_stages_names_what_is_sown(name):
    variant = VARIANTS[name].scaled(WIDTH)
    params = get_parameter_shapes(variant, num_classes=3)
    images = jax.ShapeDtypeStruct((1, variant.input_size, variant.input_size, 3), np.float32)
    apply = functools.partial(AlexNet(variant, 3).apply, mutable=[INTERMEDIATES])
    sown = jax.eval_shape(apply, {'params': params}, images)[1][INTERMEDIATES]
    assert sorted(list_stages(variant)) == sorted(sown)


def test_get_stage_shapes_of_the_published_network():
    """Notes of the paper's section 3.5 and CHM layers/layers-145.cfg: the order of the first two layers is its own."""
    shapes = get_stage_shapes(VARIANTS['released'], num_classes=1000)
    assert list(shapes.items()) == [
        *[(f'conv1/{stage}', (55, 55, 96)) for stage in ('linear', 'norm')],
        *[(f'conv1/{stage}', (27, 27, 96)) for stage in ('pool', 'relu')],
        *[(f'conv2/{stage}', (27, 27, 256)) for stage in ('linear', 'relu', 'norm', 'spatial_norm')],
        ('conv2/pool', (13, 13, 256)),
        *[(f'{layer}/{stage}', (13, 13, 384)) for layer in ('conv3', 'conv4') for stage in ('linear', 'relu')],
        *[(f'conv5/{stage}', (13, 13, 256)) for stage in ('linear', 'relu')],
        ('conv5/pool', (6, 6, 256)),
        *[(f'{layer}/{stage}', (4096,)) for layer in ('fc6', 'fc7') for stage in ('linear', 'relu', 'dropout')],
        ('fc8/linear', (1000,)),
    ]
    assert 'conv1/norm' not in list_stages(ablate(VARIANTS['released'], ('norm',)))
    assert 'fc6/tanh' in list_stages(ablate(VARIANTS['released'], ('relu',)))


@pytest.mark.slow
def test_stages_hold_what_their_names_say():
    """Units are halved in testing; a stage's input is the one before it."""
    variant = VARIANTS['released'].scaled(WIDTH)
    params = init_parameters(variant, jax.random.key(0), num_classes=3)
    images = np.random.default_rng(0).uniform(-128, 128, (2, 224, 224, 3)).astype(np.float32)
    logits, sown = jax.jit(lambda x: AlexNet(variant, 3).apply({'params': params}, x, mutable=[INTERMEDIATES]))(images)
    sown = sown[INTERMEDIATES]
    first = oracle.conv(images, params['conv1'], stride=4, pad=((0, 3), (0, 3)))
    close = {'rtol': 1e-4, 'atol': 1e-5}
    np.testing.assert_allclose(sown['conv1/linear'], first, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sown['conv1/norm'], oracle.channel_norm(sown['conv1/linear'], 2e-5), **close)
    np.testing.assert_array_equal(sown['conv1/pool'], oracle.pool(sown['conv1/norm']))
    np.testing.assert_array_equal(sown['conv1/relu'], np.maximum(sown['conv1/pool'], 0))
    flat = np.asarray(sown['conv5/pool']).reshape(2, -1)
    np.testing.assert_allclose(sown['fc6/linear'], flat @ params['fc6']['kernel'] + params['fc6']['bias'], **close)
    np.testing.assert_array_equal(sown['fc7/dropout'], np.maximum(sown['fc7/linear'], 0) / 2)
    np.testing.assert_array_equal(sown['fc8/linear'], logits)


@pytest.mark.parametrize('name', ['released', pytest.param('one_weird_trick', marks=pytest.mark.repeats)])
def test_program_of_those_who_do_not_ask_is_the_same_without_stages(name, monkeypatch):
    """Byte for byte: training pays nothing for it."""
    variant = VARIANTS[name].scaled(WIDTH)
    params = get_parameter_shapes(variant, num_classes=3)
    images = jax.ShapeDtypeStruct((1, variant.input_size, variant.input_size, 3), np.float32)

    def program():
        return jax.jit(lambda p, x: AlexNet(variant, 3).apply({'params': p}, x)).lower(params, images).as_text()

    with_it = program()
    monkeypatch.setattr(AlexNet, '_sow', lambda self, layer, stage, x: x)
    assert program() == with_it
