"""The networks for CIFAR-10: sizes and constants by hand from their files, and what they compute, by NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model import ops, ops_cpu
from alexnet_jax.model.ablations import ablate
from alexnet_jax.model.alexnet import AlexNet, get_parameter_shapes, init_parameters, list_stages
from alexnet_jax.model.cifar10 import CIFAR10
from alexnet_jax.model.spec import get_layer_sizes

# By hand from CHM example-layers/layers-*.cfg: the output after pooling, weights, biases.
SHALLOW = [
    ('conv1', (16, 16, 32), 5 * 5 * 3 * 32, 32),
    ('conv2', (8, 8, 32), 5 * 5 * 32 * 32, 32),
    ('conv3', (4, 4, 64), 5 * 5 * 32 * 64, 64),
]
LOCAL = [
    ('conv1', (12, 12, 64), 5 * 5 * 3 * 64, 64),
    ('conv2', (6, 6, 64), 5 * 5 * 64 * 64, 64),
    ('local3', (6, 6, 32), 36 * 3 * 3 * 64 * 32, 36 * 32),
    ('local4', (6, 6, 32), 36 * 3 * 3 * 32 * 32, 36 * 32),
    ('fc8', (10,), 6 * 6 * 32 * 10, 10),
]
# CC a2a6af8 example-layers/layers-conv-local-11pct.cfg
WIDER = [
    *LOCAL[:2],
    ('local3', (6, 6, 64), 36 * 3 * 3 * 64 * 64, 36 * 64),
    ('local4', (6, 6, 32), 36 * 3 * 3 * 64 * 32, 36 * 32),
    LOCAL[-1],
]
SIZES = {
    'cifar10_80sec': [*SHALLOW, ('fc7', (64,), 4 * 4 * 64 * 64, 64), ('fc8', (10,), 64 * 10, 10)],
    'cifar10_19pct': [*SHALLOW, ('fc8', (10,), 4 * 4 * 64 * 10, 10)],
    'cifar10_18pct': [*SHALLOW, ('fc8', (10,), 4 * 4 * 64 * 10, 10)],
    'cifar10_13pct': LOCAL,
    'cifar10_11pct': WIDER,
    'cifar10_11pct_draft': LOCAL,
}
SIZES |= {f'cifar10_{name}_published': SIZES[f'cifar10_{name}'] for name in ('80sec', '19pct', '18pct')}
# Caffe's examples/cifar10 has 80sec as cifar10_quick and 18pct as cifar10_full; the numbers are those of its logs.
PARAMETERS = {'cifar10_80sec': 145_578, 'cifar10_18pct': 89_578}


def test_cifar10_has_these_networks():
    assert CIFAR10.keys() == SIZES.keys()


@pytest.mark.parametrize('name', CIFAR10)
def test_get_layer_sizes_are_those_of_the_files(name):
    rows = get_layer_sizes(CIFAR10[name], num_classes=10)
    assert [(row.name, row.output, row.weights, row.biases) for row in rows] == SIZES[name]
    assert PARAMETERS.get(name, 0) in (0, sum(row.weights + row.biases for row in rows))
    shapes = get_parameter_shapes(CIFAR10[name], num_classes=10)
    counted = {layer: (math.prod(p['kernel'].shape), math.prod(p['bias'].shape)) for layer, p in shapes.items()}
    assert counted == {layer: (weights, biases) for layer, _, weights, biases in SIZES[name]}


def test_get_layer_sizes_counts_arithmetic_at_every_place():
    macs = {row.name: row.macs for row in get_layer_sizes(CIFAR10['cifar10_11pct'], num_classes=10)}
    assert macs['conv2'] == 12 * 12 * 64 * (5 * 5 * 64)
    assert macs['local3'] == 6 * 6 * 64 * (3 * 3 * 64)


def test_cifar10_has_the_constants_of_the_files():
    published = [f'cifar10_{name}_published' for name in ('80sec', '19pct', '18pct')]
    stds = {name: [layer.init_std for layer in network.layers] for name, network in CIFAR10.items()}
    assert all(stds.pop(name) == stds[name.removesuffix('_published')] for name in published)
    assert stds == {
        'cifar10_80sec': [0.0001, 0.01, 0.01, 0.1, 0.1],
        'cifar10_19pct': [0.0001, 0.01, 0.01, 0.01],
        'cifar10_18pct': [0.0001, 0.01, 0.01, 0.01],
        'cifar10_13pct': [0.0001, 0.01, 0.04, 0.04, 0.01],
        'cifar10_11pct': [0.0001, 0.01, 0.04, 0.04, 0.01],
        'cifar10_11pct_draft': [0.0001, 0.01, 0.04, 0.04, 0.01],
    }
    decays = {name: [round(0.004 * layer.decay, 12) for layer in network.layers] for name, network in CIFAR10.items()}
    assert all(decays.pop(name) == decays[name.removesuffix('_published')] for name in published)
    assert decays == {  # `wc`
        'cifar10_80sec': [0.004, 0.004, 0.004, 0.03, 0.03],
        'cifar10_19pct': [0.004, 0.004, 0.004, 3],
        'cifar10_18pct': [0.004, 0.004, 0.004, 1],
        'cifar10_13pct': [0, 0, 0.004, 0.004, 0.004],
        'cifar10_11pct': [0, 0, 0.004, 0.004, 0.01],
        'cifar10_11pct_draft': [0, 0, 0.004, 0.004, 0.004],
    }
    for name, network in CIFAR10.items():
        assert {layer.init_bias for layer in network.layers} == {0}
        whole = name not in ('cifar10_13pct', 'cifar10_11pct', 'cifar10_11pct_draft')
        assert (network.record_size, network.input_size) == (32, 32 if whole else 24)
        assert (network.crops, network.flips) == ((1, False) if whole else (None, True))
        assert network.bias_drops == whole  # 11pct lowers epsW, 18pct all rates
        assert (network.bias_rate, network.dropout_rate, network.lighting.strength, network.towers) == (2, 0, 0, 1)


def windows(x, side, stride):
    """Every window that begins in x, cut off at its edges: (r, c, pixels)."""
    steps = -(-(x.shape[1] - side) // stride) + 1
    for r in range(steps):
        for c in range(steps):
            yield r, c, x[:, stride * r : stride * r + side, stride * c : stride * c + side]


def pooled(x, reduce):
    out = np.empty((len(x), *[-(-(x.shape[1] - 3) // 2) + 1] * 2, x.shape[-1]))
    for r, c, pixels in windows(x, 3, 2):
        out[:, r, c] = reduce(pixels, axis=(1, 2))
    return out


def convolved(x, kernel, bias):
    edge = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    side = kernel.shape[0]
    out = np.empty((*x.shape[:3], kernel.shape[-1]))
    for r, c in np.ndindex(*x.shape[1:3]):
        out[:, r, c] = np.tensordot(padded[:, r : r + side, c : c + side], kernel, 3) + bias
    return out


def connected_locally(x, kernel, bias):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.empty((*x.shape[:3], kernel.shape[-1]))
    for r, c in np.ndindex(*x.shape[1:3]):
        out[:, r, c] = padded[:, r : r + 3, c : c + 3].reshape(len(x), -1) @ kernel[r, c] + bias[r, c]
    return out


def same_map_norm(x):
    out = np.empty_like(x)
    for r, c in np.ndindex(*x.shape[1:3]):
        near = x[:, max(0, r - 1) : r + 2, max(0, c - 1) : c + 2]
        out[:, r, c] = x[:, r, c] / (1 + 5e-5 / 9 * (near**2).sum(axis=(1, 2))) ** 0.75
    return out


def across_maps_norm(x, size):
    out = np.empty_like(x)
    for i in range(x.shape[-1]):
        near = x[..., max(0, i - size // 2) : i + size // 2 + 1]
        out[..., i] = x[..., i] / (1 + 1e-3 / size * (near**2).sum(axis=-1)) ** 0.75
    return out


def relu(x):
    return np.maximum(x, 0)


def expected_logits(name, params, x):
    w = {layer: (p['kernel'], p['bias']) for layer, p in params.items()}
    norm = same_map_norm if '18pct' in name else lambda x: x
    mean = (lambda x, axis: x.sum(axis) / 9) if 'published' in name else np.mean
    if name in ('cifar10_13pct', 'cifar10_11pct', 'cifar10_11pct_draft'):
        if name == 'cifar10_11pct':
            x = across_maps_norm(pooled(relu(convolved(x, *w['conv1'])), np.max), 9)
            x = pooled(across_maps_norm(relu(convolved(x, *w['conv2'])), 9), np.max)
        else:
            for layer in ('conv1', 'conv2'):
                x = relu(convolved(x, *w[layer]))
                x = pooled(x if name == 'cifar10_13pct' else across_maps_norm(x, 5), np.max)
        for layer in ('local3', 'local4'):
            x = relu(connected_locally(x, *w[layer]))
    else:
        x = norm(relu(pooled(convolved(x, *w['conv1']), np.max)))
        x = norm(pooled(relu(convolved(x, *w['conv2'])), mean))
        x = pooled(relu(convolved(x, *w['conv3'])), mean)
    x = x.reshape(len(x), -1)
    if 'fc7' in w:
        x = relu(x @ w['fc7'][0] + w['fc7'][1])
    return x @ w['fc8'][0] + w['fc8'][1]


@pytest.mark.parametrize('operations', [ops, ops_cpu], ids=['plain', 'cpu'])
@pytest.mark.parametrize(
    'name',
    [  # 19pct is 18pct without its norms, and 13pct is the draft of 11pct
        pytest.param(name, marks=pytest.mark.repeats if '19pct' in name or name == 'cifar10_13pct' else ())
        for name in CIFAR10
    ],
)
def test_cifar10_has_the_logits_of_numpy(name, operations):
    variant, random = CIFAR10[name], np.random.default_rng(3)
    size = variant.input_size
    images = random.standard_normal((2, size, size, 3)) * 60
    # Larger weights than at the start, so that the norms have something to divide by, and biases that are seen.
    shapes = get_parameter_shapes(variant, num_classes=10)
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape) * 0.1, shapes)
    expected = expected_logits(name, params, images)
    with jax.enable_x64(True):
        model = AlexNet(variant, 10, operations=operations)
        found = model.apply({'params': jax.tree.map(jnp.asarray, params)}, jnp.asarray(images))
    assert np.ptp(expected, axis=0).min() > 0  # the images are told apart
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())


def test_init_parameters_has_the_files_spread():
    variant = CIFAR10['cifar10_13pct']
    params = init_parameters(variant, jax.random.key(0), num_classes=10)
    assert params['local3']['kernel'].shape == (6, 6, 3 * 3 * 64, 32)
    assert params['local3']['bias'].shape == (6, 6, 32)
    for layer in variant.layers:
        np.testing.assert_allclose(params[layer.name]['kernel'].std(), layer.init_std, rtol=0.05)


def test_ablate_gives_figure_1_the_same_network_with_tanh():
    tanh = ablate(CIFAR10['cifar10_80sec'], ('relu',))
    assert [stage for stage in list_stages(tanh) if 'relu' in stage] == []
    assert sum('tanh' in stage for stage in list_stages(tanh)) == 4
    assert get_layer_sizes(tanh, num_classes=10) == get_layer_sizes(CIFAR10['cifar10_80sec'], num_classes=10)


def test_ablate_makes_18pct_without_norm_19pct_but_for_its_decay():
    """layers-18pct.cfg and layers-19pct.cfg: the same layers, and `wc` of fc10 1 and 3."""
    plain, other = ablate(CIFAR10['cifar10_18pct'], ('norm',)), CIFAR10['cifar10_19pct']
    assert plain.convs == other.convs
    assert [layer.name for layer in plain.dense] == [layer.name for layer in other.dense]
    assert ablate(CIFAR10['cifar10_11pct_draft'], ('norm',)).layers == CIFAR10['cifar10_13pct'].layers
