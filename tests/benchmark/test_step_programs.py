"""The benchmark's count of work, by hand, and its programs' results, at a tiny width."""

import jax
import numpy as np
import oracle
import pytest

from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.step_programs import count_flop, make_layer_programs, make_parameters
from alexnet_jax.model import ops as plain
from alexnet_jax.model.spec import ChannelNorm, MaxPool
from alexnet_jax.model.zoo import PAPER

BATCH, CLASSES = 2, 10
NORM, POOL = ChannelNorm(size=5, k=2.0, alpha=1e-4, beta=0.75), MaxPool(window=3, stride=2)
# Of 'paper' at width 1/16: 6, 16, 24, 24, 16 channels, 256 and 256 units. Multiply-accumulates of one image.
MACS = {
    'conv1': 55 * 55 * 6 * (11 * 11 * 3),
    'conv2': 27 * 27 * 16 * (5 * 5 * 3),
    'conv3': 13 * 13 * 24 * (3 * 3 * 16),
    'conv4': 13 * 13 * 24 * (3 * 3 * 12),
    'conv5': 13 * 13 * 16 * (3 * 3 * 12),
    'fc6': 6 * 6 * 16 * 256,
    'fc7': 256 * 256,
    'fc8': 256 * CLASSES,
}
PARAMETERS = (
    (11 * 11 * 3 + 1) * 6 + (5 * 5 * 3 + 1) * 16 + (3 * 3 * 16 + 1) * 24 + (3 * 3 * 12 + 1) * 24 + (3 * 3 * 12 + 1) * 16
) + ((6 * 6 * 16 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * CLASSES)


@pytest.fixture(scope='module')
def programs():
    return make_layer_programs(Setting(batch=BATCH, width=0.0625, classes=CLASSES, allocator='default'))


def test_count_flop_of_the_papers_network():
    # 724,406,816 multiply-accumulates forward; three times that in training, without the 105,415,200 of conv1's
    # gradient of its input.
    assert count_flop(PAPER, num_classes=1000) == (1_448_813_632, 4_135_610_496)


@pytest.mark.slow
def test_make_layer_programs_has_every_row(programs):
    rows = {
        'normalise': ['forward'],
        'conv1': ['forward', 'weight gradient'],
        **{f'conv{n}': ['forward', 'input gradient', 'weight gradient'] for n in (2, 3, 4, 5)},
        **{f'conv{n} bias, ReLU': ['forward', 'backward'] for n in (1, 2, 3, 4, 5)},
        **{f'conv{n} LRN': ['forward', 'backward'] for n in (1, 2)},
        **{f'conv{n} pooling': ['forward', 'backward'] for n in (1, 2, 5)},
        **{f'fc{n}': ['forward', 'input gradient', 'weight gradient'] for n in (6, 7, 8)},
    }
    assert set(programs) == {f'{layer} {part}' for layer, parts in rows.items() for part in parts} | {'update'}


@pytest.mark.slow
def test_make_layer_programs_counts_arithmetic(programs):
    for layer, macs in MACS.items():
        for part in ('forward', 'input gradient', 'weight gradient'):
            if (layer, part) != ('conv1', 'input gradient'):
                assert programs[f'{layer} {part}'].flop == 2 * BATCH * macs, (layer, part)
    trained = 3 * sum(MACS.values()) - MACS['conv1']
    assert sum(program.flop for program in programs.values()) == 2 * BATCH * trained
    assert count_flop(PAPER.scaled(0.0625), num_classes=CLASSES) == (2 * sum(MACS.values()), 2 * trained)


@pytest.mark.slow
def test_make_layer_programs_counts_traffic(programs):
    conv2, kernel2, pooled1 = BATCH * 27 * 27 * 16, 5 * 5 * 3 * 16, BATCH * 27 * 27 * 6
    image, conv1 = BATCH * 224 * 224 * 3, BATCH * 55 * 55 * 6
    floats = {
        'conv2 forward': pooled1 + kernel2 + conv2,
        'conv2 input gradient': conv2 + kernel2 + pooled1,
        'conv2 weight gradient': conv2 + pooled1 + kernel2,
        'conv2 bias, ReLU forward': conv2 + 16 + conv2,
        'conv2 bias, ReLU backward': conv2 + conv2 + conv2 + 16,
        'conv2 LRN forward': 2 * conv2,
        'conv2 LRN backward': 3 * conv2,
        'conv1 pooling forward': conv1 + pooled1,
        'conv1 pooling backward': pooled1 + conv1,
        'update': 5 * PARAMETERS,
        'normalise forward': image / 4 + 224 * 224 * 3 + BATCH * 3 + image,  # images come as bytes
    }
    assert {name: programs[name].moved / 4 for name in floats} == floats


@pytest.mark.slow
def test_layer_programs_compute_what_their_rows_name(programs):
    """Against the plain operations; each gradient is that of the mean of the layer's outputs."""
    names = ('conv1 pooling', 'conv2', 'conv2 bias, ReLU', 'conv2 LRN')
    x, convolved, activated, normalised = (programs[f'{name} forward'].call()[0] for name in names)
    layer = make_parameters(PAPER.scaled(0.0625), num_classes=CLASSES)['conv2']

    def mean(x, kernel):
        return oracle.conv(x, {'kernel': kernel, 'bias': 0}, pad=((2, 2), (2, 2)), groups=2).mean()

    input_gradient, weight_gradient = jax.grad(mean, argnums=(0, 1))(x, layer['kernel'])
    expected = {
        'conv2 input gradient': [input_gradient],
        'conv2 weight gradient': [weight_gradient],
        'conv2 bias, ReLU backward': [
            (activated > 0) / activated.size,
            (activated > 0).sum((0, 1, 2)) / activated.size,
        ],
        'conv2 LRN backward': [jax.grad(lambda x: plain.channel_norm(x, NORM, towers=2).mean())(activated)],
        'conv2 pooling backward': [jax.grad(lambda x: plain.max_pool(x, POOL).mean())(normalised)],
    }
    for name, gradients in expected.items():
        found = programs[name].call()
        assert len(found) == len(gradients), name
        for a, b in zip(found, gradients, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(np.abs(b).max()), err_msg=name)
    np.testing.assert_allclose(activated, np.maximum(convolved + layer['bias'], 0), rtol=1e-6)
