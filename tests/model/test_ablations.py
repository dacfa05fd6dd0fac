"""Each ablation takes away what its name says and nothing else; its network is the plain one written down here."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from builders import draw_parameters

from alexnet_jax.model import ops, ops_cpu
from alexnet_jax.model.ablations import ABLATIONS, CONTAINED, ablate, activate
from alexnet_jax.model.alexnet import AlexNet, get_parameter_shapes, init_parameters
from alexnet_jax.model.cifar10 import CIFAR10
from alexnet_jax.model.spec import AveragePool, ChannelNorm, MaxPool, Relu, Sigmoid, SpatialNorm, Tanh, get_layer_sizes
from alexnet_jax.model.zoo import NETWORKS, PAPER, RELEASED

PAPER_NORM = ChannelNorm(5, 2.0, 1e-4, 0.75)
NORM, SPATIAL = ChannelNorm(5, 2.0, 2e-5, 0.75), SpatialNorm(5, 1.0, 4e-5, 0.75)
RELU, TANH, POOL = Relu(), Tanh(), MaxPool(3, 2)

# By hand, weights and biases, where they are not the published network's; CHM's are the notes' of the same file.
CONV12 = 11 * 11 * 3 * 96 + 96 + 5 * 5 * 48 * 256 + 256
CONV45 = 3 * 3 * 192 * 384 + 384 + 3 * 3 * 192 * 256 + 256
DENSE = 9216 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
PARAMETERS = {
    'conv3_exchange': CONV12 + 3 * 3 * 128 * 384 + 384 + CONV45 + DENSE,
    'towers': (11 * 11 * 3 * 48 + 48 + 5 * 5 * 48 * 128 + 128 + 3 * 3 * 128 * 192 + 192 + 3 * 3 * 192 * 192 + 192)
    + (3 * 3 * 192 * 256 + 256 + DENSE),
    'exchange': (11 * 11 * 3 * 96 + 96 + 5 * 5 * 48 * 320 + 320 + 3 * 3 * 160 * 384 + 384 + CONV45)
    + (6 * 6 * 128 * 8192 + 8192 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000),
}
EXCHANGES = {'conv3_exchange': ('fc6', 'fc7', 'fc8'), 'exchange': ('fc8',), 'towers': ()}


def test_parameters_are_those_of_the_original_files():
    assert PARAMETERS['towers'] == 59_798_312  # layers-145-half.cfg
    assert PARAMETERS['exchange'] == 60_714_408  # layers-150.cfg
    assert PARAMETERS['conv3_exchange'] == 60_965_224 - 3 * 3 * 128 * 384


@pytest.mark.parametrize('name', ABLATIONS)
@pytest.mark.parametrize('variant', [pytest.param(PAPER, marks=pytest.mark.repeats), RELEASED], ids=lambda v: v.name)
def test_ablate_gives_sizes_parameters_and_exchanges(variant, name):
    ablated = ablate(variant, (name,))
    rows = get_layer_sizes(ablated, num_classes=1000)
    assert sum(row.weights + row.biases for row in rows) == PARAMETERS.get(name, 60_965_224)
    shapes = get_parameter_shapes(ablated, num_classes=1000)
    counted = {layer: (math.prod(p['kernel'].shape), math.prod(p['bias'].shape)) for layer, p in shapes.items()}
    assert counted == {row.name: (row.weights, row.biases) for row in rows}
    assert [row.output[0] for row in rows[:5]] == [27, 13, 13, 13, 6]  # 2x2 pooling comes to the same
    assert rows[4].output == (6, 6, 256)
    assert ablated.exchanges == EXCHANGES.get(name, ('conv3', 'fc6', 'fc7', 'fc8'))


def operations(variant, *without):
    return [conv.then for conv in ablate(variant, without).convs]


def test_ablate_changes_what_follows_each_convolution():
    last = [(RELU,), (RELU,), (RELU, POOL)]
    assert operations(PAPER, 'norm') == [(RELU, POOL), (RELU, POOL), *last]
    assert operations(PAPER, 'norm2') == [(RELU, PAPER_NORM, POOL), (RELU, POOL), *last]
    assert operations(RELEASED, 'norm') == [(POOL, RELU), (RELU, POOL), *last]
    assert operations(RELEASED, 'norm2') == [(NORM, POOL, RELU), (RELU, POOL), *last]
    two = MaxPool(2, 2)
    assert operations(RELEASED, 'overlap') == [(NORM, two, RELU), (RELU, NORM, SPATIAL, two), *last[:2], (RELU, two)]
    three = AveragePool(3, 2)
    assert operations(RELEASED, 'maximum') == [
        (NORM, three, RELU), (RELU, NORM, SPATIAL, three), *last[:2], (RELU, three),
    ]  # fmt: skip
    for order in (('maximum', 'overlap'), ('overlap', 'maximum')):
        assert operations(PAPER, *order)[-1] == (RELU, AveragePool(2, 2))
    assert operations(CIFAR10['cifar10_18pct'], 'maximum')[0][0] == AveragePool(3, 2, partial=True)
    assert operations(RELEASED, 'relu') == [
        (NORM, POOL, TANH), (TANH, NORM, SPATIAL, POOL), (TANH,), (TANH,), (TANH, POOL),
    ]  # fmt: skip
    assert operations(PAPER, 'norm', 'overlap', 'relu')[:2] == [(TANH, two), (TANH, two)]
    assert ablate(PAPER, ('relu',)).activation == TANH
    assert PAPER.activation == RELEASED.activation == RELU


# What each may change; the rest must be what it was.
FIELDS = {'dropout': {'dropout_rate'}, 'lighting': {'lighting'}, 'flips': {'flips'}, 'crops': {'crops'}} | {
    'norm': {'convs'}, 'norm2': {'convs'}, 'overlap': {'convs'}, 'maximum': {'convs'}, 'relu': {'convs', 'activation'},
    'towers': {'convs', 'towers'}, 'conv3_exchange': {'convs'}, 'exchange': {'convs', 'dense'},
}  # fmt: skip


@pytest.mark.parametrize('name', ABLATIONS)
def test_ablate_changes_nothing_else(name):
    for variant in (PAPER, RELEASED):
        ablated = ablate(variant, (name,))
        changed = {
            field.name
            for field in dataclasses.fields(variant)
            if getattr(variant, field.name) != getattr(ablated, field.name)
        }
        assert changed == FIELDS[name] | {'without'}
        assert ablated.without == (name,)
    assert set(FIELDS) == set(ABLATIONS)


def test_ablate_takes_parts_of_training():
    assert ablate(PAPER, ('dropout',)).dropout_rate == 0
    dark = ablate(RELEASED, ('lighting',)).lighting
    assert (dark.strength, dark.divisor, dark.until) == (0, 1, RELEASED.lighting.until)
    assert ablate(PAPER, ('flips',)).flips is False
    assert ablate(PAPER, ('crops',)).crops == 1


def test_ablate_changes_channels_and_units():
    assert [conv.features for conv in ablate(PAPER, ('towers',)).convs] == [48, 128, 192, 192, 256]
    assert [layer.features for layer in ablate(PAPER, ('towers',)).dense] == [4096, 4096, 0]
    apart = ablate(RELEASED, ('exchange',))
    assert [conv.features for conv in apart.convs] == [96, 320, 384, 384, 256]
    assert [conv.reads for conv in apart.convs] == ['image', 'tower', 'tower', 'tower', 'tower']
    assert [(layer.features, layer.reads) for layer in apart.dense] == [(8192, 'tower'), (4096, 'tower'), (0, 'both')]
    assert [conv.features for conv in apart.scaled(0.25).convs] == [24, 80, 96, 96, 64]
    assert apart.scaled(0.25).dense[0].features == 2048


def test_ablate_takes_names_in_any_order_and_contained_pairs_are_ablations():
    names = ['norm', 'overlap', 'relu', 'dropout', 'lighting', 'flips', 'crops', 'exchange']
    assert ablate(RELEASED, names) == ablate(RELEASED, names[::-1])
    assert ablate(PAPER, ()) == PAPER
    assert {name for pair in CONTAINED for name in pair} <= set(ABLATIONS)


def one_tower_norm(x):
    return oracle.channel_norm(jnp.concatenate([x, x], axis=-1), 1e-4)[..., : x.shape[-1]]


def small_pool(x):
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max(axis=(2, 4))


def plain(params, x, *, without):
    """The paper's network under test without one part: towers as a list of arrays that meet where there is a link."""
    towers = 1 if without == 'towers' else 2
    links = {'conv3', 'fc6', 'fc7', 'fc8'} - ({'conv3'} if without == 'conv3_exchange' else set())
    links = {'fc8'} if without == 'exchange' else links
    act = jnp.tanh if without == 'relu' else lambda a: jnp.maximum(a, 0)
    pool = {'overlap': small_pool, 'maximum': oracle.average_pool}.get(without, oracle.pool)
    normed = {'norm': [], 'norm2': ['conv1']}.get(without, ['conv1', 'conv2'])
    streams = [x] * towers

    def inputs(layer):
        return [jnp.concatenate(streams, axis=-1)] * towers if layer in links else streams

    def own(layer, tower):
        return {name: jnp.split(leaf, towers, axis=-1)[tower] for name, leaf in params[layer].items()}

    pads = {'conv1': ((0, 3), (0, 3)), 'conv2': ((2, 2), (2, 2))}
    for layer in ('conv1', 'conv2', 'conv3', 'conv4', 'conv5'):
        pad, stride = pads.get(layer, ((1, 1), (1, 1))), 4 if layer == 'conv1' else 1
        streams = [act(oracle.conv(a, own(layer, t), stride=stride, pad=pad)) for t, a in enumerate(inputs(layer))]
        if layer in normed:
            streams = [one_tower_norm(a) for a in streams]
        if layer in ('conv1', 'conv2', 'conv5'):
            streams = [pool(a) for a in streams]
    for layer in ('fc6', 'fc7'):
        read = [a.reshape(len(a), -1) for a in inputs(layer)]
        weights = [own(layer, tower) for tower in range(towers)]
        streams = [act(a @ w['kernel'] + w['bias']) for a, w in zip(read, weights, strict=True)]
        streams = [a if without == 'dropout' else a * 0.5 for a in streams]
    return inputs('fc8')[0] @ params['fc8']['kernel'] + params['fc8']['bias']


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        *('norm2', 'overlap', 'maximum', 'relu', 'towers', 'exchange'),
        *(pytest.param(name, marks=pytest.mark.repeats) for name in ('norm', 'dropout', 'conv3_exchange')),
    ],
)
def test_ablate_gives_the_logits_of_the_plain_network(name):
    variant = ablate(PAPER, (name,)).scaled(0.0625)
    images = np.random.default_rng(1).standard_normal((2, 224, 224, 3)) * 60
    drawn = draw_parameters(variant, num_classes=7)
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, drawn)
        expected = plain(params, jnp.asarray(images), without=name)
        for form in (ops, ops_cpu):
            found = AlexNet(variant, 7, operations=form).apply({'params': params}, jnp.asarray(images))
            np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert np.ptp(expected, axis=0).min() > 0


def test_activate_changes_every_unit_and_the_initial_weights_of_sigmoids():
    for variant in (PAPER, RELEASED):
        found = activate(variant, 'sigmoid')
        assert [conv.then for conv in found.convs] == [
            tuple(Sigmoid() if o == RELU else o for o in conv.then) for conv in variant.convs
        ]
        assert found.activation == Sigmoid()
        assert {(layer.init_std, layer.init_bias) for layer in found.layers} == {(None, 0.0)}
        assert found.pixel_std == NETWORKS['one_weird_trick'].pixel_std == pytest.approx((58.395, 57.12, 57.375))
        restored = [dataclasses.replace(layer, init_std=1.0, init_bias=1.0) for layer in variant.dense]
        assert [dataclasses.replace(layer, init_std=1.0, init_bias=1.0) for layer in found.dense] == restored
        assert activate(variant, '') == activate(variant, 'relu') == variant
        assert activate(variant, 'tanh') == dataclasses.replace(ablate(variant, ('relu',)), without=())


@pytest.mark.parametrize('name', ['released', 'cifar10_11pct'])
def test_init_parameters_of_sigmoids_are_uniform_within_the_root_of_the_fan_in(name):
    """By hand, of a layer in one tower, of one that reads both, and of one with a kernel at every place."""
    variant = activate(NETWORKS[name], 'sigmoid').scaled(0.5)
    params = init_parameters(variant, jax.random.key(0), num_classes=10)
    fans = {
        'released': {'conv1': 11 * 11 * 3, 'conv2': 5 * 5 * 24, 'conv3': 3 * 3 * 128, 'fc7': 2048},
        'cifar10_11pct': {'conv1': 5 * 5 * 3, 'conv2': 5 * 5 * 32, 'local3': 3 * 3 * 32},
    }[name]
    for layer, fan_in in fans.items():
        kernel, bound = np.asarray(params[layer]['kernel']), fan_in**-0.5
        assert 0.99 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
        np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.03)
    assert not any(np.asarray(leaves['bias']).any() for leaves in params.values())


def test_init_parameters_of_one_weird_trick_keeps_pytorch_s_uniform_biases():
    params = init_parameters(NETWORKS['one_weird_trick'].scaled(0.0625), jax.random.key(0), num_classes=10)
    for layer, leaves in params.items():
        bound = np.prod(leaves['kernel'].shape[:-1]) ** -0.5
        bias = np.abs(np.asarray(leaves['bias']))
        assert bias.min() > 0 and bias.max() <= bound, layer
